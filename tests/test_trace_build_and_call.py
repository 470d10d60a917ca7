"""Layers that an argument tells whether they train: seen in torch's words, or said aloud not to be seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropout_lint as dl


class Layer(nn.Module):
    """The protocol of Keras 3 on torch: `forward` hands on to `call`, and layers within are no submodules."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def build(self, shape: tuple[int, ...]) -> None:
        """Nothing is made here."""

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


class Dense(Layer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.kernel = nn.Parameter(torch.randn(8, 8))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return x @ self.kernel


class Drop(Layer):
    rate = 0.5

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return torch.dropout(x, self.rate, True) if training else x


class Normal(Layer):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.register_buffer("moving_mean", torch.zeros(8))
        self.register_buffer("moving_variance", torch.ones(8))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        mean, variance = (x.mean(0), x.var(0)) if training else (self.moving_mean, self.moving_variance)
        return (x - mean) / (variance + 1e-3) ** 0.5  # type: ignore[operator]


class Stack(Layer):
    def __init__(self, name: str, *layers: Layer) -> None:
        super().__init__(name)
        self.layers = tuple(layers)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        for layer in self.layers:
            x = layer(x, training=training)
        return x


class Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.stack = nn.Linear(8, 8), stack()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stack(self.first(x), training=self.training)
        return y


def stack() -> Stack:
    return Stack("all", Dense("one"), Drop("drop"), Stack("inner", Dense("two"), Normal("norm")))


X = torch.randn(16, 8)


def test_dropouts_and_norms_that_train_by_argument_are_named() -> None:
    target = dl.lint(stack(), X).target
    assert target.status == "partial"
    assert target.trace is not None
    assert target.trace.opaque == ["Stack"]
    assert "the dropouts drop and the norms norm are not seen" in target.trace.reasons["Stack"]


def test_the_outermost_one_inside_a_torch_model_is_named() -> None:
    target = dl.lint(Inside(), X).target
    assert target.trace is not None
    assert target.trace.opaque == ["stack"]


def test_without_a_dropout_nothing_is_missing() -> None:
    target = dl.lint(Stack("all", Dense("one"), Normal("norm")), X).target
    assert target.status == "ok"


class Variable:
    """A weight of Keras: a tensor in an object."""

    def __init__(self, value: float) -> None:
        self.value = nn.Parameter(torch.full((8,), value), requires_grad=False)


class Dropout(Layer):
    """As Keras has it: a mask of its own, in whatever way."""

    rate, noise_shape = 0.5, None

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return x * (torch.rand(x.shape) > self.rate) / (1 - self.rate) if training else x


class SpatialDropout1D(Dropout):
    def call(self, x: Tensor, training: bool = False) -> Tensor:
        mask = torch.rand(len(x), 1, x.shape[2]) > self.rate
        return x * mask / (1 - self.rate) if training else x


class BatchNormalization(Layer):
    """Along the last axis, by plain arithmetic."""

    axis, epsilon, momentum = -1, 1e-3, 0.99

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.trainable = True
        self.moving_mean, self.gamma = Variable(0.0), Variable(1.0)
        self.moving_variance, self.beta = Variable(1.0), Variable(0.0)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        axes = list(range(x.dim() - 1))
        mean, variance = self.moving_mean.value, self.moving_variance.value
        if training and self.trainable:
            mean, variance = x.mean(axes), x.var(axes, correction=0)  # type: ignore[assignment]  # plain tensors
        return (x - mean) / (variance + self.epsilon) ** 0.5


for _kind in (Dropout, SpatialDropout1D, BatchNormalization):
    _kind.__module__ = "keras.src.layers"  # whose layers these stand for


def keras(*layers: Layer) -> Stack:
    return Stack("all", Dense("one"), *layers)


@pytest.mark.parametrize("drop", [Dropout, SpatialDropout1D])
def test_layers_that_torch_has_words_for_are_judged_like_all_others(drop: type[Layer]) -> None:
    model = keras(drop("drop"), Dense("two"), BatchNormalization("norm"))
    report = dl.lint(model, torch.randn(64, 5, 8))
    assert report.target.status == "ok"
    (found,) = report.findings
    assert (found.code, found.dropout and found.dropout.kind) == ("DL102", drop.__name__)
    assert found.dropout is not None and (found.dropout.name, found.dropout.call) == ("drop", None)
    (shift,) = report.predictions
    assert shift.norm == "norm" and shift.delta_initial == pytest.approx(0.5, abs=0.02)


def test_inside_a_torch_model_the_flag_that_it_passes_counts() -> None:
    class Flagged(nn.Module):
        def __init__(self, trains: bool) -> None:
            super().__init__()
            self.inner, self.trains = keras(Dropout("drop"), BatchNormalization("norm")), trains

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x, training=self.training and self.trains)
            return out

    assert [item.code for item in dl.lint(Flagged(True), X).findings] == ["DL101"]
    assert "DL101" not in [item.code for item in dl.lint(Flagged(False), X).findings]


def test_the_model_is_left_as_it_was_and_no_fix_takes_a_layer_out() -> None:
    model = keras(Dropout("drop"), BatchNormalization("norm"))
    model.eval()
    before = model(X)
    fixed = dl.fix(model, X)
    assert not fixed.applied and "Keras" in fixed.skipped[0].reason
    assert torch.equal(before, model(X)) and "call" not in vars(model.layers[1])


class Builder(nn.Module):
    """A torch module that has methods of these names by chance."""

    rate = 0.5
    moving_variance = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.line, self.norm = nn.Dropout(0.5), nn.Linear(8, 8), nn.BatchNorm1d(8)

    def build(self) -> None:
        """Nothing."""

    def call(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.line(self.drop(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def test_torch_modules_with_such_methods_are_seen() -> None:
    report = dl.lint(Builder(), X)
    assert report.target.status == "ok"
    assert [finding.code for finding in report.findings] == ["DL102"]
