"""Sums over positions of one tensor: both sides hold the same data, and their own noise."""

from __future__ import annotations

from collections.abc import Callable

import brute_force
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Filter = Callable[[Tensor], Tensor]


class Filtered(nn.Module):
    """A filter on dropped features of a sequence (N, L, C), or on a layer behind them."""

    def __init__(self, drop: nn.Module, make: Filter, layer: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 32), nn.Conv1d(32, 32, 1) if layer else nn.Identity()
        self.drop, self.make, self.bn = drop, make, nn.BatchNorm1d(32)

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.drop(torch.relu(self.a(x)).transpose(1, 2)))
        result: Tensor = self.bn(self.make(h))
        return result


def sequence() -> Tensor:
    return brute_force.smooth(1500, 12, 12).transpose(1, 2).contiguous()


FILTERS: dict[str, Filter] = {
    "differences of slices": lambda h: h[..., 1:] - h[..., :-1],
    "differences of every second": lambda h: h[:, :, ::2] - h[:, :, 1::2],
    "torch.diff": torch.diff,
    "a sum of neighbours": lambda h: h[..., 1:] + h[..., :-1],
    "less what was rolled": lambda h: h - h.roll(1, 2),
    "less what was padded": lambda h: h - F.pad(h, (1, 0))[..., :-1],
    "halves": lambda h: 0.5 * h + h.roll(-1, -1) / 2,
    "narrowed": lambda h: h.narrow(2, 2, 10) - h.narrow(2, 0, 10),
    "second differences": lambda h: h[..., 2:] - 2 * h[..., 1:-1] + h[..., :-2],
    "a mean less its centre": lambda h: F.avg_pool1d(h, 3, 1, 1, False, False) - h,
    "half as a tensor": lambda h: torch.full((), 0.5) * h[..., 1:] - h[..., :-1] / torch.tensor(2.0),
    "less its mean": lambda h: h - h.mean(2, keepdim=True),
}


@pytest.mark.parametrize("layer", [False, True], ids=["dropped", "behind a layer"])
@pytest.mark.parametrize("drop", [nn.Dropout(0.4), nn.Dropout1d(0.4)], ids=["each element", "each channel"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_over_positions(name: str, drop: nn.Module, layer: bool) -> None:
    torch.manual_seed(0)
    net, x = Filtered(drop, FILTERS[name], layer), sequence()
    truth = brute_force.measured(net, x, passes=3)["bn"]
    assert brute_force.deltas(net, x[:32])["bn"] == pytest.approx(truth, abs=0.06)


def test_a_number_over_a_tensor_is_no_filter_of_it() -> None:
    def inverse(h: Tensor) -> Tensor:
        over = 2 / (1 + h.relu())
        return over[..., 1:] - over[..., :-1]

    torch.manual_seed(0)
    net, x = Filtered(nn.Dropout(0.4), inverse, layer=False), sequence()
    truth = brute_force.measured(net, x, passes=3)["bn"]
    assert brute_force.deltas(net, x[:32])["bn"] == pytest.approx(truth, abs=0.06)


@pytest.mark.parametrize("make", [lambda h: h.logsumexp(2), lambda h: (h.exp().sum(2) + 1).log()])
def test_the_logarithm_of_a_sum(make: Filter) -> None:
    torch.manual_seed(0)
    net, x = Filtered(nn.Dropout(0.4), make, layer=True), sequence()
    truth = brute_force.measured(net, x, passes=3)["bn"]
    assert brute_force.deltas(net, x[:32])["bn"] == pytest.approx(truth, abs=0.06)


def test_neighbours_among_samples_or_channels_are_other_values() -> None:
    torch.manual_seed(0)
    x = sequence()
    for make in (lambda h: h - h.roll(1, 0), lambda h: h - h.roll(1, 1)):
        net = Filtered(nn.Dropout(0.4), make, layer=True)
        truth = brute_force.measured(net, x, passes=3)["bn"]
        assert brute_force.deltas(net, x[:32])["bn"] == pytest.approx(truth, abs=0.06)
