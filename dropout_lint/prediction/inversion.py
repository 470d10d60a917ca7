"""From the moments behind a pointwise function to those of the normal variable before it."""

from __future__ import annotations

import functools

import numpy as np

from dropout_lint.prediction.quadrature import Array, MomentFunction

ROUNDS = 12
"""Newton steps for a function that is not positively homogeneous."""
FARTHEST = 30.0
"""Largest |mean| of the normal variable, in its standard deviations."""
RARE = -4.0
"""Least mean before a rectifier, in standard deviations: it passes one value in 30,000."""
LEAST_SLOPE = 0.003
"""A rectifier's slope below zero under which nothing is told of variables that lie there."""
TOLERANCE = 0.02
"""A solution counts where the function's mean and deviation come out as near as this, in deviations."""


def inverse(
    moments: MomentFunction, mean: Array, variance: Array, start: tuple[Array, Array]
) -> tuple[Array, Array]:
    """(G,) mean and variance of normal variables for which f has the given mean and variance.

    Where there is no such variable (or none is found), what `start` says stays.

    For f(mx) = m·f(x), m ≥ 0, the ratio E[f]/sd[f] depends on t = mean/sd of the variable alone: t is read
    off a table, and the scale follows. For any other f, by Newton's method from `start`.

    Args:
        moments: f's moments (`quadrature`).
        mean, variance: (G,) wanted behind f.
        start: (G,) mean and variance before f that are near to the solution.
    """
    wanted = np.sqrt(np.maximum(variance, 1e-24))
    if is_homogeneous(moments):
        ratios, places, deviations = _table(moments)
        if np.all(np.diff(ratios) > 0):
            t = np.interp(mean / wanted, ratios, places)
            sigma = wanted / np.interp(t, places, deviations)
            return t * sigma, sigma**2
        return start
    return _newton(moments, mean, wanted, start)


@functools.lru_cache(maxsize=64)
def is_homogeneous(moments: MomentFunction) -> bool:
    """Whether f(mx) = m·f(x) for m > 0, as far as its moments tell."""
    points, one = np.array([-1.5, -0.3, 0.4, 1.2]), np.ones(4)
    first, variance, _, _ = moments(points, one)
    double, fourfold, _, _ = moments(2 * points, 4 * one)
    return bool(np.allclose(double, 2 * first, rtol=1e-6) and np.allclose(fourfold, 4 * variance, rtol=1e-6))


@functools.lru_cache(maxsize=64)
def _table(moments: MomentFunction) -> tuple[Array, Array, Array]:
    """E[f]/sd[f], t and sd[f] for variables of mean t and variance 1."""
    far = np.linspace(-FARTHEST, RARE, 97)[:-1]
    places = np.concatenate([far, np.linspace(RARE, -RARE, 401), -far[::-1]])
    first, variance, _, _ = moments(places, np.ones_like(places))
    deviations = np.sqrt(np.maximum(variance, 1e-24))
    passed = (places >= RARE) | (deviations > LEAST_SLOPE)
    ratios: Array = first / deviations
    return ratios[passed], places[passed], deviations[passed]


def _newton(
    moments: MomentFunction, mean: Array, wanted: Array, start: tuple[Array, Array]
) -> tuple[Array, Array]:
    """In the variable's mean and the log of its deviation, with derivatives by differences."""
    m, s = start[0].copy(), 0.5 * np.log(np.maximum(start[1], 1e-24))
    log_wanted = np.log(wanted)

    def misses(m: Array, s: Array) -> tuple[Array, Array]:
        first, variance, _, _ = moments(m, np.exp(2 * s))
        return (first - mean) / wanted, 0.5 * np.log(np.maximum(variance, 1e-24)) - log_wanted

    a, b = misses(m, s)
    for _ in range(ROUNDS):
        sigma, h = np.exp(s), 1e-3
        am, bm = misses(m + h * sigma, s)
        as_, bs = misses(m, s + h)
        am, bm, as_, bs = (am - a) / h, (bm - b) / h, (as_ - a) / h, (bs - b) / h
        det = am * bs - as_ * bm
        usable = np.abs(det) > 1e-9
        det = np.where(usable, det, 1.0)
        step_m = np.where(usable, np.clip((a * bs - b * as_) / det, -1.0, 1.0), 0.0)
        step_s = np.where(usable, np.clip((b * am - a * bm) / det, -0.7, 0.7), 0.0)
        next_m, next_s = m - step_m * sigma, s - step_s
        next_a, next_b = misses(next_m, next_s)
        better = next_a**2 + next_b**2 < a**2 + b**2
        m, s = np.where(better, next_m, m - 0.3 * step_m * sigma), np.where(better, next_s, s - 0.3 * step_s)
        a, b = misses(m, s)
        if np.all(np.abs(a) + np.abs(b) < 1e-4):
            break
    found = np.abs(a) + np.abs(b) < TOLERANCE
    return np.where(found, m, start[0]), np.where(found, np.exp(2 * s), start[1])
