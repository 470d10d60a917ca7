"""Per-channel mean and variance over many batches, without cancellation and over many ranks.

The one accumulator of the package: what measures Δ and what re-estimates norms both count with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(slots=True)
class Moments:
    """Count, mean and sum of squared deviations of each channel.

    Batches are merged by Chan, Golub and LeVeque (1979): each batch's own mean and squared deviations, found
    in two passes over it, enter a float64 total, so that neither a large mean nor batches of unequal size
    spoil the variance. Nothing is copied to the host until a caller reads a value.

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
        count = x.numel() // max(self.channels, 1)
        if count == 0:
            empty = torch.zeros(self.channels, device=x.device)
            return empty, torch.zeros_like(empty)
        mean, variance = batch_moments(x, channel_dim)
        self.add(count, mean, variance)
        return mean, variance

    def add(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Add `count` values with this mean and variance (divided by n), each (C,)."""
        if count == 0:
            return
        total = self.count + count
        step = mean.to(self.mean) - self.mean
        self.m2.add_(variance.to(self.m2), alpha=count).addcmul_(step, step, value=self.count * count / total)
        self.mean.add_(step, alpha=count / total)
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


def batch_moments(x: Tensor, channel_dim: int = 1) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by n) of each channel of one non-empty batch, in float32 or wider.

    torch's kernel for batch-norm statistics reads the data twice and is many times faster than `var_mean`.
    It sums in float64 where a channel's values lie together, but one after the other in float32 where
    channels lie innermost, and then loses a mean of 3000; there the data is first shifted by its first row.
    """
    if x.dim() < 2:
        raise ValueError(f"a batch needs at least two dimensions, got {tuple(x.shape)}")
    x = x.detach()
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    if channel_dim not in (1, 1 - x.dim()):
        x = x.transpose(1, channel_dim)
    if x.device.type not in ("cpu", "cuda"):
        dims = [dim for dim in range(x.dim()) if dim != 1]
        variance, mean = torch.var_mean(x, dim=dims, correction=0)
        return mean, variance
    shift = None
    if x.shape[2:].numel() == 1 or not x.is_contiguous():
        shift = x.movedim(1, -1).reshape(-1, x.shape[1])[0].clone()
        x = x - shift.view(-1, *[1] * (x.dim() - 2))
    mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
    return (mean if shift is None else mean.double() + shift), variance


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
