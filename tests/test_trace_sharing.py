"""Masks by hand whose draws channels, positions or samples share: Δ is true, or said to be unknown."""

from __future__ import annotations

from collections.abc import Callable

import brute_force
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

KEEP = 0.6
Mask = Callable[[Tensor], Tensor]


def drawn(*size: int) -> Tensor:
    return torch.empty(size).bernoulli_(KEEP) / KEEP


class Sequence(nn.Module):
    """A mask on rectified features (N, L, C), a norm behind their mean over positions, one behind a layer."""

    def __init__(self, drop: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 32)
        self.pooled, self.each, self.drop = nn.BatchNorm1d(32), nn.BatchNorm1d(32), drop

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.drop(self, torch.relu(self.a(x.transpose(1, 2))))
        return self.pooled(h.mean(1)), self.each(self.b(h).transpose(1, 2))


class Image(nn.Module):
    """The same of a map (N, C, H, W)."""

    def __init__(self, drop: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 1)
        self.pooled, self.each, self.drop = nn.BatchNorm1d(32), nn.BatchNorm2d(32), drop

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.drop(self, torch.relu(self.a(x)))
        return self.pooled(h.mean((2, 3))), self.each(self.b(h))


def masked(make: Mask) -> Callable[[nn.Module, Tensor], Tensor]:
    return lambda module, h: h * make(h) if module.training else h


SEQUENCES: dict[str, Mask] = {
    "each element": lambda h: drawn(*h.shape),
    "all positions (locked)": lambda h: drawn(len(h), 1, 32),
    "the same, expanded": lambda h: h.new_empty(len(h), 1, 32).bernoulli_(KEEP).div_(KEEP).expand_as(h),
    "the same, repeated": lambda h: drawn(len(h), 1, 32).repeat(1, h.shape[1], 1),
    "the same, times ones": lambda h: torch.ones_like(h) * drawn(len(h), 1, 32),
    "the same, of ones": lambda h: F.dropout(torch.ones(len(h), 1, 32), 1 - KEEP).expand_as(h),
    "the same, compared": lambda h: (torch.rand(len(h), 32)[:, None] < KEEP).to(h) / KEEP,
    "all channels": lambda h: drawn(len(h), h.shape[1], 1),
    "a gate for all positions": lambda h: 1 + 0.8 * torch.randn(len(h), 1, 32),
}
IMAGES: dict[str, Mask] = {
    "all positions": lambda h: drawn(len(h), 32)[:, :, None, None],
    "the same, expanded": lambda h: drawn(len(h), 32, 1, 1).expand_as(h),
    "all channels": lambda h: drawn(len(h), 1, *h.shape[2:]),
    "the sample, tiled": lambda h: drawn(len(h), 1, 1, 1).tile(1, *h.shape[1:]),
}
UNKNOWN: dict[str, Mask] = {
    "samples": lambda h: drawn(32),
    "samples, with dimensions": lambda h: drawn(1, 1, 32),
    "two masks that share differently": lambda h: drawn(len(h), 1, 32) * drawn(len(h), h.shape[1], 1),
}


def check(net: nn.Module, x: Tensor, tolerance: float) -> None:
    truth = brute_force.measured(net, x, passes=6)
    found = brute_force.deltas(net, x[:32])
    assert found == pytest.approx(truth, abs=tolerance)


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_mask_on_a_sequence_is_judged_by_what_shares_its_draws(name: str) -> None:
    torch.manual_seed(0)
    check(Sequence(masked(SEQUENCES[name])), brute_force.smooth(2000, 16, 12), 0.06)


@pytest.mark.parametrize("name", IMAGES)
def test_a_mask_on_a_map_is_judged_by_what_shares_its_draws(name: str) -> None:
    torch.manual_seed(0)
    check(Image(masked(IMAGES[name])), brute_force.smooth(1000, 16, 8, 8), 0.06)


def test_dropout_1d_on_features_at_the_end_drops_positions() -> None:
    torch.manual_seed(0)
    net = Sequence(lambda module, h: F.dropout1d(h, 1 - KEEP, module.training))
    check(net, brute_force.smooth(2000, 16, 12), 0.06)


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_mask_that_nothing_is_known_of_is_unknown(name: str) -> None:
    norms = brute_force.predicted(Sequence(masked(UNKNOWN[name])), brute_force.smooth(32, 16, 12)).norms
    assert [(norm.delta, bool(norm.unknown)) for norm in norms] == [(None, True)] * 2


def test_one_row_of_a_map_dropped_as_a_whole_is_unknown() -> None:
    net = Image(masked(lambda h: drawn(len(h), 1, h.shape[2], 1)))
    norms = brute_force.predicted(net, brute_force.smooth(32, 16, 8, 8)).norms
    assert all(norm.unknown for norm in norms)
