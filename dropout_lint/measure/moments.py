"""Exact moments of a norm's input: per channel, on the device, merged in float64 without cancellation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Elements that one step of the CPU reduction touches: small enough to stay in the second-level cache.
CHUNK = 131072
# Where the pivot is off by more than this many standard deviations, squared, the pass is done again.
PIVOT_LIMIT = 30.0


def channel_moments(x: Tensor, *, per_instance: bool = False) -> tuple[Tensor, Tensor, int]:
    """Population variance and mean of every channel of one norm input.

    Args:
        x: (N, C, *) or (N, C), any floating dtype. Unbatched (C, *) only with `per_instance`.
        per_instance: average the variance within each sample instead of taking it over all samples, as the
            running variance of an instance norm does (`torch.nn.InstanceNorm2d`, `track_running_stats`).

    Returns:
        Variance (C,) and mean (C,), at least float32, on the device of `x` and without a synchronisation
        there; and how many values of each channel they are taken over.
    """
    if per_instance:
        return _instance_moments(x)
    count = x.numel() // max(1, x.shape[1])
    if x.numel() == 0:
        empty = torch.zeros(x.shape[1], device=x.device)
        return empty, empty, 0
    if x.device.type == "cpu":
        if x.dtype == torch.float64:
            variance, mean = torch.var_mean(x, _reduced(x), correction=0)
        else:
            variance, mean = _pivoted(x)
        return variance, mean, count
    if x.dtype in (torch.float16, torch.bfloat16):
        return *_half_moments(x), count
    variance, mean = torch.var_mean(x, _reduced(x), correction=0)
    return variance, mean, count


def _reduced(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _half_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Half precision on an accelerator, in float32: `var_mean` would round its result to half."""
    if x.device.type == "cuda":
        if not x.is_contiguous(
            memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format
        ):
            x = x.contiguous()
        eps = 1e-12
        mean, inverse = torch.batch_norm_stats(x, eps)
        return inverse.pow(-2).sub(eps).clamp_min(0), mean
    variance, mean = torch.var_mean(x.float(), _reduced(x), correction=0)
    return variance, mean


def _pivoted(x: Tensor, pivot: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Variance and mean on the CPU: sums of x - pivot and of its square, chunk by chunk, in cache.

    `torch.var_mean` is exact too, but four to ten times slower here (its Welford loop is not vectorised).
    Subtracting a pivot near the mean is what keeps the squares from cancelling; where the pivot turns
    out to be far off, the pass is repeated around the mean that it found.
    """
    dims = _reduced(x)
    shape = [1, x.shape[1], *[1] * (x.dim() - 2)]
    if pivot is None:
        pivot = x[:1].float().mean(dims)
    around = pivot.reshape(shape)
    step = max(1, CHUNK // max(1, x[0].numel()))
    sums, squares = [], []
    for chunk in torch.split(x, step):
        centred = chunk.float() - around
        sums.append(centred.sum(dims))
        squares.append(centred.square_().sum(dims))
    count = x.numel() // x.shape[1]
    offset = torch.stack(sums).double().sum(0) / count
    second = torch.stack(squares).double().sum(0) / count
    variance = second - offset.square()
    mean = pivot.double() + offset
    if bool((offset.square() > PIVOT_LIMIT * variance).any()):
        better = mean.float()
        if not torch.equal(better, pivot) and bool(torch.isfinite(better).all()):
            return _pivoted(x, better)
    return variance.clamp_min_(0), mean


def _instance_moments(x: Tensor) -> tuple[Tensor, Tensor, int]:
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    spatial = list(range(2, x.dim()))
    variance, mean = torch.var_mean(x, spatial, correction=0)
    return variance.mean(0), mean.mean(0), x.numel() // max(1, x.shape[1])


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
    difference = b.mean - a.mean
    return Block(
        count,
        a.mean + difference * weight,
        a.m2 + b.m2 + between * difference.square() * n_a * weight,
        a.batches + b.batches,
    )


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
