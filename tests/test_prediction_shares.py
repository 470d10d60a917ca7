"""Each dropout's share in a norm's shortfall: the factor that its removal raises Δ by, as a log."""

from __future__ import annotations

import copy
import functools
import math
import statistics
from collections.abc import Callable

import pytest
import torch
from brute_force import measured, predicted, smooth, untrained
from torch import Tensor, nn

from dropout_lint.prediction import NormShift
from fixtures import densenet, preresnet, resnetv1, vgg_bn


def without(model: nn.Module, name: str) -> nn.Module:
    changed = copy.deepcopy(model)
    changed.get_submodule(name).p = 0.0  # type: ignore[assignment]
    return changed


def in_series(p: float, q: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(p),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64),
        nn.Dropout(q),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64),
    )


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.1, 0.5), (0.5, 0.1), (0.3, 0.2)])
def test_a_norm_between_two_dropouts_leaves_them_independent(p: float, q: float) -> None:
    """Δ = 1/(1 + s) · 1/(1 + t): removing either divides by its own factor."""
    torch.manual_seed(0)
    s, t = -math.log(1 - p), -math.log(1 - q)  # log(1 + p/(1 - p))
    shares = untrained(in_series(p, q), torch.randn(4, 64))["5"].shares
    assert shares == pytest.approx({"0": s / (s + t), "3": t / (s + t)}, abs=0.02)


def test_without_a_norm_between_them_as_well() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Dropout(0.5), nn.Linear(64, 64), nn.Dropout(0.5), nn.Linear(64, 64), nn.BatchNorm1d(64)
    )
    assert untrained(model, torch.randn(4, 64))["4"].shares == pytest.approx({"0": 0.5, "2": 0.5}, abs=0.02)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "preresnet P3": lambda: preresnet.build("P3", 0.3, depth=14),
    "preresnet P0": lambda: preresnet.build("P0", 0.3, depth=14),
    "resnetv1 P4": lambda: resnetv1.build("P4", 0.3, depth=14),
    "densenet": lambda: densenet.build(0.3, depth=22),
    "vgg": lambda: vgg_bn.build(0.3, 0.3),
}


def expected(model: nn.Module, x: Tensor) -> dict[str, NormShift]:
    return {shift.norm: shift for shift in predicted(model, x).norms}


WALKS = {
    "shapes": functools.partial(untrained, real=False),
    "weights": functools.partial(untrained, real=True),
    "trained": expected,
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("name", MODELS)
def test_as_the_ledger_says_without_each_dropout(name: str, walk: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name](), torch.randn(2, 3, 32, 32)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout)]
    removed = {n: WALKS[walk](without(model, n), x) for n in names}
    apart = []
    for shift in WALKS[walk](model, x).values():
        if len(shift.shares) > 1:
            raised = {n: max(math.log(removed[n][shift.norm].delta / shift.delta), 0.0) for n in shift.shares}
            total = sum(raised.values())
            wrong = sum(abs(raised[n] / total - share) for n, share in shift.shares.items()) / 2
            apart.append(wrong * (1 - shift.delta))
    assert len(apart) > 1
    assert statistics.fmean(apart) < 0.07


class Tall(nn.Module):
    """Three convolutions with a dropout before each of the last two, activations between."""

    def __init__(self, p: float, q: float, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), activation())
        self.first, self.second = nn.Dropout(p), nn.Dropout(q)
        self.mid = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), activation())
        self.tail, self.norm = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.tail(self.second(self.mid(self.first(self.stem(x))))))
        return result


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Tanh])
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.5, 0.2), (0.2, 0.5)])
def test_as_measured_without_each_dropout(p: float, q: float, activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = Tall(p, q, activation), smooth(256, 3, 8, 8)
    shares = untrained(model, x)["norm"].shares
    now = measured(model, x)["norm"]
    raised = {n: math.log(measured(without(model, n), x)["norm"] / now) for n in ("first", "second")}
    total = sum(raised.values())
    assert shares == pytest.approx({name: gain / total for name, gain in raised.items()}, abs=0.08)


def test_clean_channels_of_a_concat_have_no_part_in_it() -> None:
    """Removing the one dropout upstream leaves no shift, and one that a norm does not hear has no share."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(16, 16), nn.Linear(16, 16)
            self.drop, self.other = nn.Dropout(0.5), nn.Dropout(0.5)
            self.both, self.alone = nn.BatchNorm1d(32), nn.BatchNorm1d(16)

        def forward(self, x: Tensor) -> Tensor:
            noisy = self.drop(self.left(x))
            joined = self.both(torch.cat([noisy, self.right(x)], 1))
            return joined.sum() + self.alone(self.other(self.right(x))).sum()

    shifts = {shift.norm: shift for shift in predicted(Net(), torch.randn(4, 16)).norms}
    assert shifts["both"].shares == {"drop": pytest.approx(1)}
    assert shifts["alone"].shares == {"other": pytest.approx(1)}
