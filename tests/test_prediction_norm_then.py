"""What follows a norm sees more than moments: dropped values stay dropped, rectified ones have a tail."""

from __future__ import annotations

from collections.abc import Callable

import brute_force
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pictures(count: int = 400) -> Tensor:
    return brute_force.smooth(count, 3, 12, 12)


def sequences(count: int = 1500) -> Tensor:
    return brute_force.smooth(count, 16, 12).transpose(1, 2).contiguous()


def conv() -> nn.Conv2d:
    return nn.Conv2d(16, 16, 3, padding=1)


class Steps(nn.Module):
    """A sequence of dropped features (N, L, C), something done to it, and a batch norm."""

    def __init__(self, norm: nn.Module, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.drop, self.norm, self.then = nn.Linear(16, 32), nn.Dropout(0.3), norm, then
        self.last, self.bn = nn.Linear(32, 32), nn.BatchNorm1d(32)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.last(self.then(self.norm(self.drop(torch.relu(self.first(x)))))))
        return out


NETS: dict[str, Callable[[], nn.Module]] = {
    "as Keras' examples": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(16), nn.MaxPool2d(2), nn.Dropout(0.3),
        conv(), nn.ReLU(), nn.BatchNorm2d(16), nn.MaxPool2d(2), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(144, 32), nn.ReLU(), nn.BatchNorm1d(32),
    ),
    "dropped, a batch norm, max-pooled": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm2d(16), nn.MaxPool2d(2),
        conv(), nn.BatchNorm2d(16),
    ),
    "dropped, a group norm, max-pooled": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.3), nn.GroupNorm(4, 16), nn.MaxPool2d(2),
        conv(), nn.BatchNorm2d(16),
    ),
}  # fmt: skip
READ: dict[str, Callable[[Tensor], Tensor]] = {
    "the largest": lambda h: h.amax(1),
    "mean and largest": lambda h: h.mean(1) + h.amax(1),
    "GELU": lambda h: F.gelu(h).mean(1),
}


@pytest.mark.parametrize("name", NETS)
def test_pictures(name: str) -> None:
    torch.manual_seed(0)
    net, x = NETS[name](), pictures()
    truth = brute_force.measured(net, x, passes=6)
    found = brute_force.deltas(net, x[:16])
    assert {norm: found[norm] for norm in truth} == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("norm", [nn.LayerNorm(32), nn.RMSNorm(32)], ids=["layer norm", "RMS norm"])
@pytest.mark.parametrize("name", READ)
def test_sequences(name: str, norm: nn.Module) -> None:
    torch.manual_seed(0)
    net, x = Steps(norm, READ[name]), sequences()
    truth = brute_force.measured(net, x, passes=6)["bn"]
    assert brute_force.deltas(net, x[:32])["bn"] == pytest.approx(truth, abs=0.08)


def test_weights_that_turn_a_channel_about() -> None:
    """The largest value behind such a norm is the smallest before it."""
    torch.manual_seed(0)
    net, x = NETS["dropped, a batch norm, max-pooled"](), pictures()
    with torch.no_grad():
        net[3].weight[::2] = -1  # type: ignore[index]  # a Sequential
    truth = brute_force.measured(net, x, passes=6)["6"]
    assert brute_force.deltas(net, x[:16])["6"] == pytest.approx(truth, abs=0.12)
