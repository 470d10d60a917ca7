"""Numbers and arrays that chance makes in Python: their noise is followed, or is unknown."""

from __future__ import annotations

import random

import brute_force
import numpy as np
import pytest
import torch
from brute_force import Join, Joined
from torch import Tensor, nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import predict
from dropout_lint.trace import trace

P = 0.3
KEEP = 1 - P
BATCH = 32

GENERATOR = np.random.default_rng(0)
START = GENERATOR.bit_generator.state


@pytest.fixture(autouse=True)
def as_at_the_start() -> None:
    """The generator starts anew, whatever test was before."""
    GENERATOR.bit_generator.state = START


def blended(f: Tensor, g: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tensors that a mask keeps; where it keeps none, nothing."""
    alive = mask.sum(0)
    alive[alive == 0] = 1.0
    return (torch.stack([f, g]) * mask).sum(0) / alive


def chosen(size: int) -> Tensor:
    """One of two columns at least, as a FractalNet draws them."""
    mask = np.random.binomial(1, KEEP, size=(2, size)).astype(np.float32)
    dead = np.where(mask.sum(0) == 0)[0]
    mask[np.random.randint(0, 2, size=dead.shape), dead] = 1.0
    return torch.from_numpy(mask).unsqueeze(2)


def some(size: int) -> Tensor:
    return torch.from_numpy(np.random.binomial(1, 0.5, size=(2, size)).astype(np.float32)).unsqueeze(2)


def plain(f: Tensor, g: Tensor) -> Tensor:
    return f + g


def half(f: Tensor, g: Tensor) -> Tensor:
    return 0.5 * f + 0.5 * g


def even(f: Tensor, g: Tensor) -> Tensor:
    return torch.stack([f, g]).mean(0)


FOLLOWED: dict[str, tuple[Join, Join]] = {
    "a tensor's number": (
        lambda f, g: float(torch.bernoulli(torch.full((1,), KEEP))) / KEEP * f + g,
        plain,
    ),
    "a tensor's item": (lambda f, g: f * ((torch.rand(1) < KEEP).item() / KEEP) + g, plain),
    "a comparison": (lambda f, g: f * (random.random() < KEEP) / KEEP + g, plain),
    "the other comparison": (lambda f, g: f * (random.random() >= P) / KEEP + g, plain),
    "numpy's number": (lambda f, g: np.random.binomial(1, KEEP) / KEEP * f + g, plain),
    "a generator's": (lambda f, g: f * (GENERATOR.random() < KEEP) / KEEP + g, plain),
    "a mask of samples": (
        lambda f, g: (
            f * torch.from_numpy(np.random.binomial(1, KEEP, (len(f), 1)).astype("float32")) / KEEP + g
        ),
        plain,
    ),
    "a mask of elements": (
        lambda f, g: f * torch.as_tensor(GENERATOR.random(f.shape) < KEEP) / KEEP + g,
        plain,
    ),
    "a scale": (lambda f, g: f * random.uniform(0.5, 1.5) + g, plain),
    "a mixture": (lambda f, g: (a := np.random.beta(1.0, 1.0)) * f + (1 - a) * g, half),
    "a mean of what is left": (lambda f, g: blended(f, g, chosen(len(f))), even),
    "a mean of what is left, or nothing": (lambda f, g: blended(f, g, some(len(f))), even),
    "the same of torch's draws": (
        lambda f, g: blended(f, g, torch.bernoulli(torch.full((2, len(f), 1), 0.5))),
        even,
    ),
}
UNKNOWN: dict[str, tuple[Join, Join]] = {
    "a way": (lambda f, g: f * g if random.random() < P else f + g, plain),
    "two draws": (lambda f, g: f * (random.random() * random.random() * 4) + g, plain),
    "no line": (lambda f, g: f * (random.random() ** 2 * 3) + g, plain),
    "a mean that test mode does not take": (lambda f, g: blended(f, g, chosen(len(f))), plain),
}


def net(train: Join, test: Join) -> Joined:
    return Joined(train, test, width=64)


@pytest.mark.parametrize("name", FOLLOWED)
def test_noise_that_chance_makes_in_python(name: str) -> None:
    model = net(*FOLLOWED[name])
    found = trace(model, Inputs((torch.randn(BATCH, 8),)))
    (shift,) = predict(found).norms
    assert not shift.unknown and not found.notes
    assert not any(arrival.beside for arrival in found.draws[found.norms[0].node])
    truth = brute_force.measured(model, torch.randn(1000, 8), 800)["bn"]
    assert shift.delta_now == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_followed_is_unknown(name: str) -> None:
    found = trace(net(*UNKNOWN[name]), Inputs((torch.randn(BATCH, 8),)))
    (shift,) = predict(found).norms
    assert shift.delta is None and "random" in shift.unknown[0]


def test_many_numbers_are_told_apart() -> None:
    """Each block drops at a ratio of its own, and the last one never."""
    ratios = [0.1, 0.5, 0.2, 0.4, 0.0]

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in ratios)
            self.bn = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            for ratio, layer in zip(ratios, self.layers, strict=True):
                y = layer(x)
                if self.training:
                    y = float(torch.bernoulli(torch.full((1,), 1 - ratio))) / (1 - ratio) * y
                x = x + y
            return self.bn(x)  # type: ignore[no-any-return]  # a norm's output

    found = trace(Blocks(), Inputs((torch.randn(BATCH, 8),)))
    assert [site.spec.p for site in found.dropouts] == ratios[:-1]
    assert found.method == "meta"


def test_beside_values_that_are_read_of_the_data() -> None:
    def train(f: Tensor, g: Tensor) -> Tensor:
        if float(f.sum()) == float("inf"):
            raise OverflowError
        return f * float(torch.bernoulli(torch.tensor(KEEP))) / KEEP + g

    found = trace(net(train, plain), Inputs((torch.randn(BATCH, 8),)))
    assert found.method == "cpu" and [site.spec.p for site in found.dropouts] == [P]
    assert found.notes == ("the model reads values of tensors: what it does at other values was not seen",)
