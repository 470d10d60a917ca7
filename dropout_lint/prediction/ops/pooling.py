"""Pooling over positions.

Average. Over n positions, noise of separate masks falls to 1/n, noise of a mask that a whole channel or
sample shares stays (Kim Prop. 5 and its converse for Dropout2d), and the data part falls to its mean pair
correlation in the window. A shared mask's noise is (m - 1)·x: what is not the same at all positions in it is
as alike at near ones as the data are (`noise_pair`).

Maximum: `maximum`.

Statistics (std, var, norms, Lp pooling) are made of squares or powers, an average, and a root: each is taken
by its own rule, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dropout_lint.prediction.correlation import mean_correlation, strided
from dropout_lint.prediction.ops.activation import FUNCTIONS, LOGARITHMS, pointwise
from dropout_lint.prediction.ops.base import Call, NoRule, function, module
from dropout_lint.prediction.ops.copies import over_stack
from dropout_lint.prediction.ops.dropout import Sources, noise_pair
from dropout_lint.prediction.ops.few_values import MOST_SAMPLED, corrected
from dropout_lint.prediction.ops.kernel import by_dimension
from dropout_lint.prediction.ops.maximum import largest_channel, maximum, rectified_parts
from dropout_lint.prediction.ops.norm import before_norm
from dropout_lint.prediction.ops.pairs import larger
from dropout_lint.prediction.ops.powers import root, through
from dropout_lint.prediction.ops.sampled import by_samples
from dropout_lint.prediction.ops.samples import Unrunnable
from dropout_lint.prediction.parts import quotient, replace
from dropout_lint.prediction.quadrature import Array, moments_by_quadrature
from dropout_lint.prediction.state import MOMENTS_ALONE, State


def average(x: State, window: Sequence[int], tied: Sources) -> State:
    """Mean over a window of positions."""
    n = math.prod(window)
    if n <= 1:
        return x
    if x.mask not in ("sample", "channel"):
        x = x.collapse()
    window = [size for size in window if size > 1]
    return averaged(x, mean_correlation(x.rho, window), n, tied, strided(x.rho, max(window)))


def averaged(x: State, keep: float, n: float, tied: Sources, rho: Array | None = None) -> State:
    """Weighted mean over positions: Σw² = 1/n, and the data part keeps `keep`; `rho` is the data part's
    correlation between results, times `keep`.
    """
    pair = noise_pair(x, (keep * n - 1) / (n - 1) if n > 1 else 1.0, tied)
    noise = x.noise * (pair + (1 - pair) / n)
    total, left = x.noise.sum(0), noise.sum(0)
    fade = quotient(left, total, 1.0)
    common, t_common = (part**2 for part in x.energy_slopes)
    x = replace(x, before_relu=None, skew=None)
    sig2 = x.sig**2 * keep
    alone = min(
        1 / n, keep
    )  # the rest is covariance of positions, whose test/train ratio is `covariance_growth`
    return replace(
        x,
        t_var=(x.t_var - t_common) * alone
        + x.covariance_growths * (x.data - common) * (keep - alone)
        + t_common * keep,
        sig=np.sqrt(sig2),
        var=sig2 + np.maximum(x.var - x.sig**2, 0.0) * fade,
        data=x.data * keep,
        noise=noise,
        shared_by_positions=quotient(x.noise * x.shared_by_positions, noise),
        rho=x.rho if rho is None else np.clip(rho / max(keep, 1e-9), 0.0, 1.0),
        from_weight_layer=False,
    )


def _dims(call: Call) -> int:
    digits = [c for c in (type(call.module).__name__ if call.module is not None else call.name) if c in "123"]
    return int(digits[-1]) if digits else max(len(call.in_shape) - 2, 1)


def _window(call: Call) -> tuple[tuple[int, ...], int]:
    """Kernel and largest stride of a pooling call; adaptive ones from the shapes."""
    dims = _dims(call)
    m: Any = call.module
    kernel = getattr(m, "kernel_size", None) if m is not None else call.arg(1, "kernel_size")
    adaptive = "adaptive" in (type(m).__name__ if m is not None else call.name).lower() or kernel is None
    if adaptive:
        before, after = call.in_shape[-dims:], call.shape[-dims:]
        window = tuple(-(-b // max(a, 1)) for b, a in zip(before, after, strict=True))
        return window, max(window)
    window = by_dimension(kernel, dims)
    stride = getattr(m, "stride", None) if m is not None else call.arg(2, "stride")
    return window, max(by_dimension(stride, dims)) if stride else max(window)


@module("_AvgPoolNd", "_AdaptiveAvgPoolNd")
@function(*(f"{kind}avg_pool{d}d" for d in "123" for kind in ("", "adaptive_")))
def average_pool(call: Call) -> State:
    """Average pooling, adaptive ones included."""
    return average(call.x, _window(call)[0], call.ledger.tied)


@module("_MaxPoolNd", "_AdaptiveMaxPoolNd", "FractionalMaxPool2d", "FractionalMaxPool3d")
@function(
    *(
        f"{kind}max_pool{d}d{tail}"
        for d in "123"
        for kind in ("", "adaptive_", "fractional_")
        for tail in ("", "_with_indices")
    )
)
def max_pool(call: Call) -> Any:
    """Maximum pooling, adaptive and fractional ones included."""
    window, stride = _window(call)

    def largest(x: State) -> State:
        return maximum(x, window, stride, call.ledger.tied)

    result = before_norm(call, largest) or largest(call.x)
    return (result, call.state(0)) if isinstance(call.value, (tuple, list)) else result


@module("_LPPoolNd", "LPPool1d", "LPPool2d", "LPPool3d")
@function("lp_pool1d", "lp_pool2d", "lp_pool3d")
def power_pool(call: Call) -> State:
    """Lp pooling, (Σ xᵖ)^(1/p)."""
    m: Any = call.module
    norm = float(m.norm_type if m is not None else call.arg(1, "norm_type", 2.0))
    kernel = m.kernel_size if m is not None else call.arg(2, "kernel_size")
    window = by_dimension(kernel, _dims(call))
    return _root_mean(call.x, norm, window, call.ledger.tied, math.prod(window))


def _root_mean(x: State, power: float, window: Sequence[int], tied: Sources, count: float) -> State:
    """(count · mean of |x|ᵖ)^(1/p)."""

    def by_moments(x: State) -> State:
        return root(average(through(x, lambda t: t.abs() ** power), window, tied).scaled(count), 1 / power)

    n = math.prod(window)
    if not np.any(x.noise) or x.mask in ("channel", "sample") or not 1 < n <= MOST_SAMPLED:
        return by_moments(x)
    pair = (mean_correlation(x.rho, window) * n - 1) / (n - 1)
    typical = by_moments(x.merged()).collapse()
    return corrected(
        x,
        by_moments(x).collapse(),
        typical,
        n,
        pair,
        lambda t: (count * (np.abs(t) ** power).mean(1, keepdims=True)) ** (1 / power),
    )


def _reduced(call: Call) -> tuple[tuple[int, ...], bool]:
    dim = call.arg(1, "dim", call.kwargs.get("axis"))
    rank = len(call.in_shape)
    if dim is None or isinstance(dim, bool):
        dim = tuple(range(rank))
    dims = tuple(int(d) % rank for d in (dim if isinstance(dim, (tuple, list)) else (dim,))) if rank else ()
    return dims, len(call.shape) == rank


def _positions(call: Call, x: State, dims: Sequence[int]) -> list[int]:
    """Sizes of the dimensions among `dims` that hold positions."""
    return [call.in_shape[d] for d in dims if d not in (x.axis, 0)]


@function("mean", "sum", "nanmean")
def mean_over(call: Call) -> State:
    """x.mean(dim) and x.sum(dim): average pooling, and over channels a sum of independent values."""
    dims, keepdim = _reduced(call)
    x, shape = call.x, call.in_shape
    if not dims or not shape:
        return x
    copies = over_stack(call)
    if copies is not None:
        return copies
    y = average(x, _positions(call, x, dims), call.ledger.tied)
    if x.axis in dims:
        y = _over_channels(y)
    factor = math.prod(shape[d] for d in dims) if call.name == "sum" else 1.0
    return _without(y.scaled(float(factor)) if factor != 1 else y, dims, keepdim)


@function("logsumexp")
def log_of_sum(call: Call) -> State:
    """log Σ e^x, one after the other."""
    e = pointwise(call.x, moments_by_quadrature(FUNCTIONS["exp"]))
    total = mean_over(replace(call, name="sum", args=(e, *call.args[1:])))
    return pointwise(total, LOGARITHMS["log"])


def _over_channels(x: State) -> State:
    """Mean over the channels. Their values are taken as independent; only a sample's mask is one for all."""
    x = (x if x.sample_wide else x.collapse()).merged()
    n = x.channels
    return replace(
        x,
        counts=np.ones(1),
        t_var=x.t_var / n,
        var=x.var / n,
        sig=x.sig / math.sqrt(n),
        data=x.data / n,
        noise=x.noise / n,
        t_dev=x.t_dev / math.sqrt(n),
        dev=x.dev / math.sqrt(n),
        **MOMENTS_ALONE,
        from_weight_layer=False,
    ).balanced()


