"""Per-channel mean and variance over many batches, without cancellation and over many ranks.

The one accumulator of the package: what measures Δ and what re-estimates norms both count with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch import distributed as dist

# Elements that one step of the CPU reduction touches: small enough to stay in the second-level cache.
CHUNK = 131072
# Where the pivot is off by more than this many standard deviations, squared, the pass is done again.
PIVOT_LIMIT = 30.0


@dataclass(slots=True)
class Moments:
    """Count, mean and sum of squared deviations of each channel.

    Batches are merged by Chan, Golub and LeVeque (1979): each batch's own mean and squared deviations
    (`channel_moments`) enter a float64 total, so that neither a large mean nor batches of unequal size spoil
    the variance. On an accelerator nothing is copied to the host until a caller reads a value.

    Args:
        channels: number of channels, C.
        device: where the totals live (that of the data).

    Attributes:
        count: samples seen by each channel (rows times positions).
        mean: (C,) float64.
        m2: (C,) float64, sum of squared deviations from the mean.
    """

    channels: int
    device: torch.device | str = "cpu"
    count: int = field(default=0, init=False)
    mean: Tensor = field(init=False)
    m2: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # MPS has no float64
        dtype = torch.float32 if torch.device(self.device).type == "mps" else torch.float64
        self.mean = torch.zeros(self.channels, dtype=dtype, device=self.device)
        self.m2 = torch.zeros_like(self.mean)

    @torch.no_grad()
    def update(self, x: Tensor, channel_dim: int = 1) -> tuple[Tensor, Tensor]:
        """Add every value of `x`, of shape (N, C, …) or with its channels at `channel_dim`.

        Returns:
            mean and variance (divided by n) of this batch alone, each (C,), float32 or wider; zeros where the
            batch is empty.
        """
        variance, mean, count = channel_moments(x.detach().transpose(1, channel_dim))
        self.add(count, mean, variance)
        return mean, variance

    def add(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Add `count` values with this mean and variance (divided by n), each (C,)."""
        if count == 0:
            return
        total = self.count + count
        self.mean, between = chan(self.mean, mean.to(self.mean), self.count, count / total)
        self.m2 = self.m2 + variance.to(self.m2) * count + between
        self.count = total

    def merge(self, other: Moments) -> None:
        """Add everything that `other` has seen."""
        if other.count:
            self.add(other.count, other.mean, other.m2 / other.count)

    def variance(self, correction: int = 1) -> Tensor:
        """(C,) float64: m2 / (count − correction). 1 is what torch's `running_var` holds.

        A single value has no spread: its variance is 0 with either correction. NaN where nothing was seen.
        """
        if self.count == 0:
            return torch.full_like(self.m2, torch.nan)
        return self.m2 / max(self.count - correction, 1)

    def second_moment(self) -> Tensor:
        """(C,) float64: E[x²]."""
        return self.variance(0) + self.mean**2

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merge over the ranks of an initialised `torch.distributed` group; all get the same totals."""
        all_reduce_moments([self], group)


def chan(mean: Tensor, other: Tensor, count: Tensor | int, weight: Tensor | float) -> tuple[Tensor, Tensor]:
    """Chan, Golub and LeVeque (1979), Eq. 2.1: the mean of two samples together, and what to add to Σ m2.

    Args:
        mean: mean of the first sample.
        other: mean of the second.
        count: size of the first.
        weight: size of the second over that of both.
    """
    step = other - mean
    return mean + step * weight, step.square() * (count * weight)


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


@torch.no_grad()
def all_reduce_moments(moments: Sequence[Moments], group: dist.ProcessGroup | None = None) -> None:
    """Merge many accumulators over the ranks in two collectives; ranks without data may take part.

    Squared deviations are taken from the mean of all ranks before they are summed, so nothing cancels.
    Does nothing where no process group is initialised. Every rank must pass the same accumulators in the same
    order.
    """
    if not moments or not (dist.is_available() and dist.is_initialized()):
        return
    counts = torch.cat([item.mean.new_full((item.channels,), item.count) for item in moments])
    means = torch.cat([item.mean for item in moments])
    m2 = torch.cat([item.m2 for item in moments])
    # offset from the first rank's mean: a large common mean must not eat the difference between ranks
    origin = means.clone()
    dist.broadcast(origin, src=dist.get_global_rank(group, 0) if group is not None else 0, group=group)
    sums = torch.stack([counts, counts * (means - origin)])
    dist.all_reduce(sums, group=group)
    total = origin + sums[1] / sums[0].clamp_min(1)
    m2 = m2 + counts * (means - total) ** 2
    dist.all_reduce(m2, group=group)
    sizes = [item.channels for item in moments]
    seen = torch.stack([part[0] for part in torch.split(sums[0], sizes)]).tolist()
    parts = zip(moments, seen, torch.split(total, sizes), torch.split(m2, sizes), strict=True)
    for item, count, mean, spread in parts:
        item.count = round(count)
        item.mean, item.m2 = mean.clone(), spread.clone()
