"""Kinds of code between a dropout and a batch norm that once went unseen: predicted Δ against what is run.

A prediction comes within .05 of what plain torch measures, or it says that it is unknown.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from brute_force import measured, predicted, untrained
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dropout_lint.prediction.ops import base

ROWS, POINTS, WIDTH = 1024, 6, 8
SOURCE = torch.tensor([0, 0, 1, 2, 3, 4, 5, 5, 1])
TARGET = torch.tensor([1, 2, 3, 3, 4, 5, 0, 2, 0])
ORDER = torch.tensor([3, 1, 5, 0, 2, 4])
ADJACENCY = torch.eye(POINTS) / 2 + torch.zeros(POINTS, POINTS).index_put((TARGET, SOURCE), torch.tensor(0.3))


class Net(nn.Module):
    """x → ReLU → points of features each → dropout → operation → norm over the features."""

    def __init__(self, operation: Callable[[Tensor], Tensor], width: int = WIDTH) -> None:
        super().__init__()
        self.drop, self.norm, self.operation = nn.Dropout(0.5), nn.BatchNorm1d(width), operation

    def forward(self, x: Tensor) -> Tensor:
        y = self.operation(self.drop(F.relu(x).view(-1, POINTS, WIDTH)))
        return self.norm(y.transpose(1, 2))  # type: ignore[no-any-return]  # a module's call is Any


def like(h: Tensor) -> Tensor:
    return torch.zeros_like(h)


def scattered(h: Tensor) -> Tensor:
    return like(h).scatter_(1, ORDER[None, :, None].expand(h.shape), h)


def scatter_added(h: Tensor) -> Tensor:
    edges = h[:, SOURCE]
    return like(h).scatter_add_(1, TARGET[None, :, None].expand(edges.shape), edges)


def put(h: Tensor) -> Tensor:
    z = like(h).transpose(0, 1).contiguous()
    return z.index_put_((ORDER,), h.transpose(0, 1)).transpose(0, 1)


def rows_written(h: Tensor) -> Tensor:
    z = h.new_zeros(h.shape)
    for i in range(POINTS - 2):
        z[:, i] = h[:, i + 1]
    return z


def whole_written(h: Tensor) -> Tensor:
    z = torch.empty_like(h)
    z[:] = h
    return z


def halves_written(h: Tensor) -> Tensor:
    z = h.new(len(h), POINTS, WIDTH)  # what it holds at first is whatever lies in memory
    z[:, :2], z[:, 2:] = h[:, -2:], h[:, :-2]
    return z


def part_written(h: Tensor) -> Tensor:
    z = torch.zeros(len(h), POINTS + 2, WIDTH)
    z[:, 1:-1] = h
    return z


def through_a_view(h: Tensor) -> Tensor:
    z = like(h)
    z.view(len(h), -1).copy_(h.reshape(len(h), -1))
    return z


def through_a_slice(h: Tensor) -> Tensor:
    z = like(h)
    part = z[:, 2:]
    part.copy_(h[:, 2:])
    return z


WRITTEN = {
    "index_add_": lambda h: h.new_zeros(h.shape).index_add_(1, TARGET, h[:, SOURCE]),
    "index_add": lambda h: torch.index_add(like(h), 1, TARGET, h[:, SOURCE]),
    "scatter_": scattered,
    "scatter_add_": scatter_added,
    "index_put_": put,
    "index_copy_": lambda h: like(h).index_copy_(1, ORDER, h),
    "masked_scatter": lambda h: like(h).masked_scatter(h > 0.5, h),
    "z[:, i] = h": rows_written,
    "z[:] = h": whole_written,
    "z[:, a:b] = h": part_written,
    "halves of x.new(sizes)": halves_written,
    "through a view": through_a_view,
    "through a slice": through_a_slice,
}
MATRICES = {
    "eye @ h": lambda h: torch.eye(POINTS) @ h,
    "a tensor of nobody's @ h": lambda h: ADJACENCY @ h,
    "matmul(tensor, h)": lambda h: torch.matmul(ADJACENCY.T, h),
    "h @ diagonal": lambda h: h @ torch.diag(torch.arange(1.0, WIDTH + 1)),
    "einsum": lambda h: torch.einsum("ij,njc->nic", ADJACENCY, h),
    "einsum, operands in a tuple": lambda h: torch.einsum("ij,njc->nic", (ADJACENCY, h)),
    "einsum, operands in a list": lambda h: torch.einsum("njc,ij->nic", [h, ADJACENCY]),
    "tensordot": lambda h: torch.tensordot(h, ADJACENCY, dims=([1], [0])).transpose(1, 2),
}
WITHOUT_A_RULE = {
    "logcumsumexp": lambda h: torch.logcumsumexp(h, 1),
    "cumsum over the batch's points": lambda h: h.cumsum(1),
    "cumsum over channels": lambda h: h.cumsum(2),
    "kthvalue": lambda h: h.kthvalue(5, dim=1, keepdim=True).values,
    "quantile": lambda h: h.quantile(0.8, dim=1, keepdim=True),
    "cross product": lambda h: torch.linalg.cross(h[..., :3], h[..., 3:6]),
    "addcmul": lambda h: torch.addcmul(h, h, h, value=0.5),
    "renorm": lambda h: torch.renorm(h, 2, 1, 1.0),
    "sort of the channels": lambda h: h.sort(2).values,
    "topk of the channels": lambda h: h.topk(4, dim=2).values,
    "lerp by a tensor": lambda h: torch.lerp(h, h.flip(1), torch.tensor(0.3)),
}


def low_modes(h: Tensor) -> Tensor:
    whole = torch.fft.rfft(h, dim=2)
    kept = torch.zeros_like(whole)
    kept[..., :3] = torch.einsum("npi,io->npo", whole[..., :3], ROTATION[:3, :3])
    return torch.fft.irfft(kept, n=WIDTH, dim=2)


def rotated(h: Tensor) -> Tensor:
    turned = torch.view_as_complex(h.unflatten(2, (-1, 2))) * ROTATION[0, : WIDTH // 2]
    return torch.cat([turned.real, turned.imag], 2)


ROTATION = torch.polar(torch.ones(WIDTH, WIDTH), torch.linspace(0, 3, WIDTH).expand(WIDTH, WIDTH))
COMPLEX = {
    "fft, absolute": lambda h: torch.fft.rfft(h, dim=1).abs(),
    "fft, real part": lambda h: torch.fft.fft2(h).real,
    "filter": lambda h: torch.fft.irfft(torch.fft.rfft(h) * torch.linspace(1, 0.1, 5), n=WIDTH),
    "low modes, written into zeros": low_modes,
    "rotated pairs": rotated,
}


def squashed(h: Tensor) -> Tensor:
    """Of a capsule network."""
    square = h.pow(2).sum(2, keepdim=True)
    return square / (1 + square) * h / (h.norm(dim=2, keepdim=True) + 1e-6)


def ranged(h: Tensor) -> Tensor:
    low = h.min(2, keepdim=True).values
    return (h - low) / (h.max(2, keepdim=True).values - low + 1e-3)


RELATED = {
    "squash": squashed,
    "between the least and the largest": ranged,
    "over the largest": lambda h: h / (h.abs().amax(2, keepdim=True) + 1e-3),
    "softmax as a gate": lambda h: torch.softmax(h, 2) * h,
    "mean as a gate": lambda h: h * h.mean(2, keepdim=True),
}
WHERE_IT_IS = {
    "a tensor of values": lambda h: h * torch.tensor([1.0, 3.0] * (WIDTH // 2), device=h.device),
    "outer product": lambda h: (
        h + torch.outer(torch.ones(POINTS, device=h.device), torch.arange(1.0 * WIDTH, device=h.device))
    ),
    "where, of one number": lambda h: torch.where(h > 0.5, h, torch.zeros(1, device=h.device)),
}
TABLE = {**WRITTEN, **MATRICES, **WITHOUT_A_RULE, **COMPLEX, **RELATED, **WHERE_IT_IS}


@pytest.mark.parametrize("name", TABLE)
def test_noise_is_followed_or_said_to_be_unknown(name: str) -> None:
    operation, x = TABLE[name], torch.randn(ROWS, POINTS * WIDTH)
    model = Net(operation, operation(torch.randn(2, POINTS, WIDTH)).shape[2])
    truth = measured(model, x)["norm"]
    for real in (True, False):
        shift = untrained(model, x[:4], real=real)["norm"]
        assert not (shift.unknown and name in {*COMPLEX, *RELATED, *WHERE_IT_IS})
        if not shift.unknown:
            assert shift.delta == pytest.approx(truth, abs=0.05), (real, shift)
            assert truth > 1 or shift.shares == {"drop": 1.0}


def test_a_sign_tells_nought_apart() -> None:
    """As binary networks have it; where the step lies in the middle of the values, quadrature is coarse."""

    def binary(h: Tensor) -> Tensor:
        return torch.where(h.sign() == 0, torch.tensor(-1.0, device=h.device), h.sign())

    model, x = Net(binary), torch.randn(ROWS, POINTS * WIDTH)
    shift = untrained(model, x[:4], real=True)["norm"]
    assert shift.delta == pytest.approx(measured(model, x)["norm"], abs=0.08)


class MaskedSpectrum(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(h)
        if self.training:
            spectrum = spectrum * (torch.rand(spectrum.shape) < 0.5) * 2
        return torch.fft.irfft(spectrum, n=WIDTH)


def test_noise_on_complex_numbers_is_unknown() -> None:
    (shift,) = predicted(Net(MaskedSpectrum()), torch.randn(4, POINTS * WIDTH)).norms
    assert shift.delta is None


def test_what_is_run_on_samples_is_said_and_is_the_same_each_time() -> None:
    model, x = Net(TABLE["kthvalue"]), torch.randn(4, POINTS * WIDTH)
    before = torch.get_rng_state()
    first, second = predicted(model, x), predicted(model, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second
    assert first.norms[0].approximate == ("kthvalue",) and first.fallbacks == {"kthvalue": 1}


class Normed(nn.Module):
    """A layer without a rule, under a name of the user's own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.drop, self.mix, self.norm = nn.Dropout(0.5), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.add_module(name, nn.CrossMapLRN2d(2))
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.mix(getattr(self, self.name)(self.drop(x))))  # type: ignore[no-any-return]


