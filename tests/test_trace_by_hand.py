"""Dropout that is written by hand: its ratio, whatever way the mask is made, its Δ, and no fix of it."""

from __future__ import annotations

from collections.abc import Callable

import brute_force
import pytest
import torch
from brute_force import Join, Joined
from torch import Tensor, nn
from torch.nn import functional as F

import dropout_lint as dl
from dropout_lint.inputs.example import Inputs
from dropout_lint.layers import Noise
from dropout_lint.prediction import predict
from dropout_lint.trace import trace

P = 0.2
KEEP = 1 - P

Mask = Callable[[Tensor], Tensor]


def drawn(h: Tensor) -> Tensor:
    return torch.rand_like(h) < P


DROPPING: dict[str, Mask] = {
    "inverted": lambda h: h * ~drawn(h) / KEEP,
    "logical not": lambda h: h * drawn(h).logical_not() / KEEP,
    "one less": lambda h: h * (1 - drawn(h).float()) / KEEP,
    "1.0 less": lambda h: h * (1.0 - drawn(h).float()) / KEEP,
    "filled": lambda h: h.masked_fill(drawn(h), 0.0) / KEEP,
    "zeros where": lambda h: torch.where(drawn(h), torch.zeros_like(h), h / KEEP),
    "values where": lambda h: torch.where(torch.rand_like(h) > P, h / KEEP, 0.0),
    "mask first": lambda h: (torch.rand_like(h) > P).float().mul(h) / KEEP,
    "torch.mul": lambda h: torch.mul(torch.rand_like(h) > P, h) / KEEP,
    "floor": lambda h: h / KEEP * torch.floor(KEEP + torch.rand_like(h)),
    "bernoulli": lambda h: h * torch.bernoulli(torch.full_like(h, KEEP)) / KEEP,
    "bernoulli of a product": lambda h: h * h.new_ones(h.shape).mul(KEEP).bernoulli() / KEEP,
    "in place": lambda h: h * h.new_empty(h.shape).bernoulli_(KEEP).div_(KEEP),
    "new of a size": lambda h: h * h.new(h.size()).bernoulli_(KEEP).div_(KEEP),
    "dropout of ones": lambda h: h * F.dropout(torch.ones_like(h), P),
    "dropout of ones, first": lambda h: F.dropout(h.new_ones(h.shape), p=P) * h,
    "scaled mask": lambda h: h.mul_((torch.rand_like(h) > P) / KEEP),
}
UNIFORM: dict[str, Mask] = {
    "shifted": lambda h: h * (torch.rand_like(h) + 0.5),
    "drawn": lambda h: h * torch.empty_like(h).uniform_(0.5, 1.5),
}
NORMAL: dict[str, Mask] = {
    "speckle": lambda h: h * (1 + 0.5 * torch.randn_like(h)),
    "drawn normal": lambda h: h * torch.empty_like(h).normal_(1.0, 0.5),
    "by name": lambda h: h * (1 + torch.empty_like(h).normal_(std=0.5)),
}
SPECKLE = round((3 * 0.25) ** 0.5, 3)
"""β of uniform noise with the variance of theirs."""


class Net(nn.Module):
    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.mask = mask
        self.first = nn.Linear(8, 16)
        self.bn = nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.training:
            h = self.mask(h)
        out: Tensor = self.bn(h)
        return out


def measured(net: Net) -> float:
    x = torch.randn(40_000, 8)
    with torch.no_grad():
        values = net.first(x)
        return float(values.var(0).sum() / net.mask(values.clone()).var(0).sum())


@pytest.mark.parametrize(
    ("mask", "noise", "ratio"),
    [
        *((mask, Noise.ELEMENT, P) for mask in DROPPING.values()),
        *((mask, Noise.UNIFORM, 0.5) for mask in UNIFORM.values()),
        *((mask, Noise.UNIFORM, SPECKLE) for mask in NORMAL.values()),
    ],
    ids=[*DROPPING, *UNIFORM, *NORMAL],
)
def test_ratio_and_shift_of_a_mask_however_it_is_made(mask: Mask, noise: Noise, ratio: float) -> None:
    net = Net(mask)
    traced = trace(net, Inputs((torch.randn(32, 8),)))
    (site,) = traced.dropouts
    assert (site.spec.kind, site.spec.noise, site.spec.p) == ("random mask", noise, ratio)
    (shift,) = predict(traced).norms
    assert shift.delta == pytest.approx(measured(net), abs=0.03)


@pytest.mark.parametrize("name", ["filled", "zeros where", "torch.mul"])
def test_a_mask_by_hand_is_found_and_not_rewritten(name: str) -> None:
    net, x = Net(DROPPING[name]), torch.randn(32, 8)
    report = dl.lint(net, x)
    assert [finding.code for finding in report.findings] == ["DL101"]
    result = dl.fix(net, x)
    assert not result.applied
    (skipped,) = result.skipped
    assert "written by hand" in skipped.reason


def test_a_draw_that_no_quantile_stands_for_has_no_ratio() -> None:
    net = Net(lambda h: h * (torch.rand_like(h) > torch.rand_like(h).cumsum(1)))
    (site,) = trace(net, Inputs((torch.randn(32, 8),))).dropouts
    assert site.spec.p != site.spec.p


def test_a_mask_of_two_draws() -> None:
    net = Net(lambda h: h * (torch.rand_like(h) > torch.rand_like(h)) * 2)
    (site,) = trace(net, Inputs((torch.randn(32, 8),))).dropouts
    assert (site.spec.p, len(site.sources)) == (pytest.approx(0.5, abs=0.002), 2)


