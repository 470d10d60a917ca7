"""The less-used families of operations: predicted Δ against networks that are run (`brute_force`).

Each network is stem → dropout → (weight layer) → operation → norm, and → weight layer → norm. Tolerances are
0.06 with the weights' values and 0.08 from shapes, at every norm.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from brute_force import (
    NOISES,
    FlatProbe,
    Function,
    Probe,
    SequenceProbe,
    measured,
    now,
    predicted,
    smooth,
)
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.prediction import Prediction

WIDTH = 24
TOLERANCE = {"weights": 0.06, "initialisation": 0.08}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def check(
    model: nn.Module,
    x: Tensor,
    passes: int = 4,
    fallbacks: Mapping[str, int] | None = None,
    tolerances: Mapping[str, float] = TOLERANCE,
) -> None:
    truth = measured(model, x, passes)
    errors = {}
    for basis, tolerance in tolerances.items():
        found = predicted(model, x[:4], basis=basis)
        assert found.fallbacks == (fallbacks or {})
        for shift in found.norms:
            if shift.norm in truth and abs(now(shift) - truth[shift.norm]) > tolerance:
                errors[basis, shift.norm] = (round(now(shift), 3), round(truth[shift.norm], 3))
    assert not errors, f"(predicted, measured): {errors}"


def f(function: Callable[..., Tensor]) -> Callable[[], nn.Module]:
    return lambda: Function(function)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(WIDTH, 6), nn.Linear(6, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class UNet(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU()
        )
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, F.interpolate(self.inner(x), scale_factor=2, mode=self.mode)], 1)


class Coordinates(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(-1, 1, x.shape[3]).expand(x.shape[0], 8, x.shape[2], x.shape[3])
        return torch.cat([x, ramp], 1)


def _interpolated(x: Tensor, **options: object) -> Tensor:
    return F.interpolate(x, **options)  # type: ignore[arg-type]


def resized(**options: object) -> Callable[[], nn.Module]:
    return f(functools.partial(_interpolated, **options))


def _shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


def _maxout(x: Tensor) -> Tensor:
    return torch.maximum(x[:, :12], x[:, 12:])


Case = tuple[Callable[[], nn.Module], int]
"""The operation, and its number of channels."""

MAPS: dict[str, Case] = {
    "max pooling": (lambda: nn.MaxPool2d(2), WIDTH),
    "max pooling, overlapping": (f(lambda x: F.max_pool2d(x, (1, 3), stride=(1, 2), padding=(0, 1))), WIDTH),
    "max pooling of ReLU": (lambda: nn.Sequential(nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(2)), WIDTH),
    "max pooling of leaky ReLU": (
        lambda: nn.Sequential(nn.BatchNorm2d(WIDTH), nn.LeakyReLU(0.1), nn.MaxPool2d(2)),
        WIDTH,
    ),
    "fractional max pooling": (lambda: nn.FractionalMaxPool2d(2, output_ratio=0.6), WIDTH),
    "average pooling": (lambda: nn.AvgPool2d(2), WIDTH),
    "average pooling, overlapping": (lambda: nn.AvgPool2d(3, 2, 1), WIDTH),
    "adaptive average pooling": (lambda: nn.AdaptiveAvgPool2d(5), WIDTH),
    "mean of rows": (f(lambda x: x.mean(3, keepdim=True)), WIDTH),
    "upsampling, nearest": (lambda: nn.Upsample(scale_factor=2), WIDTH),
    "upsampling, bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), WIDTH),
    "upsampling, bicubic": (resized(scale_factor=2, mode="bicubic"), WIDTH),
    "upsampling, aligned corners": (resized(scale_factor=2, mode="bilinear", align_corners=True), WIDTH),
    "downsampling, nearest": (resized(scale_factor=0.5), WIDTH),
    "downsampling, bilinear": (resized(scale_factor=0.5, mode="bilinear"), WIDTH),
    "downsampling, antialias": (resized(scale_factor=0.5, mode="bilinear", antialias=True), WIDTH),
    "downsampling, area": (resized(scale_factor=0.5, mode="area"), WIDTH),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), 4 * WIDTH),
    "zero padding": (lambda: nn.ZeroPad2d(2), WIDTH),
    "padding with a value": (f(lambda x: F.pad(x, (2, 2, 2, 2), value=2.0)), WIDTH),
    "padding of channels": (f(lambda x: F.pad(x, (0, 0, 0, 0, 4, 4))), WIDTH + 8),
    "reflection padding": (lambda: nn.ReflectionPad2d(2), WIDTH),
    "replication padding": (lambda: nn.ReplicationPad2d(2), WIDTH),
    "roll and add": (f(lambda x: x + x.roll(6, 3)), WIDTH),
    "channel shuffle": (f(_shuffled), WIDTH),
    "permute there and back": (f(lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)), WIDTH),
    "one half": (f(lambda x: x.chunk(2, 1)[1]), 12),
    "product of halves": (f(lambda x: x[:, :12] * x[:, 12:]), 12),
    "split and concat": (f(lambda x: torch.cat([x[:, :12], F.relu(x[:, 12:])], 1)), WIDTH),
    "every other position": (f(lambda x: x[:, :, ::2, ::2]), WIDTH),
    "every other channel": (f(lambda x: x[:, ::2]), 12),
    "channels by number": (f(lambda x: x[:, [0, 3, 5, 7, 11, 13, 17, 20]]), 8),
    "stack": (f(lambda x: torch.stack([x, F.relu(x)], 1).flatten(1, 2)), 2 * WIDTH),
    "GLU": (lambda: nn.GLU(1), 12),
    "gate by hand": (f(lambda x: x[:, :12] * torch.sigmoid(x[:, 12:])), 12),
    "where, of itself": (f(lambda x: torch.where(x > 0.5, x, 0.1 * x)), WIDTH),
    "where, a fixed mask": (f(lambda x: torch.where(torch.arange(x.shape[3]) > 5, x, 1.0)), WIDTH),
    "masked_fill": (f(lambda x: x.masked_fill(torch.arange(x.shape[3]) > 5, 2.0)), WIDTH),
    "product with a mask": (f(lambda x: x * (torch.arange(x.shape[3]) > 5)), WIDTH),
    "tril": (f(lambda x: x.tril()), WIDTH),
    "cumsum": (f(lambda x: x.cumsum(3)), WIDTH),
    "lerp": (f(lambda x: torch.lerp(x[:, :12], x[:, 12:], 0.3)), 12),
    "concat with coordinates": (Coordinates, WIDTH + 8),
    "squeeze and excite": (SqueezeExcite, WIDTH),
    "U-Net, nearest": (lambda: UNet("nearest"), 2 * WIDTH),
    "U-Net, bilinear": (lambda: UNet("bilinear"), 2 * WIDTH),
    "transposed convolution": (lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1), WIDTH),
}
SIZE = 12


def on_maps(name: str, kind: str, p: float, *, between: bool, count: int = 128) -> tuple[nn.Module, Tensor]:
    op, out = MAPS[name]
    torch.manual_seed(0)
    layer = nn.Conv2d(WIDTH, WIDTH, 3, padding=1) if between else None
    return Probe(op(), NOISES[kind](p), layer, WIDTH, out, 2), smooth(count, WIDTH, SIZE, SIZE)


@pytest.mark.parametrize("name", MAPS)
def test_behind_a_weight_layer(name: str) -> None:
    check(*on_maps(name, "Dropout", 0.5, between=True))


@pytest.mark.parametrize("name", [name for name in MAPS if name != "roll and add"])
def test_channel_masks(name: str) -> None:
    p = {"max pooling": 0.5, "average pooling": 0.5}.get(name, 0.3)
    check(
        *on_maps(
            name, "Dropout2d", p, between=name not in ("max pooling of ReLU", "max pooling of leaky ReLU")
        )
    )


NEXT_TO = ("max pooling", "max pooling of ReLU", "average pooling", "downsampling, bilinear", "roll and add",
           "product of halves", "gate by hand", "where, a fixed mask", "cumsum",
           "U-Net, bilinear")  # fmt: skip


@pytest.mark.parametrize("name", NEXT_TO)
@pytest.mark.parametrize("kind", ["Dropout", "Uout"])
def test_right_behind_the_mask(name: str, kind: str) -> None:
    check(*on_maps(name, kind, 0.3, between=False))


@pytest.mark.parametrize(
    "name", ["max pooling", "average pooling", "upsampling, bilinear", "masked_fill", "squeeze and excite"]
)
@pytest.mark.parametrize("p", [0.1, 0.3])
def test_whole_samples(name: str, p: float) -> None:
    check(*on_maps(name, "DropPath", p, between=False), passes=8)


FLAT: dict[str, tuple[Callable[[], nn.Module], int, str, bool]] = {
    "global average": (f(lambda x: x.mean((2, 3))), WIDTH, "Dropout", True),
    "global average, channel mask": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), WIDTH,
                                     "Dropout2d", False),
    "sum": (f(lambda x: x.sum((2, 3))), WIDTH, "Dropout2d", False),
    "global maximum": (f(lambda x: x.amax((2, 3))), WIDTH, "Dropout", False),
    "global maximum, channel mask": (lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), WIDTH,
                                     "Dropout2d", False),
    "maximum of a flat map": (f(lambda x: x.flatten(2).max(dim=-1)[0]), WIDTH, "Dropout", False),
    "variance": (f(lambda x: x.var((2, 3))), WIDTH, "Dropout", False),
    "standard deviation": (f(lambda x: x.std((2, 3))), WIDTH, "Dropout", False),
    "length": (f(lambda x: x.norm(dim=(2, 3))), WIDTH, "Dropout", False),
    "flatten": (nn.Flatten, WIDTH * SIZE**2, "Dropout2d", True),
}  # fmt: skip
SAMPLED = {"variance": {"var": 1}, "standard deviation": {"std": 1}}


@pytest.mark.parametrize("name", FLAT)
def test_over_all_positions(name: str) -> None:
    op, out, kind, between = FLAT[name]
    torch.manual_seed(0)
    layer = nn.Conv2d(WIDTH, WIDTH, 3, padding=1) if between else None
    probe = FlatProbe(op(), NOISES[kind](0.3), layer, WIDTH, out, 2)
    check(probe, smooth(256, WIDTH, SIZE, SIZE), passes=6, fallbacks=SAMPLED.get(name))


@pytest.mark.parametrize("name", SAMPLED)
def test_a_spread_over_too_many_values_to_be_sampled_is_approximate(name: str) -> None:
    torch.manual_seed(0)
    probe = FlatProbe(FLAT[name][0](), nn.Dropout(0.3), None, WIDTH, WIDTH, 2)
    few, many = (
        predicted(probe, torch.zeros(1, WIDTH, SIZE, SIZE).expand(rows, -1, -1, -1)) for rows in (4, 2048)
    )
    assert few.fallbacks == many.fallbacks == SAMPLED[name]
    assert 0.2 < now(many.norms[-1]) < 0.7
    assert now(many.norms[-1]) == pytest.approx(now(few.norms[-1]), abs=0.15)


class Attention(nn.Module):
    def __init__(self, p: float = 0.0, fused: bool = False) -> None:
        super().__init__()
        self.qkv, self.out, self.drop = nn.Linear(32, 96), nn.Linear(32, 32), nn.Dropout(p)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.drop.p if self.training else 0.0)
        else:
            y = self.drop((q @ k.transpose(-2, -1) / math.sqrt(c // 4)).softmax(-1)) @ v
        return self.out(y.transpose(1, 2).reshape(b, n, c))


def recurrent(kind: type[nn.RNNBase], *sizes: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: Function(lambda x, m: m(x)[0], kind(*sizes, batch_first=True, **options))


def _attending(p: float) -> nn.Module:
    inner = nn.MultiheadAttention(32, 4, dropout=p, batch_first=True)
    return Function(lambda x, m: m(x, x, x, need_weights=False)[0], inner)


def _rms_normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(0.79788 * (x + 0.044715 * x**3)))


SEQUENCES: dict[str, tuple[Callable[[], nn.Module], int, float, bool]] = {
    "attention": (Attention, 32, 0.3, False),
    "attention, behind a layer": (Attention, 32, 0.3, True),
    "attention with dropout": (lambda: Attention(0.3), 32, 0.1, True),
    "fused attention with dropout": (lambda: Attention(0.3, fused=True), 32, 0.1, True),
    "MultiheadAttention": (lambda: _attending(0.0), 32, 0.3, True),
    "MultiheadAttention with dropout": (lambda: _attending(0.3), 32, 0.1, True),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(32, 4, 64, 0.3, batch_first=True),
        32,
        0.3,
        True,
    ),
    "LSTM": (recurrent(nn.LSTM, 32, 32), 32, 0.3, False),
    "LSTM of two layers": (recurrent(nn.LSTM, 32, 32, 2, dropout=0.3), 32, 0.3, False),
    "LSTM, both ways": (recurrent(nn.LSTM, 32, 32, bidirectional=True), 64, 0.3, True),
    "GRU": (recurrent(nn.GRU, 32, 32), 32, 0.3, True),
    "GRU of two layers": (recurrent(nn.GRU, 32, 32, 2, dropout=0.3), 32, 0.3, False),
    "RNN": (recurrent(nn.RNN, 32, 32), 32, 0.3, True),
    "SiLU by hand": (f(lambda x: x * torch.sigmoid(x)), 32, 0.5, True),
    "GELU by hand": (f(_gelu), 32, 0.5, True),
    "hard swish by hand": (f(lambda x: x * F.relu6(x + 3) / 6), 32, 0.5, True),
    "RMS norm by hand": (f(_rms_normed), 32, 0.3, False),
    "own mean beside it": (
        f(lambda x: torch.cat([x, x.mean(1, keepdim=True).expand_as(x)], 2)),
        64,
        0.3,
        True,
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    op, out, p, between = SEQUENCES[name]
    torch.manual_seed(0)
    model = SequenceProbe(op(), nn.Dropout(p), nn.Linear(32, 32) if between else None, 32, out)
    check(model, smooth(256, 32, 16).transpose(1, 2).contiguous(), passes=4)


def test_statistics_over_time() -> None:
    torch.manual_seed(0)
    pooled = Function(lambda x: torch.cat([x.mean(2), x.std(2)], 1))
    probe = FlatProbe(pooled, nn.Dropout(0.3), None, WIDTH, 2 * WIDTH, 1)
    check(probe, smooth(256, WIDTH, 32), fallbacks={"std": 1})


class Words(nn.Module):
    """Embedding, dropout, a weight layer, the largest over time; with a table of positions up to the norm."""

    def __init__(self, places: bool) -> None:
        super().__init__()
        self.words, self.places = (
            nn.Embedding(50, 32),
            nn.Parameter(torch.randn(1, 12, 32)) if places else None,
        )
        self.drop, self.conv, self.mid = nn.Dropout(0.5), nn.Conv1d(32, 32, 3), nn.BatchNorm1d(32)
        self.tail = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32) if not places else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        y = self.words(x) if self.places is None else self.words(x) + self.places
        y = F.relu(self.mid(self.conv(self.drop(y).transpose(1, 2))))
        return self.tail(y.max(2)[0])  # type: ignore[no-any-return]  # a module's call is Any


@pytest.mark.parametrize("places", [False, True])
def test_words_and_positions(places: bool) -> None:
    torch.manual_seed(0)
    check(Words(places), torch.randint(0, 50, (256, 12)))


@pytest.mark.parametrize("kind", ["Dropout", "Dropout3d"])
@pytest.mark.parametrize(
    "op", [nn.MaxPool3d(2), nn.AvgPool3d(2), nn.Upsample(scale_factor=2, mode="trilinear")], ids=str
)
def test_volumes(op: nn.Module, kind: str) -> None:
    torch.manual_seed(0)
    stem = nn.Sequential(
        nn.Conv3d(8, WIDTH, 3, padding=1), nn.BatchNorm3d(WIDTH), nn.ReLU(), NOISES[kind](0.3)
    )
    model = nn.Sequential(stem, op, nn.BatchNorm3d(WIDTH), nn.Conv3d(WIDTH, 16, 1), nn.BatchNorm3d(16))
    check(model, smooth(64, 8, 6, 6, 6), passes=3)


# --- what needs no run ------------------------------------------------------------------------------------


def delta(op: nn.Module, *, kind: str = "Dropout", out: int = WIDTH) -> Prediction:
    torch.manual_seed(0)
    layer = nn.Conv2d(WIDTH, WIDTH, 1)
    return predicted(
        Probe(op, NOISES[kind](0.5), layer, WIDTH, out, 2), smooth(4, WIDTH, 8, 8), basis="weights"
    )


@pytest.mark.parametrize(
    ("by_hand", "module"),
    [
        (lambda x: x * torch.sigmoid(x), nn.SiLU()),
        (lambda x: torch.where(x > 0, x, 0.1 * x), nn.LeakyReLU(0.1)),
        (lambda x: torch.maximum(x, 0.1 * x), nn.LeakyReLU(0.1)),
        (lambda x: x.masked_fill(x < 0, 0.0), nn.ReLU()),
        (lambda x: x * (x > 0), nn.ReLU()),
        (lambda x: x / (1 + x.abs()), nn.Softsign()),
    ],
    ids=["SiLU", "where", "maximum", "masked_fill", "product", "quotient"],
)
def test_one_function_written_with_two_tensors(
    by_hand: Callable[[Tensor], Tensor], module: nn.Module
) -> None:
    ours, its = (now(delta(op).norms[-1]) for op in (Function(by_hand), module))
    assert ours == pytest.approx(its, abs=2e-3)


def test_a_mask_beside_another_part_of_itself_is_another_mask() -> None:
    twice = now(delta(Function(lambda x: x + x)).norms[1])
    apart = now(delta(Function(lambda x: x + x.flip(3))).norms[1])
    assert twice == pytest.approx(now(delta(nn.Identity()).norms[1]), abs=1e-9)
    assert apart >= twice


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (lambda x: x.cumsum(1), "cumsum"),
        (lambda x: x.scatter(1, torch.zeros(x.shape, dtype=torch.long), 0.0), "scatter"),
        (lambda x: x * x.std((2, 3), keepdim=True), "std"),
        (lambda x: x @ x.roll(1, 1), "matmul"),
    ],
    ids=["cumsum", "scatter", "std", "matmul"],
)
def test_what_only_a_run_would_tell_is_counted(op: Callable[[Tensor], Tensor], name: str) -> None:
    result = delta(Function(op))
    assert result.fallbacks == {name: 1}
    assert now(result.norms[1]) < 0.95


def test_an_attention_mask_is_no_pattern() -> None:
    plain = now(delta(nn.Identity()).norms[1])
    masked = delta(Function(lambda x: x.masked_fill(torch.arange(8) > 3, float("-inf"))))
    assert now(masked.norms[1]) == plain
    assert masked.fallbacks == {}


class LastState(nn.Module):
    """An LSTM's last hidden state, a tuple inside a tuple; of sequences of many lengths, which are packed."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.stem = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU())
        self.drop, self.lstm, self.norm = (
            nn.Dropout(0.5),
            nn.LSTM(32, 32, batch_first=True),
            nn.BatchNorm1d(32),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.stem(x))
        if self.packed:
            lengths = torch.arange(len(x)) % 8 + 9
            y = nn.utils.rnn.pack_padded_sequence(y, lengths, batch_first=True, enforce_sorted=False)
        return self.norm(self.lstm(y)[1][0][-1])  # type: ignore[no-any-return]  # a module's call is Any


@pytest.mark.parametrize("packed", [False, True])
def test_the_last_state_of_an_lstm(packed: bool) -> None:
    torch.manual_seed(0)
    check(LastState(packed), smooth(256, 32, 16).transpose(1, 2).contiguous())
