"""DropBlock (Ghiasi et al. 2018) as torchvision and timm write it: how much of a map it really zeroes.

A seed is drawn at each position with probability γ = p·s·Π L_d / (Π b_d · Π (L_d - b_d + 1)), and each seed
zeroes the block around it. Blocks overlap, and seeds outside of the valid region (timm draws there too) reach
in from the border: a position that n seeds can reach is zeroed with probability 1 - (1 - γ)ⁿ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Block:
    """How a DropBlock layer draws its blocks.

    Attributes:
        size: length of a block's side, in positions.
        scale: factor of the probability of a seed.
        valid_only: seeds lie where a whole block fits in (torchvision); else anywhere (timm).
        fills: zeroed positions get standard normal noise.
    """

    size: int
    scale: float = 1.0
    valid_only: bool = False
    fills: bool = False

    def zeroed(self, p: float, sizes: Sequence[int]) -> list[float]:
        """How likely each position of a map of these sizes is zeroed at drop ratio `p`."""
        sides = [min(self.size, length) for length in sizes]
        gamma = self.scale * p * math.prod(sizes) / math.prod(sides)
        gamma /= math.prod(length - side + 1 for length, side in zip(sizes, sides, strict=True))
        reaching = [1]
        for length, side in zip(sizes, sides, strict=True):
            reaching = [a * b for a in reaching for b in self._seeds(length, side)]
        kept = math.log1p(-min(gamma, 1 - 1e-9))
        return [-math.expm1(n * kept) for n in reaching]

    def _seeds(self, length: int, side: int) -> list[int]:
        """For each position along one dimension, how many seeds reach it."""
        if self.valid_only:
            return [min(i, length - side) - max(0, i - side + 1) + 1 for i in range(length)]
        before, after = side // 2, (side - 1) // 2
        return [min(length - 1, i + after) - max(0, i - before) + 1 for i in range(length)]


def block_of(module: nn.Module) -> Block | None:
    """What `module` draws, where it is torchvision's or timm's DropBlock; None for any other."""
    size = getattr(module, "block_size", None)
    if not isinstance(size, int) or isinstance(size, bool):
        return None
    if isinstance(scale := getattr(module, "gamma_scale", None), (int, float)):
        return Block(size, float(scale), fills=bool(getattr(module, "with_noise", False)))
    if type(module).__module__.startswith("torchvision."):
        return Block(size, valid_only=True)
    return None