def ones(x: Tensor) -> list[int]:
    return [len(x), *[1] * (x.dim() - 1)]


def shake_shake(f: Tensor, g: Tensor) -> Tensor:
    gate = torch.rand(ones(f))
    return gate * f + (1 - gate) * g


def shake_drop(f: Tensor, g: Tensor) -> Tensor:
    b, alpha = torch.bernoulli(torch.full((1,), 0.7)), torch.empty(ones(f)).uniform_(-1, 1)
    return (b + alpha - b * alpha) * f + g


class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, f: Tensor, g: Tensor) -> Tensor:
        return shake_shake(f, g)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad


GATES: dict[str, tuple[Join, Join]] = {
    "shake-shake": (shake_shake, lambda f, g: 0.5 * f + 0.5 * g),
    "shake-shake, summed in test mode": (shake_shake, lambda f, g: (f + g) / 2),
    "shake-shake in a function of its own": (Function.apply, lambda f, g: 0.5 * (f + g)),
    "shake-drop": (shake_drop, lambda f, g: 0.7 * f + g),
    "a gate of mean 1": (lambda f, g: f * (0.5 + torch.rand(ones(f))) + g, lambda f, g: f + g),
}


@pytest.mark.parametrize("name", GATES)
def test_a_random_gate_is_judged_by_its_mean_and_variance(name: str) -> None:
    net = Joined(*GATES[name], width=16)
    (shift,) = predict(trace(net, Inputs((torch.randn(32, 8),)))).norms
    assert not shift.unknown
    truth = brute_force.measured(net, torch.randn(2000, 8), 400 if name == "shake-drop" else 20)["bn"]
    assert shift.delta_now == pytest.approx(truth, abs=0.04)


@pytest.mark.parametrize(
    "test", [lambda f, g: f + g, lambda f, g: torch.lerp(f, g, 0.5)], ids=["another mean", "unseen"]
)
def test_a_gate_whose_test_mode_is_not_seen_is_unknown(test: Join) -> None:
    (shift,) = predict(trace(Joined(shake_shake, test, width=16), Inputs((torch.randn(32, 8),)))).norms
    assert shift.delta is None and "rand" in shift.unknown[0]


def kept(f: Tensor) -> Tensor:
    return (torch.rand_like(f) < KEEP).float()


def zoneout(f: Tensor, g: Tensor) -> Tensor:
    mask = kept(f)
    return mask * f + (1 - mask) * g


UNSCALED: dict[str, tuple[Join, Join, bool]] = {
    "scaled in test mode": (lambda f, g: f * kept(f) + g, lambda f, g: f * KEEP + g, True),
    "zoneout": (zoneout, lambda f, g: KEEP * f + (1 - KEEP) * g, True),
    "another scale in test mode": (lambda f, g: f * kept(f) + g, lambda f, g: f / 2 + g, False),
    "never scaled": (lambda f, g: f * kept(f) + g, lambda f, g: f + g, False),
    "its scale in either mode": (lambda f, g: f * kept(f) + KEEP * g, lambda f, g: f + KEEP * g, False),
}


@pytest.mark.parametrize("name", UNSCALED)
def test_an_unscaled_mask_is_judged_by_the_scale_of_test_mode(name: str) -> None:
    train, test, right = UNSCALED[name]
    net = Joined(train, test, width=256)
    (shift,) = predict(trace(net, Inputs((torch.randn(32, 8),)))).norms
    truth = brute_force.measured(net, torch.randn(2000, 8), 20)["bn"]
    assert shift.delta_now == pytest.approx(truth, abs=0.03)
    codes = {finding.code for finding in dl.lint(net, torch.randn(32, 8)).findings}
    assert ("DL407" not in codes) == right


def test_which_of_two_numbers_of_test_mode_scales_a_mask_is_unknown() -> None:
    net = Joined(lambda f, g: f * kept(f) + g, lambda f, g: f / 2 + g / 3, width=16)
    (shift,) = predict(trace(net, Inputs((torch.randn(32, 8),)))).norms
    assert shift.delta is None


def test_a_sample_around_a_mean_is_no_dropout() -> None:
    class Variational(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            out: Tensor = self.bn(h + torch.randn_like(h) * h.exp())
            return out

    assert not trace(Variational(lambda h: h), Inputs((torch.randn(32, 8),))).dropouts


@pytest.mark.parametrize(("training", "codes"), [(None, ["DL101"]), (True, ["DL401"])])
def test_dropout_of_ones_that_follows_the_mode_and_one_that_does_not(
    training: bool | None, codes: list[str]
) -> None:
    class Locked(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            mask = F.dropout(torch.ones_like(h), P, self.training if training is None else training)
            out: Tensor = self.bn(h * mask)
            return out

    report = dl.lint(Locked(lambda h: h), torch.randn(32, 8))
    assert sorted({finding.code for finding in report.findings}) == codes


def test_dropout_of_a_weight_is_no_mask() -> None:
    class DropConnect(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = F.linear(x, F.dropout(self.first.weight, P, self.training), self.first.bias)
            out: Tensor = self.bn(h * h.sigmoid())
            return out

    sites = trace(DropConnect(lambda h: h), Inputs((torch.randn(32, 8),))).dropouts
    assert [site.spec.kind for site in sites] == ["F.dropout"]
