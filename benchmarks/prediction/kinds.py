"""Noise layers by name, for the networks that are built with one kind or another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fixtures.noise import NOISES


class GaussianDropout(nn.Module):
    """Multiplies by 1 + N(0, alpha) (Srivastava et al. 2014, Sec. 10)."""

    def __init__(self, alpha: float = 0.25) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (1 + self.alpha**0.5 * torch.randn_like(x))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


KINDS: dict[str, type[nn.Module]] = {
    **NOISES,
    "Dropout1d": nn.Dropout1d,
    "Dropout3d": nn.Dropout3d,
    "Gaussian": GaussianDropout,
    "Alpha": nn.AlphaDropout,
}


def noise(kind: str, p: float) -> nn.Module:
    """A layer of this kind; `p` is β for Uout and α for Gaussian dropout."""
    return KINDS[kind](p)
