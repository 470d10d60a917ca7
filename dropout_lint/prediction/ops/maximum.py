"""The largest of several values: of a window's positions, or of the channels.

Split the variance into a part that the window's positions share (var S) and one that they don't (var
I); then max = S + max of n independent values: mean + e_n·√(var I), variance var S + d_n·var I, with e_n and
d_n mean and variance of the largest of n standard normals. Noise keeps its share of either part. Values that
a mask or an activation has made far from normal go by their distribution function instead (`_largest`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dropout_lint.prediction.correlation import mean_correlation, strided
from dropout_lint.prediction.ops.dropout import Sources, noise_pair
from dropout_lint.prediction.parts import Normals, quotient, replace
from dropout_lint.prediction.quadrature import Array, normal_cdf, rectified
from dropout_lint.prediction.state import MOMENTS_ALONE, State


@functools.lru_cache(maxsize=256)
def largest_of(n: int) -> tuple[float, float]:
    """Mean and variance of the largest of n standard normals, by integrating its distribution function."""
    z = np.linspace(-9, 9, 3601)
    density = np.diff(normal_cdf(z) ** n)
    middle = (z[1:] + z[:-1]) / 2
    mean = float(density @ middle)
    return mean, float(density @ (middle - mean) ** 2)


def maximum(x: State, window: Sequence[int], stride: int, tied: Sources) -> State:
    """Largest value in a window of positions."""
    n = math.prod(window)
    if n <= 1:
        return x
    rho = strided(x.rho, stride) if stride > 1 else x.rho
    parts = rectified_parts(x)
    if parts is not None:
        return replace(_largest(x, parts, window, tied, rectify=True), rho=rho)
    if x.mask == "element" and x.components > 1:
        parts = Normals(x.mean, x.dev, x.var, x.sig**2, x.t_mean, x.t_dev, x.t_var, x.rho)
        return replace(_largest(x, parts, window, tied, rectify=False), rho=rho)
    if x.mask not in ("sample", "channel"):
        x = x.collapse()
    e, d = largest_of(min(n, 4096))
    pair = (mean_correlation(x.rho, window) * n - 1) / (n - 1)
    channel_correlation = noise_pair(x, pair, tied)
    total = x.noise.sum(0)
    held = quotient((x.noise * channel_correlation).sum(0), total)
    noise = np.maximum(x.var - x.sig**2, 0.0)
    same, free = x.sig**2 * pair + noise * held, x.sig**2 * (1 - pair) + noise * (1 - held)
    return replace(
        x,
        t_mean=x.t_mean + e * np.sqrt(x.t_var * (1 - pair)),
        t_var=x.t_var * (pair + d * (1 - pair)),
        mean=x.mean + e * np.sqrt(free),
        var=same + d * free,
        sig=x.sig * math.sqrt(pair + (1 - pair) * d),
        data=x.data * (pair + (1 - pair) * d),
        noise=x.noise * (channel_correlation + (1 - channel_correlation) * d),
        rho=rho,
        skew=None,
        energy_slope=None,
        from_weight_layer=False,
    ).balanced()


_SHARED, _SHARED_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_SHARED_WEIGHTS = _SHARED_WEIGHTS / _SHARED_WEIGHTS.sum()
_DEV, _DEV_WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_DEV_WEIGHTS = _DEV_WEIGHTS / _DEV_WEIGHTS.sum()
_STEPS = np.linspace(0.0, 1.0, 97)
Split = tuple[Array, Array, Array, Array]


def _largest(x: State, u: Normals, window: Sequence[int], tied: Sources, *, rectify: bool) -> State:
    """Largest of n values f(v), f ReLU or nothing, v a mixture of normals with a part that the window shares.

    Given the shared part, P(largest ≤ t) = (Σ_j π_j P(f(v_j) ≤ t))ⁿ, and the moments of the largest are
    ∫(1 - Pⁿ)dt and ∫2t(1 - Pⁿ)dt. One element mask for each position is in the sum; a mask that the whole
    window shares (Dropout2d, DropPath) stays outside: its components are worked out one by one.
    """
    n = math.prod(window)
    pair = (mean_correlation(u.rho, window) * n - 1) / (n - 1)
    apart = x.mask in ("sample", "channel") or x.components == 1
    total = x.noise.sum(0)
    channel_correlation = (x.noise * noise_pair(x, pair, tied)).sum(0)
    held = quotient(channel_correlation, total) if apart else np.zeros_like(total)
    extra = np.maximum(u.var - u.sig2, 0.0)
    same, free = u.sig2 * pair + extra * held, u.sig2 * (1 - pair) + extra * (1 - held)
    one = np.ones(1)
    test = _over_channels_mean(
        one, u.t_mean[None], u.t_dev[None], u.t_var[None] * pair, u.t_var[None] * (1 - pair), n, rectify
    )
    of_shared = quotient(u.sig2 * pair, same, 1.0)
    if apart:
        rows = [
            _over_channels_mean(
                one, u.mean[k : k + 1], u.dev[k : k + 1], same[k : k + 1], free[k : k + 1], n, rectify
            )
            for k in range(len(u.mean))
        ]
        mean, dev, var, common = (np.stack([row[i] for row in rows]) for i in range(4))
        # the shared part holds data and noise, and so does the rest, in the proportion of the input
        share = quotient(u.sig2 * (1 - pair), free, 1.0)
    else:
        mean, dev, var, common = (
            row[None] for row in _over_channels_mean(x.prob, u.mean, u.dev, same, free, n, rectify)
        )
        loose = np.maximum(x.train_var - x.data * pair, 1e-30)
        share, of_shared = np.clip(x.data * (1 - pair) / loose, 0.0, 1.0), np.ones(1)
        x = x.collapse()
    sig2 = common * of_shared + np.maximum(var - common, 0.0) * share
    return replace(
        x,
        t_mean=test[0],
        t_dev=test[1],
        t_var=test[2],
        mean=mean,
        dev=dev,
        var=var,
        sig=np.sqrt(sig2),
        data=(x.prob @ np.sqrt(sig2)) ** 2,
        **MOMENTS_ALONE,
        from_weight_layer=False,
    ).balanced()


def _over_channels_mean(  # noqa: PLR0917 - those of `_moments`, and the spread
    prob: Array, mean: Array, dev: Array, same: Array, free: Array, n: int, rectify: bool
) -> Split:
    """`_moments` where the channels' means are spread by `dev`: mean, its spread, variance, shared part."""
    if not np.any(dev):
        first, var, common = _moments(prob, mean, same, free, n, rectify)
        return first, np.zeros_like(first), var, common
    parts = [_moments(prob, mean + dev * z, same, free, n, rectify) for z in _DEV]
    means, var, common = (np.stack([p[i] for p in parts]) for i in range(3))
    first = _DEV_WEIGHTS @ means
    spread = np.sqrt(np.maximum(_DEV_WEIGHTS @ (means - first) ** 2, 0.0))
    sign = np.where(prob @ dev < 0, -1.0, 1.0)
    return first, sign * spread, _DEV_WEIGHTS @ var, _DEV_WEIGHTS @ common


