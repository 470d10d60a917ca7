"""The moments of all norms' inputs as blocks: flat float64 vectors, merged without cancellation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dropout_lint.measurement.streaming import chan, channel_moments

__all__ = ["Block", "BlockList", "Layout", "channel_moments", "empty_block", "merge", "merge_all"]


@dataclass(frozen=True)
class Layout:
    """Where each norm's channels lie in the flat vectors of a `Block`.

    Attributes:
        names: the norms, in the order of the model.
        channels: channels of each.
        between: for each norm, whether the difference of two batches' means counts as variance; it does not
            for instance norms, which remember the variance within a sample.
    """

    names: tuple[str, ...]
    channels: tuple[int, ...]
    between: tuple[bool, ...]

    @property
    def total(self) -> int:
        """Channels of all norms together."""
        return sum(self.channels)

    def owners(self) -> Tensor:
        """For each place of a flat vector the index of its norm, (total,)."""
        return torch.repeat_interleave(torch.arange(len(self.channels)), torch.tensor(self.channels))

    def between_channels(self) -> Tensor:
        """`between` for each place of a flat vector, as 0 or 1."""
        return torch.tensor(self.between, dtype=torch.float64)[self.owners()]

    def slices(self) -> list[slice]:
        """The place of each norm in a flat vector."""
        ends = torch.tensor(self.channels).cumsum(0).tolist()
        return [slice(end - size, end) for end, size in zip(ends, self.channels, strict=True)]


@dataclass(frozen=True)
class Block:
    """Moments of some batches, all norms in flat float64 vectors on the CPU.

    Attributes:
        count: values of a channel, for each norm (norms,).
        mean: (total,).
        m2: sum of squared differences from the mean, (total,).
        batches: how many batches went in.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor
    batches: int = 1


def merge(a: Block, b: Block, owners: Tensor, between: Tensor) -> Block:
    """Chan, Golub, LeVeque 1979, Eq. 2.1: the moments of two samples together, whatever their sizes."""
    count = a.count + b.count
    n_a, n_b, n = a.count[owners], b.count[owners], count[owners]
    weight = torch.where(n > 0, n_b / n.clamp_min(1), torch.zeros_like(n))
    mean, between_batches = chan(a.mean, b.mean, n_a, weight)
    return Block(count, mean, a.m2 + b.m2 + between * between_batches, a.batches + b.batches)


def merge_all(blocks: Sequence[Block], layout: Layout) -> Block:
    """All blocks as one; an empty sequence gives counts of 0."""
    owners, between = layout.owners(), layout.between_channels()
    total = empty_block(layout)
    for block in blocks:
        total = merge(total, block, owners, between)
    return total


def empty_block(layout: Layout) -> Block:
    """A block of no batch."""
    zeros = torch.zeros(layout.total, dtype=torch.float64)
    return Block(torch.zeros(len(layout.names), dtype=torch.float64), zeros, zeros.clone(), 0)


class BlockList:
    """At most `limit` blocks of equally many batches, in order; neighbours merge when there are too many.

    The blocks are the replicates of the confidence interval, so memory stays bounded for any loader.
    """

    def __init__(self, layout: Layout, limit: int = 64) -> None:
        self.layout = layout
        self.limit = limit
        self.size = 1
        self.blocks: list[Block] = []
        self._owners, self._between = layout.owners(), layout.between_channels()

    def add(self, block: Block) -> None:
        """Append the moments of one batch."""
        if self.blocks and self.blocks[-1].batches < self.size:
            self.blocks[-1] = self._merge(self.blocks[-1], block)
            return
        if len(self.blocks) == self.limit:
            self.blocks = self.halved(self.blocks)
            self.size *= 2
            if self.blocks[-1].batches < self.size:
                self.blocks[-1] = self._merge(self.blocks[-1], block)
                return
        self.blocks.append(block)

    def halved(self, blocks: Sequence[Block]) -> list[Block]:
        """Each two neighbours as one."""
        pairs = [blocks[i : i + 2] for i in range(0, len(blocks), 2)]
        return [self._merge(pair[0], pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]

    def at_most(self, limit: int) -> list[Block]:
        """The blocks, merged with their neighbours until there are at most `limit`."""
        blocks = list(self.blocks)
        while len(blocks) > max(1, limit):
            blocks = self.halved(blocks)
        return blocks

    def _merge(self, a: Block, b: Block) -> Block:
        return merge(a, b, self._owners, self._between)