def test_a_layer_of_a_private_name_is_run_on_samples_as_any_other() -> None:
    """Private operations of torch are not, since they may end the process; a user's names tell nothing."""
    plain, private = (predicted(Normed(name), torch.randn(4, 8, 6, 6)).norms[0] for name in ("lrn", "_lrn"))
    assert plain.delta is not None and private.delta == plain.delta
    assert private.approximate == ("CrossMapLRN2d",)


def test_a_private_operation_on_indices_is_not_run_on_samples() -> None:
    """With others than it trusts it may end the process."""

    def put(h: Tensor) -> Tensor:
        rows = h.transpose(0, 1)
        return torch._index_put_impl_(torch.zeros_like(rows), (ORDER,), rows).transpose(0, 1)

    (shift,) = predicted(Net(put), torch.randn(4, POINTS * WIDTH)).norms
    assert shift.delta is None and "private" in shift.unknown[0]


def test_each_source_keeps_its_own_noise_through_samples() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.norm = nn.Dropout(0.5), nn.Dropout(0.1), nn.BatchNorm1d(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            z = torch.zeros(len(x), 2 * POINTS, WIDTH)
            z[:, ::2], z[:, 1::2] = self.one(x), self.two(x)
            return self.norm(z.transpose(1, 2))  # type: ignore[no-any-return]  # a module's call is Any

    (shift,) = predicted(Two(), torch.randn(4, POINTS, WIDTH)).norms
    assert shift.shares["one"] == pytest.approx(0.9, abs=0.1)  # noise of 1 against 1/9


def test_what_cannot_be_run_is_unknown_and_so_is_all_behind_it() -> None:
    def unrunnable(h: Tensor) -> Tensor:
        return torch.cat([h.kthvalue(2, dim=1, keepdim=True).values] * 2, 1)

    class Behind(Net):
        def __init__(self) -> None:
            super().__init__(unrunnable)
            self.later = nn.BatchNorm1d(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return self.later(super().forward(x) + 1)  # type: ignore[no-any-return]  # a module's call is Any

    big = predicted(Behind(), torch.empty(1 << 16, POINTS * WIDTH, device="meta"))
    assert all(shift.delta is None for shift in big.norms)
    assert all(
        "kthvalue" in shift.unknown[0] and __file__.rpartition("/")[2] in shift.unknown[0]
        for shift in big.norms
    )


def test_a_fault_of_a_rule_shows_here_and_is_no_figure_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setitem(base._FUNCTIONS, "tanh", fails)
    model, x = Net(torch.tanh), torch.randn(ROWS, POINTS * WIDTH)
    with pytest.raises(RuntimeError, match="a fault"):
        predicted(model, x[:4])
    monkeypatch.delenv("DROPOUT_LINT_RAISE")
    shift = untrained(model, x[:4])["norm"]
    assert shift.approximate == ("tanh",)
    assert shift.delta == pytest.approx(measured(model, x)["norm"], abs=0.05)


DROPS: dict[str, Callable[[Tensor], Tensor]] = {
    "one mask for each step": lambda h: F.dropout(h, 0.4),
    "one mask for all steps": lambda h: h * h.new_empty(len(h), 1, h.shape[2]).bernoulli_(0.6) / 0.6,
}


@pytest.mark.parametrize("name", DROPS)
@pytest.mark.parametrize("sort", [True, False])
def test_a_sequence_that_was_packed_is_a_sequence(name: str, sort: bool) -> None:
    lengths = torch.cat([torch.tensor([9]), torch.randint(1, 10, (ROWS // 4 - 1,))])
    lengths = lengths if sort else lengths.sort(descending=True).values

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.norm = nn.LSTM(WIDTH, 16, batch_first=True), nn.BatchNorm1d(16)

        def forward(self, x: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths[: len(x)], batch_first=True, enforce_sorted=not sort)
            h, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            return self.norm((DROPS[name](h) if self.training else h).transpose(1, 2))  # type: ignore[no-any-return]

    model, x = Recurrent(), torch.randn(ROWS // 4, 9, WIDTH)
    shift = untrained(model, x)["norm"]
    assert not shift.unknown
    assert shift.delta == pytest.approx(measured(model, x)["norm"], abs=0.05)


KEEP = 0.6
MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "scaled": lambda x: x * (torch.rand_like(x) < KEEP) / KEEP,
    "scaled before": lambda x: x / KEEP * (torch.rand_like(x) < KEEP),
    "the mask is scaled": lambda x: x * ((torch.rand_like(x) < KEEP) / KEEP),
    "not scaled": lambda x: x * (torch.rand_like(x) < KEEP),
    "scaled by the drop ratio": lambda x: x * ((torch.rand_like(x) < KEEP) / (1 - KEEP)),
}


@pytest.mark.parametrize("name", MASKS)
def test_the_scale_of_a_mask_by_hand_is_its_own(name: str) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(x)
            return self.norm(MASKS[name](x) if self.training else x)  # type: ignore[no-any-return]

    model, x = Masked(), torch.randn(4096, WIDTH)
    shift = untrained(model, x[:4])["norm"]
    assert shift.delta == pytest.approx(measured(model, x)["norm"], abs=0.05)
