"""Correlation between positions, kept at the distances 1, 2, 4, …"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from dropout_lint.noise.quadrature import Array


@functools.lru_cache(maxsize=256)
def mean_correlation_weights(window: tuple[int, ...], lags: int) -> tuple[float, Array]:
    """Weights of `rho` in the mean correlation over all pairs of positions in `window`; first the pairs at
    distance 0.
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


def mean_correlation(rho: Array, window: Sequence[int]) -> float:
    """Mean correlation over all pairs of positions in a window, each with itself included."""
    capped = tuple(min(int(n), 64) for n in window if n > 1)
    if not capped:
        return 1.0
    zero, weights = mean_correlation_weights(capped, len(rho))
    return float(zero + weights @ rho)


def strided(rho: Array, step: float) -> Array:
    """Correlations after a stride: distance 2^j in the result is step·2^j in the input."""
    places = np.arange(len(rho)) + math.log2(step)
    result: Array = np.interp(places, np.arange(len(rho)), rho)
    return result