def _moments(  # noqa: PLR0917 - the moments of a mixture, and how many are compared
    prob: Array, mean: Array, same: Array, free: Array, n: int, rectify: bool
) -> tuple[Array, Array, Array]:
    """(G,) mean and variance of the largest, and the part of the variance that the shared part causes; the
    arguments are (K, G).
    """
    reach = 6 * np.sqrt(same + free) + 1e-9
    top = np.maximum(mean, 0.0 if rectify else -np.inf) + reach
    high = top.max(0)
    low = np.zeros_like(high) if rectify else (mean - reach).min(0)
    t = low[:, None] + (high - low)[:, None] * _STEPS
    centre = mean[..., None] + np.sqrt(same)[..., None] * _SHARED  # (K, G, Q)
    scale = np.maximum(np.sqrt(free), 1e-9 * (high - low) + 1e-30)[..., None, None]
    below = np.zeros((len(high), len(_SHARED), len(_STEPS)))
    for weight, middle, width in zip(prob, centre, scale, strict=True):
        below += weight * normal_cdf((t[:, None, :] - middle[..., None]) / width)
    above = 1 - np.clip(below, 0.0, 1.0) ** n
    first = low[:, None] + np.trapezoid(above, t[:, None, :], axis=2)
    second = (low**2)[:, None] + np.trapezoid(2 * t[:, None, :] * above, t[:, None, :], axis=2)
    overall = first @ _SHARED_WEIGHTS
    common = ((first - overall[:, None]) ** 2) @ _SHARED_WEIGHTS
    return overall, np.maximum(second @ _SHARED_WEIGHTS - overall**2, 0.0), common