def _without(x: State, dims: tuple[int, ...], keepdim: bool) -> State:
    if keepdim:
        return x
    return replace(x, axis=max(x.axis - sum(d < x.axis for d in dims), 0))


@function("max", "amax", "min", "amin")
def max_over(call: Call) -> Any:
    """x.max(dim), x.amax(dim): maximum pooling; torch.max(a, b) of two tensors: the larger of two values."""

    if len(call.states()) > 1:
        return larger(call)
    least = call.name.endswith("min")
    dims, keepdim = _reduced(call)
    x = call.x
    window = _positions(call, x, dims)

    def extreme(x: State, largest: Callable[[State], State]) -> State:
        return largest(x.scaled(-1.0)).scaled(-1.0) if least else largest(x)

    def over_positions(x: State) -> State:
        if math.prod(window) <= 1:
            return x
        if least and rectified_parts(x) is not None:  # all but never anything but 0
            raise NoRule
        return extreme(x, lambda of: maximum(of, window, 1, call.ledger.tied))

    y = before_norm(call, over_positions) or over_positions(x)
    if x.axis in dims:
        y = extreme(y, largest_channel)
    y = _without(y, dims, keepdim)
    return (y, call.state(0)) if isinstance(call.value, (tuple, list)) else y


def _settled(call: Call, x: State) -> None:
    """Count a statistic of noise that has passed a weight layer.

    Its power goes with the data's energy under the masks, sample by sample: a variance of the statistic
    that the moments do not tell. Behind layers of many channels it is small, behind 24 it is not.
    """
    if not x.mask and np.any(x.noise):
        call.rough()


