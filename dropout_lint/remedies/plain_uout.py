"""Uout: multiplicative uniform noise, whose variance is so small that a batch norm hardly notices it.

Li, Chen, Hu, Yang, "Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift",
CVPR 2019, Section 5. It needs torch alone, and can be scripted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Uout(nn.Module):
    """`x · (1 + r)` with `r ~ U(−β, β)` in train mode, the identity in test mode.

    The mask has mean 1 and variance β²/3, where dropout's has p/(1 − p).

    Args:
        beta: half the width of the noise, 0 ≤ β ≤ 1; 0 does nothing. The paper tried 0.2, 0.3 and 0.5.
        channelwise: one draw for each channel of each sample (as `nn.Dropout2d`), not for each element.
        inplace: overwrite the input.

    Shape:
        any; with `channelwise` (N, C, …), at least two dimensions.

    Raises:
        ValueError: `beta` is not in [0, 1].
    """

    def __init__(self, beta: float = 0.3, channelwise: bool = False, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be a number from 0 to 1, got {beta!r}")
        self.beta = float(beta)
        self.channelwise = channelwise
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """The noisy input in train mode, the input itself in test mode; same shape and dtype."""
        return uniform_noise(input, self.beta, self.training, self.channelwise, self.inplace)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, channelwise={self.channelwise}, inplace={self.inplace}"


def uniform_noise(x: Tensor, beta: float, training: bool, channelwise: bool, inplace: bool) -> Tensor:
    """What `Uout` does, in the part of Python that `torch.jit.script` knows."""
    if not training or beta == 0.0:
        return x
    shape = list(x.shape)
    if channelwise and x.dim() > 2:
        shape = shape[:2] + [1] * (x.dim() - 2)
    wide = torch.float32  # in half precision a draw is rounded down: the mean would not be 1
    if x.dtype == torch.float64:
        wide = torch.float64
    if x.dtype == torch.complex128:
        wide = torch.float64
    scale = torch.empty(shape, dtype=wide, device=x.device).uniform_(1 - beta, 1 + beta)
    if not x.is_complex():
        scale = scale.to(x.dtype)
    return x.mul_(scale) if inplace else x * scale
