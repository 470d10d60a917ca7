"""Pooling over positions.

Average. Over n positions, noise of separate masks falls to 1/n, noise of a mask that a whole channel or
sample shares stays (Kim Prop. 5 and its converse for Dropout2d), and the data part falls to its mean pair
correlation in the window.

Maximum. Split the variance into a part that the window's positions share (var S) and one that they don't (var
I); then max = S + max of n independent values: mean + e_n·√(var I), variance var S + d_n·var I, with e_n and
d_n mean and variance of the largest of n standard normals. Noise keeps its share of either part.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dropout_lint.noise.correlation import mean_correlation, strided
from dropout_lint.noise.quadrature import Array, normal_cdf
from dropout_lint.noise.state import State, Underlying, replace
from dropout_lint.noise.transfer.base import Call, function, module


def average(x: State, window: Sequence[int]) -> State:
    """Mean over a window of positions."""
    n = math.prod(window)
    if n <= 1:
        return x
    if x.mask not in ("sample", "channel"):
        x = x.collapse()
    return averaged(x, mean_correlation(x.rho, window), n, [size for size in window if size > 1])


def averaged(x: State, keep: float, n: float, window: Sequence[int] = ()) -> State:
    """Mean over `n` positions of which the data part keeps `keep`."""
    loose = x.shared + (1 - x.shared) / n
    noise = x.noise * loose
    total, left = x.noise.sum(0), noise.sum(0)
    fade = np.divide(left, total, out=np.ones_like(total), where=total > 0)
    x = replace(x, under=None, skew=None)
    sig2 = x.sig**2 * keep
    alone = min(1 / n, keep)  # the rest is covariance of positions, whose test/train ratio is `lift`
    rho = strided(x.rho, max(window)) if len(window) else x.rho
    return replace(
        x,
        t_var=x.t_var * alone + x.lifted * x.data * (keep - alone),
        sig=np.sqrt(sig2),
        var=sig2 + np.maximum(x.var - x.sig**2, 0.0) * fade,
        data=x.data * keep,
        noise=noise,
        shared=np.divide(x.noise * x.shared, noise, out=np.zeros_like(noise), where=noise > 0),
        rho=np.clip(rho / max(keep, 1e-9) if len(window) else rho, 0.0, 1.0) if keep > 0 else rho,
    )


@functools.lru_cache(maxsize=256)
def largest_of(n: int) -> tuple[float, float]:
    """Mean and variance of the largest of n standard normals, by integrating its distribution function."""
    z = np.linspace(-9, 9, 3601)
    density = np.diff(normal_cdf(z) ** n)
    middle = (z[1:] + z[:-1]) / 2
    mean = float(density @ middle)
    return mean, float(density @ (middle - mean) ** 2)


def maximum(x: State, window: Sequence[int], stride: int) -> State:
    """Largest value in a window of positions."""
    n = math.prod(window)
    if n <= 1:
        return x
    if x.under is not None:
        return _largest_rectified(x, x.under, window, stride)
    if x.mask not in ("sample", "channel"):
        x = x.collapse()
    e, d = largest_of(min(n, 4096))
    pair = (mean_correlation(x.rho, window) * n - 1) / (n - 1)
    total = x.noise.sum(0)
    tied = np.divide((x.noise * x.shared).sum(0), total, out=np.zeros_like(total), where=total > 0)

    def parts(sig2: Array, noise: Array) -> tuple[Array, Array]:
        return sig2 * pair + noise * tied, sig2 * (1 - pair) + noise * (1 - tied)

    noise = np.maximum(x.var - x.sig**2, 0.0)
    same, free = parts(x.sig**2, noise)
    t_same, t_free = parts(x.t_var, np.zeros_like(x.t_var))
    sig2 = x.sig**2 * (pair + (1 - pair) * d)
    spread = tied + (1 - tied) * d
    return replace(
        x,
        t_mean=x.t_mean + e * np.sqrt(t_free),
        t_var=t_same + d * t_free,
        mean=x.mean + e * np.sqrt(free),
        var=same + d * free,
        sig=np.sqrt(sig2),
        data=x.data * (pair + (1 - pair) * d),
        noise=x.noise * spread,
        rho=strided(x.rho, stride) if stride > 1 else x.rho,
    ).balanced()


_SHARED, _SHARED_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_SHARED_WEIGHTS = _SHARED_WEIGHTS / _SHARED_WEIGHTS.sum()
_STEPS = np.linspace(0.0, 1.0, 65)


def _largest_rectified(x: State, u: Underlying, window: Sequence[int], stride: int) -> State:
    """Largest of n values mask·ReLU(v), v normal with a part that the window shares.

    Given the shared part, P(largest ≤ t) = (Σ_j π_j P(level_j·ReLU(v) ≤ t))ⁿ, and the moments of the largest
    are ∫(1 - Pⁿ)dt and ∫2t(1 - Pⁿ)dt. One element mask for each position is in the sum; a mask that the whole
    window shares (Dropout2d, DropPath) stays outside: its components are worked out one by one.
    """
    n = math.prod(window)
    pair = (mean_correlation(u.rho, window) * n - 1) / (n - 1)
    levels = x.levels if x.components > 1 and x.levels else (1.0,)
    spread = u.dev**2  # channels differ in their mean; taken as one more part that the window shares
    test_same, test_free = u.t_var * pair + u.t_dev**2, u.t_var * (1 - pair)
    t_mean, t_var, _ = _rectified_moments(u.t_mean, test_same, test_free, np.ones(1), (1.0,), n)
    same, free = u.sig2 * pair + spread, u.sig2 * (1 - pair) + np.maximum(u.var - u.sig2, 0.0)
    together = x.mask in ("sample", "channel")
    if together or len(levels) == 1:
        parts = [_rectified_moments(u.mean, same, free, np.ones(1), (level,), n) for level in levels]
        mean, var = np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts])
        common = np.stack([p[2] for p in parts])
    else:
        one = _rectified_moments(u.mean, same, free, x.prob, levels, n)
        mean, var, common = one[0][None], one[1][None], one[2][None]
        x = x.collapse()
    # of what is not shared, the data have the part that they have in the input
    loose = np.maximum(x.train_var - x.data * pair, 1e-30)
    share = np.clip(x.data * (1 - pair) / loose, 0.0, 1.0)
    sig2 = common + (var - common) * share
    data = (x.prob @ np.sqrt(sig2)) ** 2
    return replace(
        x,
        t_mean=t_mean,
        t_dev=np.zeros_like(t_mean),
        t_var=t_var,
        mean=mean,
        dev=np.zeros_like(mean),
        var=var,
        sig=np.sqrt(sig2),
        data=data,
        levels=levels if together else (),
        under=None,
        lift=None,
        rho=strided(x.rho, stride) if stride > 1 else x.rho,
    ).balanced()


def _rectified_moments(  # noqa: PLR0917
    mean: Array, same: Array, free: Array, prob: Array, levels: tuple[float, ...], n: int
) -> tuple[Array, Array, Array]:
    """(G,) mean and variance of the largest, and the part of the variance that the shared part causes."""
    top = max(levels) * (np.maximum(mean, 0.0) + 6 * np.sqrt(same + free) + 1e-12)
    t = top[:, None] * _STEPS
    centre = mean[:, None] + np.sqrt(same)[:, None] * _SHARED  # (G, Q)
    scale = np.sqrt(np.maximum(free, 1e-30))[:, None, None]
    below = np.zeros((len(mean), len(_SHARED), len(_STEPS)))
    for weight, level in zip(prob, levels, strict=True):
        if level <= 0:
            below += weight
            continue
        below += weight * normal_cdf((t[:, None, :] / level - centre[..., None]) / scale)
    above = 1 - np.clip(below, 0.0, 1.0) ** n
    first = np.trapezoid(above, t[:, None, :], axis=2)
    second = np.trapezoid(2 * t[:, None, :] * above, t[:, None, :], axis=2)
    overall = first @ _SHARED_WEIGHTS
    common = ((first - overall[:, None]) ** 2) @ _SHARED_WEIGHTS
    return overall, np.maximum(second @ _SHARED_WEIGHTS - overall**2, 0.0), common


def _sizes(value: Any, dims: int) -> tuple[int, ...]:
    if isinstance(value, (tuple, list)):
        return tuple(int(v) for v in value) if len(value) == dims else (int(value[0]),) * dims
    return (int(value),) * dims


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
    window = _sizes(kernel, dims)
    stride = getattr(m, "stride", None) if m is not None else call.arg(2, "stride")
    return window, max(_sizes(stride, dims)) if stride else max(window)


@module("_AvgPoolNd", "_AdaptiveAvgPoolNd", "LPPool2d")
@function(*(f"{kind}avg_pool{d}d" for d in "123" for kind in ("", "adaptive_")))
def average_pool(call: Call) -> State:
    """Average pooling, adaptive ones included."""
    return average(call.x, _window(call)[0])


@module("_MaxPoolNd", "_AdaptiveMaxPoolNd", "FractionalMaxPool2d")
@function(
    *(
        f"{kind}max_pool{d}d{tail}"
        for d in "123"
        for kind in ("", "adaptive_")
        for tail in ("", "_with_indices")
    )
)
def max_pool(call: Call) -> Any:
    """Maximum pooling, adaptive ones included."""
    window, stride = _window(call)
    result = maximum(call.x, window, stride)
    return (result, call.state(0)) if isinstance(call.value, (tuple, list)) else result


def _reduced(call: Call) -> tuple[tuple[int, ...], bool]:
    dim = call.arg(1, "dim", call.kwargs.get("axis"))
    rank = len(call.in_shape)
    if dim is None or isinstance(dim, bool):
        dim = tuple(range(rank))
    dims = tuple(int(d) % rank for d in (dim if isinstance(dim, (tuple, list)) else (dim,))) if rank else ()
    return dims, bool(call.arg(2, "keepdim", False))


@function("mean", "sum", "nanmean")
def mean_over(call: Call) -> State:
    """x.mean(dim) and x.sum(dim): average pooling, and over channels a sum of independent values."""
    dims, keepdim = _reduced(call)
    x, shape = call.x, call.in_shape
    if not dims or not shape:
        return x
    window = [shape[d] for d in dims if d != x.axis]
    y = (
        average(x, window)
        if 0 not in dims
        else average(x, [n for d, n in zip(dims, window, strict=False) if d])
    )
    if x.axis in dims:
        y = _over_channels(y.collapse().merged())
    factor = math.prod(shape[d] for d in dims) if call.name == "sum" else 1.0
    return _without(y.scaled(float(factor)) if factor != 1 else y, dims, keepdim)


def _over_channels(x: State) -> State:
    n = x.channels
    return replace(
        x.scaled(1.0),
        counts=np.ones(1),
        t_var=x.t_var / n,
        var=x.var / n,
        sig=x.sig / math.sqrt(n),
        data=x.data / n,
        noise=x.noise / n,
        t_dev=x.t_dev / math.sqrt(n),
        dev=x.dev / math.sqrt(n),
    )


def _without(x: State, dims: tuple[int, ...], keepdim: bool) -> State:
    if keepdim:
        return x
    return replace(x, axis=max(x.axis - sum(d < x.axis for d in dims), 0))


@function("max", "amax", "min", "amin")
def max_over(call: Call) -> Any:
    """x.max(dim), x.amax(dim): maximum pooling; torch.max(a, b) of two tensors: the larger of two values."""
    states = call.states()
    if len(states) > 1:
        from dropout_lint.noise.transfer.merge import add

        return add(states[0], states[1]).scaled(0.5)
    dims, keepdim = _reduced(call)
    x, shape = call.x, call.in_shape
    window = [shape[d] for d in dims if d not in (x.axis, 0)]
    y = maximum(x, window, 1) if window else x
    if x.axis in dims:
        y = y.collapse().merged()
        y = replace(y, counts=np.ones(1))
    y = _without(y, dims, keepdim)
    return (y, call.state(0)) if isinstance(call.value, (tuple, list)) else y


@function("std", "var")
def spread_over(call: Call) -> State:
    """x.std(dim): a non-negative statistic of the window; its noise share is the input's, averaged over the
    window.
    """
    dims, keepdim = _reduced(call)
    x = call.x
    y = average(x, [call.in_shape[d] for d in dims if d not in (x.axis, 0)])
    return _without(y, dims, keepdim)
