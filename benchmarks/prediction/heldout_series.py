"""Held out: series and tones, by convolutions, recurrence and attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import data_heldout as data
from .kinds import noise
from .settings import Network


def one_d(kind: str, p: float) -> nn.Module:
    """Convolution, norm, ReLU, dropout over time, four times."""
    layers: list[nn.Module] = []
    for inner, outer, size, stride in ((1, 32, 9, 4), (32, 64, 7, 2), (64, 64, 5, 2), (64, 96, 3, 2)):
        layers += [
            nn.Conv1d(inner, outer, size, stride, size // 2),
            nn.BatchNorm1d(outer),
            nn.ReLU(),
            noise(kind, p),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(96, 12))


def one_d_relu_first(kind: str, p: float) -> nn.Module:
    """Convolution, ReLU, norm, max-pool, dropout over time: the order of CREPE (Kim et al. 2018)."""
    layers: list[nn.Module] = []
    for inner, outer in ((1, 48), (48, 32), (32, 32), (32, 64)):
        layers += [
            nn.Conv1d(inner, outer, 9, 1, 4),
            nn.ReLU(),
            nn.BatchNorm1d(outer),
            nn.MaxPool1d(2),
            noise(kind, p),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(128, 12))


class Dilated(nn.Module):
    """A residual block of two dilated convolutions (Bai et al. 2018, with batch norm)."""

    def __init__(self, inner: int, outer: int, dilation: int, kind: str, p: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inner, outer, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(outer, outer, 3, padding=dilation, dilation=dilation)
        self.norm1, self.norm2 = nn.BatchNorm1d(outer), nn.BatchNorm1d(outer)
        self.drop1, self.drop2 = noise(kind, p), noise(kind, p)
        self.skip: nn.Module = nn.Identity() if inner == outer else nn.Conv1d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop1(F.relu(self.norm1(self.conv1(x))))
        y = self.drop2(F.relu(self.norm2(self.conv2(y))))
        return F.relu(y + self.skip(x))


def temporal(kind: str, p: float) -> nn.Module:
    """Four dilated residual blocks on vowels."""
    blocks = [Dilated(12 if i == 0 else 40, 40, 2**i, kind, p) for i in range(4)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(40, 9))


class Recurrent(nn.Module):
    """A GRU, dropout on its outputs, then linear layers with norms."""

    def __init__(self, kind: str, p: float) -> None:
        super().__init__()
        self.rnn = nn.GRU(12, 48, batch_first=True)
        self.drop = noise(kind, p)
        self.head = nn.Sequential(
            nn.Linear(96, 64), nn.BatchNorm1d(64), nn.ReLU(), noise(kind, p),
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 9),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        states = self.rnn(x)[0]
        return self.head(self.drop(torch.cat([states[:, -1], states.mean(1)], 1)))


class Stacked(nn.Module):
    """Dropout on embedded frames, a two-layer LSTM with its own dropout, a norm over its outputs."""

    def __init__(self, kind: str, p: float) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 32)
        self.drop = noise(kind, p)
        self.rnn = nn.LSTM(32, 40, 2, batch_first=True, dropout=p)
        self.norm = nn.BatchNorm1d(40)
        self.out = nn.Linear(40, 9)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(self.drop(F.relu(self.embed(x))))
        return self.out(F.relu(self.norm(y.transpose(1, 2))).mean(2))


class BatchNormLayer(nn.Module):
    """A transformer encoder's layer with batch norm behind its adds (Zerveas et al. 2021)."""

    def __init__(self, width: int, kind: str, p: float) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, 4, dropout=p, batch_first=True)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
        self.drop1, self.drop2, self.drop3 = noise(kind, p), noise(kind, p), noise(kind, p)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop1(self.attend(x, x, x, need_weights=False)[0])
        x = self.norm1(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.drop3(self.narrow(self.drop2(F.gelu(self.wide(x)))))
        return self.norm2(x.transpose(1, 2)).transpose(1, 2)


class Transformer(nn.Module):
    """Three such layers on frames with learnt positions."""

    def __init__(self, kind: str, p: float) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 32)
        self.place = nn.Parameter(0.02 * torch.randn(1, data.vowels().inputs[0].shape[2], 32))
        self.drop = noise(kind, p)
        self.layers = nn.Sequential(*(BatchNormLayer(32, kind, p) for _ in range(3)))
        self.out = nn.Linear(32, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(self.drop(self.embed(x) + self.place)).mean(1))


D, D1 = "Dropout", "Dropout1d"

NETWORKS: tuple[Network, ...] = (
    Network(
        "one_d",
        "1-D convolutions",
        one_d,
        data.tones,
        "momentum",
        0.05,
        15,
        ((D, 0.1), (D, 0.3), (D, 0.5), (D1, 0.2)),
    ),
    Network(
        "one_d_relu_first",
        "ReLU before the norm",
        one_d_relu_first,
        data.tones,
        "adamw",
        2e-3,
        5,
        ((D, 0.2), (D, 0.5), ("Uout", 0.5)),
    ),
    Network("leaves", "1-D convolutions", one_d, data.leaves, "adamw", 3e-3, 20, ((D, 0.2), (D1, 0.5))),
    Network(
        "temporal",
        "1-D convolutions",
        temporal,
        data.vowels,
        "adamw",
        3e-3,
        12,
        ((D, 0.1), (D, 0.5), (D1, 0.3), ("DropPath", 0.1)),
        batch=32,
    ),
    Network(
        "recurrent",
        "recurrent then norm",
        Recurrent,
        data.vowel_frames,
        "adamw",
        3e-3,
        15,
        ((D, 0.2), (D, 0.5), ("Gaussian", 0.25)),
        batch=32,
    ),
    Network(
        "stacked",
        "recurrent then norm",
        Stacked,
        data.vowel_frames,
        "momentum",
        0.1,
        15,
        ((D, 0.1), (D, 0.3)),
        batch=32,
    ),
    Network(
        "transformer",
        "transformer, batch norm",
        Transformer,
        data.vowel_frames,
        "adamw",
        2e-3,
        12,
        ((D, 0.1), (D, 0.2), (D, 0.5)),
        batch=32,
        decay=0.05,
    ),
)
