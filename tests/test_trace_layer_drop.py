"""Layers that chance leaves out of whole batches: found however written, with the Δ of all outcomes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from brute_force import measured
from torch import Tensor, nn

import dropout_lint as dl
from dropout_lint.inputs.example import Inputs
from dropout_lint.trace import trace

P = 0.3
LAYERS = 4
ASKS: dict[str, Callable[[], bool]] = {
    "a tensor": lambda: bool(torch.rand([]) < P),
    "its number": lambda: torch.rand(1).item() < P,
    "the other way round": lambda: torch.rand(()).item() >= 1 - P,
    "bernoulli": lambda: bool(torch.bernoulli(torch.tensor(P))),
    "random": lambda: random.random() < P,
    "numpy": lambda: np.random.uniform(0, 1) < P,
}


class Block(nn.Module):
    """A residual block with a norm; with `pair`, it returns something beside."""

    def __init__(self, pair: bool = False) -> None:
        super().__init__()
        self.a, self.bn, self.b = nn.Linear(32, 64), nn.BatchNorm1d(64), nn.Linear(64, 32)
        self.pair = pair

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        h = self.b(torch.relu(self.bn(self.a(x))))
        return (x + h, h) if self.pair else x + h


class Net(nn.Module):
    """Blocks that are left out in training."""

    def __init__(self, ask: Callable[[], bool], *, pair: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        self.ask = ask
        self.stem, self.drop = nn.Linear(32, 32), nn.Dropout(drop)
        self.blocks = nn.ModuleList(Block(pair) for _ in range(LAYERS))
        self.bn = nn.BatchNorm1d(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.stem(x))
        for block in self.blocks:
            if self.training and self.ask():
                continue
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.bn(x)


def inputs() -> Inputs:
    return Inputs((torch.randn(8, 32),))


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_each_layer_is_a_dropout_of_its_own(ask: Callable[[], bool], pair: bool) -> None:
    found = trace(Net(ask, pair=pair), inputs())
    sites = [site for site in found.dropouts if site.spec.is_noisy]
    assert [site.spec.kind for site in sites] == ["LayerDrop"] * LAYERS
    assert [site.spec.p for site in sites] == pytest.approx([P] * LAYERS, abs=0.02)
    assert not any(site.active_in_eval for site in sites)
    assert [site.name for site in found.norms] == [*(f"blocks.{n}.bn" for n in range(LAYERS)), "bn"]
    (note,) = found.notes
    assert f"leaves {LAYERS} layers out (p = {sites[0].spec.p:g})" in note


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_its_shift_is_that_of_all_outcomes_together(drop: float) -> None:
    model = Net(ASKS["a tensor"], drop=drop)
    true = measured(model, torch.randn(256, 32), 3000)["bn"]
    report = dl.lint(model, torch.randn(8, 32))
    last = next(entry for entry in report.predictions if entry.norm == "bn")
    assert abs(true - 1) > 0.1
    assert last.delta_initial == pytest.approx(true, abs=0.04)
    assert last.approximate


class Doubled(nn.Module):
    """What is left out meets what goes on in its place, of which it is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(32, 64), nn.BatchNorm1d(64)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        return self.bn(h + (h if self.training and torch.rand([]) < P else h * 2))  # type: ignore[no-any-return]


def test_it_is_no_mask_on_its_result() -> None:
    model = Doubled()
    true = measured(model, torch.randn(256, 32), 3000)["bn"]
    assert true == pytest.approx(9 / (9 * (1 - P) + 4 * P), abs=0.02)
    assert dl.lint(model, torch.randn(8, 32)).predictions[0].delta_initial == pytest.approx(true, abs=0.04)


def test_one_that_test_mode_leaves_out_as_well_is_found() -> None:
    class Always(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                if torch.rand([]) >= P:
                    x = block(x)
            return self.bn(x)

    assert "DL401" in {
        finding.code for finding in dl.lint(Always(ASKS["a tensor"]), torch.randn(8, 32)).findings
    }


def test_what_else_chance_decides_stays_unknown() -> None:
    class Stops(Net):
        """Behind the first layer that is left out there is none."""

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                if self.training and torch.rand([]) < P:
                    break
                x = block(x)
            return self.bn(x)

    class Chooses(Net):
        """One of two layers runs."""

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            first = self.training and torch.rand([]) < P
            return self.bn(self.blocks[0](x) if first else torch.tanh(self.blocks[1](x)))

    for model in (Stops(ASKS["a tensor"]), Chooses(ASKS["a tensor"])):
        last = dl.lint(model, torch.randn(8, 32)).predictions[-1]
        assert last.norm == "bn"
        assert last.delta is None
