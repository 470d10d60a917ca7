"""Correlation between positions, kept at the distances 1, 2, 4, …"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dropout_lint.prediction.quadrature import Array


@functools.lru_cache(maxsize=256)
def mean_correlation_weights(window: tuple[int, ...], lags: int) -> tuple[float, Array]:
    """Weights of `rho` in the mean correlation over all pairs of positions in `kernel_size`; first the
    pairs at distance 0.
    """
    offsets = [np.arange(-(n - 1), n) for n in window]
    shares = [(n - np.abs(o)) / n**2 for n, o in zip(window, offsets, strict=True)]
    square: Array = functools.reduce(np.add.outer, [o.astype(float) ** 2 for o in offsets], np.zeros(()))
    share: Array = functools.reduce(np.multiply.outer, shares, np.ones(()))
    distance, share = np.sqrt(square.ravel()), share.ravel()
    weights = np.zeros(lags)
    zero = float(share[distance == 0].sum())
    near = distance > 0
    place = np.clip(np.log2(distance[near]), 0, lags - 1)
    low = np.minimum(place.astype(int), lags - 2)
    np.add.at(weights, low, share[near] * (1 - (place - low)))
    np.add.at(weights, low + 1, share[near] * (place - low))
    return zero, weights


@functools.lru_cache(maxsize=256)
def _places(
    window: tuple[int, ...], lags: int, steps: tuple[int, ...] = (0,)
) -> tuple[npt.NDArray[np.bool_], Array]:
    """(steps, T, T) over pairs of a window's positions, the second of them moved on by a step: whether they
    are the same, and log2 of their distance. The first dimension is slowest.
    """
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in window), indexing="ij"), -1).reshape(-1, len(window))
    apart = np.repeat((grid[:, None] - grid[None])[None], len(steps), axis=0)
    apart[..., -1] += np.array(steps)[:, None, None]
    square = (apart**2).sum(-1)
    return square == 0, np.clip(np.log2(np.maximum(square, 1)) / 2, 0, lags - 1)


def _at(rho: Array, same: npt.NDArray[np.bool_], place: Array) -> Array:
    result: Array = np.where(same, 1.0, at_places(rho, place))
    return result


def between(rho: Array, window: tuple[int, ...]) -> Array:
    """(T, T) correlation between the positions of a window."""
    result: Array = _at(rho, *_places(window, len(rho)))[0]
    return result


def at_places(rho: Array, place: Array) -> Array:
    """`rho` at places between the distances that it is kept at; beyond the last one as there."""
    last = rho.shape[-1] - 1
    low = np.minimum(place.astype(int), last)
    before, after = rho[..., low], rho[..., np.minimum(low + 1, last)]
    result: Array = (after - before) * (place - low) + before
    return result


MOST_SIDE = 7
"""Largest side of a kernel whose positions `whitened` goes through."""


def whitened(rho: Array, window: tuple[int, ...], channel_spread: float | Array) -> Array:
    """Correlation behind a weight layer whose outputs a norm has divided by their own deviation.

    With C₀ and C_d the inputs' covariances over the kernel's positions, at one place and d further on, an
    output's variance is wᵀC₀w and its covariance wᵀC_d w. Filters that tell neighbours apart have a small
    variance and little correlation, and the norm makes them as loud as the others. To second order,

        E[wᵀC_d w / wᵀC₀w] = ρ_d·(1 + u) - u·tr(C_d C₀)/tr(C₀²),   u the relative variance of wᵀC₀w
    """
    sides = tuple(min(int(n), MOST_SIDE) for n in window if n > 1)
    if not sides or not np.any(channel_spread):
        return rho
    lags, spread = rho.shape[-1], np.asarray(channel_spread)[..., None]
    steps = (0, *(2**j for j in range(lags)))
    covariances = _at(rho, *_places(sides, lags, steps)).reshape(-1, len(steps), math.prod(sides) ** 2)
    traces = np.array([each @ each[0] for each in covariances]).reshape(*rho.shape[:-1], -1)
    result: Array = np.clip(rho * (1 + spread) - spread * traces[..., 1:] / traces[..., :1], rho**2, rho)
    return result


def mean_correlation(rho: Array, window: Sequence[int]) -> Any:
    """Mean correlation over all pairs of positions in a window, each with itself included."""
    capped = tuple(min(int(n), 64) for n in window if n > 1)
    if not capped:
        return 1.0
    zero, weights = mean_correlation_weights(capped, rho.shape[-1])
    return zero + rho @ weights


def strided(rho: Array, step: float) -> Array:
    """Correlations after a stride: distance 2^j in the result is step·2^j in the input."""
    places: Array = np.arange(float(rho.shape[-1])) + math.log2(step)
    return at_places(rho, places)
