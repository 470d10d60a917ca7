"""Layers that an argument tells whether they train: said aloud, since no recording shows what they do."""

from __future__ import annotations

from typing import Any

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
