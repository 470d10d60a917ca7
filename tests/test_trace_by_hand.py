"""Dropout that is written by hand: its ratio, whatever way the mask is made, its Δ, and no fix of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
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
    "dropout of ones": lambda h: h * F.dropout(torch.ones_like(h), P),
    "dropout of ones, first": lambda h: F.dropout(h.new_ones(h.shape), p=P) * h,
    "scaled mask": lambda h: h.mul_((torch.rand_like(h) > P) / KEEP),
}
UNIFORM: dict[str, Mask] = {
    "shifted": lambda h: h * (torch.rand_like(h) + 0.5),
    "drawn": lambda h: h * torch.empty_like(h).uniform_(0.5, 1.5),
}


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
    ],
    ids=[*DROPPING, *UNIFORM],
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
    net = Net(lambda h: h * (torch.rand_like(h) > torch.rand_like(h)))
    (site,) = trace(net, Inputs((torch.randn(32, 8),))).dropouts
    assert site.spec.p != site.spec.p


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
