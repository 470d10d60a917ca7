"""Pooling over positions.

Average. Over n positions, noise of separate masks falls to 1/n, noise of a mask that a whole channel or sample shares
stays (Kim Prop. 5 and its converse for Dropout2d), and the data part falls to its mean pair correlation in the window.

Maximum. Split the variance into a part that the window's positions share (var S) and one that they don't (var I); then
max = S + max of n independent values: mean + e_n·√(var I), variance var S + d_n·var I, with e_n and d_n mean and
variance of the largest of n standard normals. Noise keeps its share of either part.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dropout_lint.noise.quadrature import Array, normal_cdf
from dropout_lint.noise.state import State
from dropout_lint.noise.transfer.base import Call, function, module
from dropout_lint.noise.transfer.linear import strided


@functools.lru_cache(maxsize=256)
def mean_correlation_weights(window: tuple[int, ...], lags: int) -> tuple[float, Array]:
    """Weights of `rho` in the mean correlation over all pairs of positions in `window`; first the pairs at distance 0."""
    offsets = [np.arange(-(n - 1), n) for n in window]
    shares = [(n - np.abs(o)) / n**2 for n, o in zip(window, offsets, strict=True)]
    square = functools.reduce(np.add.outer, [o.astype(float) ** 2 for o in offsets], np.zeros(()))
    share = functools.reduce(np.multiply.outer, shares, np.ones(()))
    distance, share = np.sqrt(square).ravel(), share.ravel()
    weights = np.zeros(lags)
    zero = float(share[distance == 0].sum())
    near = distance > 0
    place = np.clip(np.log2(distance[near]), 0, lags - 1)
    low = np.minimum(place.astype(int), lags - 2)
    np.add.at(weights, low, share[near] * (1 - (place - low)))
    np.add.at(weights, low + 1, share[near] * (place - low))
    return zero, weights


def mean_correlation(rho: Array, window: Sequence[int]) -> float:
    """Mean correlation over all pairs of positions in a window, each with itself included."""
    capped = tuple(min(int(n), 64) for n in window if n > 1)
    if not capped:
        return 1.0
    zero, weights = mean_correlation_weights(capped, len(rho))
    return float(zero + weights @ rho)


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
    sig2 = x.sig**2 * keep
    rho = strided(x.rho, max(window)) if len(window) else x.rho
    return replace(
        x,
        t_var=x.t_var * keep,
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
@function(*(f"{kind}max_pool{d}d{tail}" for d in "123" for kind in ("", "adaptive_") for tail in ("", "_with_indices")))
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
    y = average(x, window) if 0 not in dims else average(x, [n for d, n in zip(dims, window, strict=False) if d])
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
    window = [shape[d] for d in dims if d != x.axis and d != 0]
    y = maximum(x, window, 1) if window else x
    if x.axis in dims:
        y = y.collapse().merged()
        y = replace(y, counts=np.ones(1))
    y = _without(y, dims, keepdim)
    return (y, call.state(0)) if isinstance(call.value, (tuple, list)) else y


@function("std", "var")
def spread_over(call: Call) -> State:
    """x.std(dim): a non-negative statistic of the window; its noise share is the input's, averaged over the window."""
    dims, keepdim = _reduced(call)
    x = call.x
    y = average(x, [call.in_shape[d] for d in dims if d not in (x.axis, 0)])
    return _without(y, dims, keepdim)
