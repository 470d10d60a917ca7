"""Sums of one tensor's copies, masks that share their draws, and what runs step by step."""

from __future__ import annotations

from collections.abc import Callable

import brute_force
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 32


class Net(nn.Module):
    """Something between two norms of a plain network."""

    def __init__(self, between: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.bn0, self.last = nn.Linear(16, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.one, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.drop, self.bn, self.between = nn.Dropout(0.5), nn.BatchNorm1d(WIDTH), between

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.bn0(self.first(x)))
        out: Tensor = self.bn(self.last(self.between(self, h)))
        return out


def checked(net: nn.Module, x: Tensor, name: str = "bn", tolerance: float = 0.06) -> float:
    """Δ by lint at a norm, after a comparison with brute force."""
    truth = brute_force.measured(net, x, passes=6)[name]
    found = brute_force.deltas(net, x[:32])[name]
    assert found == pytest.approx(truth, abs=tolerance)
    return found


def _summed(net: Net, h: Tensor) -> Tensor:
    out = torch.zeros(())
    for _ in range(4):
        out = out + net.one(net.drop(h))
    return out / 4


def _twice(net: Net, h: Tensor) -> Tensor:
    out: Tensor = net.one(net.drop(h)) + net.one(net.drop(h))
    return out


COPIES: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "a loop": _summed,
    "sum()": lambda net, h: sum(net.one(net.drop(h)) for _ in range(4)) / 4,  # type: ignore[return-value]  # a tensor
    "a stack": lambda net, h: torch.stack([net.one(net.drop(h)) for _ in range(4)]).mean(0),
    "behind two layers": lambda net, h: (
        sum(net.other(torch.relu(net.one(net.drop(h)))) for _ in range(3)) / 3
    ),  # type: ignore[return-value]  # a tensor
    "beside a clean one": lambda net, h: net.one(net.drop(h)) + net.one(h),
    "weighted": lambda net, h: 0.8 * net.one(net.drop(h)) + net.one(h) * 0.2,
    "over older noise": lambda net, h: _twice(net, F.dropout(h, 0.3, net.training)),
    "F.linear": lambda net, h: F.linear(net.drop(h), net.one.weight) + F.linear(net.drop(h), net.one.weight),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_one_tensor(name: str) -> None:
    torch.manual_seed(0)
    checked(Net(COPIES[name]), torch.randn(4000, 16))


def test_two_copies_without_what_they_have_in_common() -> None:
    """Nothing is left in test mode."""

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Sequential(nn.Linear(16, WIDTH), nn.ReLU(), nn.Dropout(0.4), nn.Linear(WIDTH, WIDTH))
            self.bn = nn.BatchNorm1d(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(self.f(x) - self.f(x))
            return out

    torch.manual_seed(0)
    assert brute_force.deltas(Apart(), torch.randn(64, 16))["bn"] == pytest.approx(0.0, abs=1e-6)


def test_layers_of_their_own_are_no_copies() -> None:
    torch.manual_seed(0)
    checked(Net(lambda net, h: net.one(net.drop(h)) + net.other(net.drop(h))), torch.randn(4000, 16))


def _mask(net: Net, like: Tensor, keep: float = 0.5) -> Tensor:
    return torch.bernoulli(torch.full_like(like, keep)) if net.training else torch.full((), keep)


def _mixed(net: Net, a: Tensor, b: Tensor, m: Tensor) -> Tensor:
    return m * a + (1 - m) * b


def _both(net: Net, h: Tensor, m: Tensor) -> Tensor:
    out: Tensor = net.one(h).relu() * m + net.other(h).relu() * m
    return out


SHARED: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "of two layers": lambda net, h: _mixed(net, net.one(h).relu(), net.other(h).relu(), _mask(net, h)),
    "of samples": lambda net, h: _mixed(net, net.one(h).relu(), net.other(h).relu(), _mask(net, h[:, :1])),
    "of what is nearly the same": lambda net, h: _mixed(net, h, h + 0.1 * torch.tanh(h), _mask(net, h, 0.7)),
    "of a function": lambda net, h: _mixed(net, h, torch.tanh(h), _mask(net, h)),
    "one mask on both": lambda net, h: _both(net, h, _mask(net, h) / 0.5),
    "a number between 0 and 1": lambda net, h: _mixed(
        net,
        net.one(h).relu(),
        net.other(h).relu(),
        torch.rand(len(h), 1) if net.training else torch.full((), 0.5),
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_masks_of_the_same_draws(name: str) -> None:
    torch.manual_seed(0)
    checked(Net(SHARED[name]), torch.randn(4000, 16), tolerance=0.08)


# --- step by step -----------------------------------------------------------------------------------------


class Steps(nn.Module):
    """A recurrent layer, and something that reads its sequence."""

    def __init__(
        self, layer: Callable[..., nn.Module], read: Callable[[Tensor], Tensor], **options: int
    ) -> None:
        super().__init__()
        self.drop, self.layer, self.read = (
            nn.Dropout(0.4),
            layer(16, WIDTH, batch_first=True, **options),
            read,
        )
        self.bn = nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.read(self.layer(self.drop(x))[0]))
        return out


def sequence() -> Tensor:
    return brute_force.smooth(1500, 16, 12).transpose(1, 2).contiguous()


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_mean_of_a_sequence(layer: Callable[..., nn.Module], layers: int) -> None:
    """What a hidden state remembers is alike from step to step: noise as well as data."""
    torch.manual_seed(0)
    checked(Steps(layer, lambda h: h.mean(1), num_layers=layers), sequence())


class Cells(nn.Module):
    """Dropout between the steps of a cell."""

    def __init__(self, cell: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.cell, self.drop, self.bn = cell(16, WIDTH), nn.Dropout(0.3), nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(len(x), WIDTH)
        for step in range(x.shape[1]):
            if isinstance(self.cell, nn.LSTMCell):
                h, c = self.cell(x[:, step], (self.drop(h), c))
            else:
                h = self.cell(x[:, step], self.drop(h))
        out: Tensor = self.bn(h)
        return out


@pytest.mark.parametrize("cell", [nn.GRUCell, nn.LSTMCell, nn.RNNCell])
def test_noise_in_the_hidden_state_of_a_cell(cell: Callable[[int, int], nn.Module]) -> None:
    """The first dropout has zeros, and makes no noise of them."""
    torch.manual_seed(0)
    checked(Cells(cell), sequence()[:, :6])


class Locked(Cells):
    """One mask at all steps."""

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(len(x), WIDTH)
        mask = torch.bernoulli(torch.full_like(h, 0.7)) / 0.7 if self.training else torch.ones(())
        for step in range(x.shape[1]):
            if isinstance(self.cell, nn.LSTMCell):
                h, c = self.cell(x[:, step], (h * mask, c))
            else:
                h = self.cell(x[:, step], h * mask)
        out: Tensor = self.bn(h)
        return out


def test_one_mask_at_all_steps() -> None:
    """An LSTM sees it through weights; a GRU hands on what it has dropped, to be dropped by it again."""
    torch.manual_seed(0)
    checked(Locked(nn.LSTMCell), sequence()[:, :6])
    (shift,) = brute_force.predicted(Locked(nn.GRUCell), sequence()[:32, :6]).norms
    assert shift.delta is None
    assert "its mask has dropped this before" in shift.unknown[0]


# --- norms of each sample ---------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True], ids=["post-norm", "pre-norm"])
def test_the_mean_over_an_encoder_s_tokens(first: bool) -> None:
    """A layer norm makes the data as loud as it was; the mean takes the noise away, and Δ is above 1."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(WIDTH, 4, 64, 0.3, batch_first=True, norm_first=first)
            self.embed, self.layers = (
                nn.Linear(16, WIDTH),
                nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH)),
            )
            self.bn = nn.BatchNorm1d(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(self.layers(self.embed(x)).mean(1))
            return out

    torch.manual_seed(0)
    assert checked(Encoder(), sequence(), tolerance=0.1) > 1.1