@function("std", "var", "var_mean", "std_mean")
def deviation(call: Call) -> Any:
    """x.var(dim) and x.std(dim), run on samples: what they make of the data is of fourth order.

    Of a tensor that is too large for that: the mean square of what is left of x without the window's mean.
    """
    try:
        return by_samples(call)
    except Unrunnable:
        return _mean_square(call)


def _mean_square(call: Call) -> Any:
    dims, keepdim = _reduced(call)
    x, tied = call.x, call.ledger.tied
    call.rough()
    window = _positions(call, x, dims)
    middle = average(x, window, tied)
    y = average(through_centred(x, window), window, tied)
    if x.axis in dims:
        y, middle = _over_channels(y), _over_channels(middle)
    if call.name.startswith("std"):
        y = root(y, 0.5)
    y = _without(y, dims, keepdim)
    return (y, _without(middle, dims, keepdim)) if isinstance(call.value, (tuple, list)) else y


def through_centred(x: State, window: Sequence[int]) -> State:
    """(x - mean over the window)²: without what the window has in common, positions are less alike."""
    centre = float(x.counts @ x.train_mean / x.counts.sum())

    def apart(rho: Array) -> Array:
        common = float(mean_correlation(rho, window))
        return np.clip((rho - common) / max(1 - common, 1e-6), 0.0, 1.0)

    under = None if x.before_relu is None else replace(x.before_relu, rho=apart(x.before_relu.rho))
    return through(replace(x, rho=apart(x.rho), before_relu=under), lambda t: (t - centre) ** 2)


@function("norm", "vector_norm")
def norm_over(call: Call) -> State:
    """x.norm(p, dim): Lp pooling over the window; over channels too where they are among the dimensions."""
    order = call.arg(1, "p", call.kwargs.get("ord", 2))
    order = float(order) if isinstance(order, (int, float)) and math.isfinite(order) and order > 0 else 2.0
    dim = call.arg(2, "dim")
    rank = len(call.in_shape)
    dims = tuple(
        int(d) % rank
        for d in (dim if isinstance(dim, (tuple, list)) else range(rank) if dim is None else (dim,))
    )
    x, tied = call.x, call.ledger.tied
    _settled(call, x)
    window = _positions(call, x, dims)
    y = average(through(x, lambda t: t.abs() ** order), window, tied)
    count = math.prod(call.in_shape[d] for d in dims)
    if x.axis in dims:
        y = _over_channels(y)
    y = root(y.scaled(float(count)), 1 / order)
    return _without(y, dims, len(call.shape) == rank)
