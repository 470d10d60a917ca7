"""One pass over the data: the input moments of every norm, while dropout is off and no buffer changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from dropout_lint.layers.signatures import NORMS, argument
from dropout_lint.measurement.streaming import Moments
from dropout_lint.remedies.modes import DropoutSwitch

Normalise = Literal["batch", "pooled", "fixed"]
# Values of a channel from which a batch's own statistics serve; a last batch of two rows says nothing.
OWN_STATISTICS = 32


class Estimate:
    """What one norm has seen so far, and the statistics it would store.

    Args:
        norm: a batch norm, or an instance norm that tracks its statistics.
        keep_mean: leave its running mean as it is (variance only).
    """

    def __init__(self, norm: _NormBase, keep_mean: bool) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.norm = norm
        self.keep_mean = keep_mean
        self.per_instance = isinstance(norm, _InstanceNorm)
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        mean = self.norm.running_mean
        assert mean is not None
        self.values = Moments(mean.numel(), mean.device)
        # instance norms store the mean of each sample's own variance
        self.spreads = Moments(mean.numel(), mean.device) if self.per_instance else None
        self.within = torch.zeros_like(self.values.m2)
        self.calls = 0

    @property
    def count(self) -> int:
        """Values of each channel seen (samples, for an instance norm), on all ranks after a merge."""
        return self.values.count

    def add(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Add one input, (N, C, …), and return its own mean and variance, (C,) each.

        For an instance norm those so far: in test mode it has one mean and variance for all samples.
        """
        self.calls += 1
        if self.spreads is None:
            mean, variance = self.values.update(x)
            self.within.add_(variance, alpha=x.numel() // x.shape[1])
            return mean, variance
        wide = x.detach() if x.dtype == torch.float64 else x.detach().float()
        variance, mean = torch.var_mean(wide.flatten(2), dim=-1, correction=1)
        self.values.update(mean)
        self.spreads.update(variance)
        return self.values.mean, self.spreads.mean

    def statistics(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance to store, (C,) each, in the buffers' dtype.

        The variance is divided by n − 1, which is what torch stores.
        """
        old = self.norm.running_mean
        assert old is not None
        variance = self.values.variance() if self.spreads is None else self.spreads.mean
        mean = old if self.keep_mean else self.values.mean
        return mean.to(old.dtype), variance.to(old.dtype)

    def within_share(self) -> float:
        """How much of the variance lies within batches, on this rank; 1 where all batches are alike."""
        total = float(self.values.m2.sum())
        return float(self.within.sum()) / total if total > 0 and self.spreads is None else 1.0

    def moments(self) -> tuple[Moments, ...]:
        """Every accumulator, in a fixed order, for a merge over ranks."""
        return (self.values,) if self.spreads is None else (self.values, self.spreads)


class EnoughError(BaseException):
    """Leaves a forward pass early; a BaseException so that a user's `except Exception` lets it pass."""


class Recorder(DropoutSwitch):
    """Watches every norm's functional call, whichever class makes it, and normalises by the new statistics.

    The modules stay in test mode and their buffers are never written. A norm is known by its running mean.

    Args:
        estimates: the norms to watch, by the id of their running mean.
        normalise: what a watched norm divides by while its statistics are still being counted: `batch`, this
            batch alone if it is large enough; `pooled`, all it has seen so far, this batch included; `fixed`,
            what `fixed` says.
        fixed: by the same ids, statistics that stand already; these norms are not counted any more.
        target: count this norm alone and leave the forward pass after its `calls`-th call.
        calls: see `target`.
    """

    def __init__(
        self,
        estimates: Mapping[int, Estimate],
        normalise: Normalise = "batch",
        fixed: Mapping[int, tuple[Tensor, Tensor]] | None = None,
        target: int | None = None,
        calls: int = 1,
    ) -> None:
        super().__init__(on=False)
        self.estimates = estimates
        self.normalise = normalise
        self.fixed = fixed or {}
        self.target = target
        self.left = self.calls = calls
        self.order: dict[int, int] = {}

    def begin(self) -> None:
        """Call before each forward pass."""
        self.left = self.calls

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm or func is F.instance_norm:
            running_mean = argument(args, kwargs or {}, NORMS[func].mean, None)
            estimate = self.estimates.get(id(running_mean))
            x = argument(args, kwargs or {}, (0, "input"), None)
            # torch's own message says best what is wrong with a wrong shape
            if estimate is not None and x.dim() > 1 and x.shape[1] == estimate.values.channels:
                return self._norm(id(running_mean), estimate, func is F.batch_norm, args, dict(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)

    def _norm(
        self, key: int, estimate: Estimate, batch: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        x = argument(args, kwargs, (0, "input"), None)
        arguments = NORMS[F.batch_norm if batch else F.instance_norm]
        weight, bias = (argument(args, kwargs, one, None) for one in (arguments.weight, arguments.bias))
        eps = argument(args, kwargs, (7, "eps"), 1e-5)
        mean, variance = self._statistics(key, estimate, x)
        if batch:
            return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return F.instance_norm(x, mean, variance, weight, bias, use_input_stats=False, eps=eps)

    def _statistics(self, key: int, estimate: Estimate, x: Tensor) -> tuple[Tensor, Tensor]:
        counted = self.target in (None, key)
        if counted:
            self.order.setdefault(key, len(self.order))
            own_mean, own_variance = estimate.add(x)
        if self.target == key:
            self.left -= 1
            if self.left == 0:
                raise EnoughError
        if key in self.fixed:
            return self.fixed[key]
        old_mean, old_variance = estimate.norm.running_mean, estimate.norm.running_var
        assert old_mean is not None
        assert old_variance is not None
        if estimate.count < 2:
            # one value has no spread to divide by
            return old_mean, old_variance
        large = x.numel() >= OWN_STATISTICS * x.shape[1]
        if self.normalise == "batch" and large and not estimate.per_instance:
            mean = old_mean if estimate.keep_mean else own_mean.to(old_mean.dtype)
            return mean, own_variance.to(old_mean.dtype)
        return estimate.statistics()


def ratio(new: Tensor, old: Tensor) -> float:
    """Mean of the new variances over mean of the old (Li et al. 2019, Sec. 4); NaN where the old are 0."""
    below = float(old.cpu().double().mean())
    return float(new.cpu().double().mean()) / below if below > 0 else math.nan


def is_tracking(module: nn.Module) -> bool:
    """Whether `module` holds running statistics that could be estimated."""
    return (
        isinstance(module, _NormBase) and module.running_mean is not None and module.running_var is not None
    )