ONE_SIDED = 0.3
"""Least mean/sd of all channels at which a tensor counts as the output of a one-sided activation: GELU of
N(0, 1) has 0.48, SiLU 0.37; behind a norm or a weight layer means are 0 or of both signs.
"""
_RATIO = np.linspace(-4.0, 6.0, 401)


@functools.cache
def _ratio_of_rectified() -> tuple[Array, Array, Array]:
    """For ReLU of N(t, 1), t in `_RATIO`: mean over sd, variance, share of the first order in it."""
    mean, var, linear, *_ = rectified()(_RATIO, np.ones_like(_RATIO))
    return mean / np.sqrt(var), var, linear**2 / var


def _undone(r: Any, s: Any) -> Array:
    """r' with s·r' + (1 - s)·r'² = r."""
    gap = np.maximum(1 - s, 1e-6)
    result: Array = (np.sqrt(s**2 + 4 * gap * np.clip(r, 0.0, 1.0)) - s) / (2 * gap)
    return result


def rectified_parts(x: State) -> Normals | None:
    """The normals whose ReLU `x` is, or is much like; None where it is no output of a one-sided activation.

    Where only the moments are known, as behind GELU, SiLU or leaky ReLU, the ReLU of N(t, 1)·σ with the same
    mean and variance stands for x: t from mean/sd, σ from the variance. It has the long right tail that
    decides about the largest of n values.
    """
    u = x.before_relu
    if u is not None and (x.components == 1 or x.levels):
        column = np.array(x.levels if x.components > 1 else (1.0,))[:, None]
        return Normals(
            u.mean * column, u.dev * column, u.var * column**2, u.sig2 * column**2,
            u.t_mean, u.t_dev, u.t_var, u.rho,
        )  # fmt: skip
    sd = np.sqrt(x.t_var + x.t_dev**2)
    if not np.all(x.t_var > 0) or np.mean(x.t_mean > ONE_SIDED * sd) < 0.95:
        return None
    return like_rectified(x)


def like_rectified(x: State) -> Normals:
    """The normals whose ReLU has the moments of `x`, of one-sided values."""
    ratio, variance, first = _ratio_of_rectified()

    def inverse(mean: Array, var: Array) -> tuple[Array, Array, Array, Array]:
        """Mean and variance of the normal, share of the first order, slope."""
        t = np.interp(mean / np.sqrt(np.maximum(var, 1e-300)), ratio, _RATIO)
        square = var / np.interp(t, _RATIO, variance)
        share = np.interp(t, _RATIO, first)
        still = var <= 1e-12 * (1 + mean**2)  # a constant: nothing to be undone
        slope = np.sqrt(share * np.interp(t, _RATIO, variance))
        return np.where(still, mean, t * np.sqrt(square)), square, share, np.where(still, 1.0, slope)

    mean, var, share, slope = inverse(x.mean, x.var)
    t_mean, t_var, t_share, t_slope = inverse(x.t_mean, x.t_var)
    part = quotient(x.sig**2, x.var, 1.0)
    rho = _undone(x.rho, float(t_share.mean()))
    return Normals(
        mean, x.dev / np.maximum(slope, 0.1), var, var * _undone(part, share),
        t_mean, x.t_dev / np.maximum(t_slope, 0.1), t_var, rho,
    )  # fmt: skip


def largest_channel(x: State) -> State:
    """Largest over the channels, whose values are taken as independent and as one population."""
    if x.mask not in ("sample", "element"):
        x = replace(x.collapse(), before_relu=None)
    merged = replace(x.merged(), rho=np.zeros_like(x.rho), shared_by_positions=np.zeros((len(x.noise), 1)))
    merged = replace(
        merged,
        var=merged.var + merged.dev**2,
        sig=np.hypot(merged.sig, merged.dev),
        t_var=merged.t_var + merged.t_dev**2,
        data=merged.data + merged.train_dev**2,
        dev=np.zeros_like(merged.dev),
        t_dev=np.zeros(1),
        covariance_growth=None,
    )
    y = maximum(merged, [merged.channels], 1, np.zeros(len(x.noise), dtype=bool))
    return replace(y, counts=np.ones(1), rho=x.rho)
