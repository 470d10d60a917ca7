"""Moments of a pointwise function of a normal variable."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

PointFunction = Callable[[torch.Tensor], torch.Tensor]
Array = npt.NDArray[np.float64]
Moments = tuple[Array, Array, Array, Array]
"""E[f], Var[f] and the Hermite coefficients a₁ = E[f·z] = σ·E[f'] and a₂ = E[f·(z² - 1)]/√2 (z the
standardised input), arrays of one shape. Var[f] = Σ a_j², and f of two inputs that correlate by r has the
covariance Σ a_j² r^j.
"""
MomentFunction = Callable[[Array, Array], Moments]
"""(mean, variance) of the input → `Moments` of the output."""

SQRT_2 = math.sqrt(2)
SQRT_2PI = math.sqrt(2 * math.pi)


@functools.cache
def _panels(edge: float = 10.0, order: int = 40) -> tuple[Array, Array]:
    """Nodes and weights of Gauss-Legendre panels between integers, so that kinks at integers cost nothing."""
    x, w = np.polynomial.legendre.leggauss(order)
    knots = np.arange(-edge, edge + 1)
    nodes = ((knots[1:] + knots[:-1])[:, None] / 2 + x[None] / 2).ravel()
    weights = np.tile(w / 2, len(knots) - 1) * np.exp(-(nodes**2) / 2) / SQRT_2PI
    return nodes, weights


def standard_normal_moments(function: PointFunction) -> tuple[float, float]:
    """E[f(z)] and E[f(z)²] for z ~ N(0, 1), to about ten digits where kinks lie at integers."""
    nodes, weights = _panels()
    values = function(torch.from_numpy(nodes)).detach().numpy()
    return float(weights @ values), float(weights @ values**2)


def derivative_energy(function: PointFunction) -> float:
    """E[f'(z)²] for z ~ N(0, 1), with f' by automatic differentiation."""
    nodes, weights = _panels()
    points = torch.from_numpy(nodes.copy()).requires_grad_()
    (slope,) = torch.autograd.grad(function(points).sum(), points)
    return float(weights @ slope.numpy() ** 2)


@functools.lru_cache(maxsize=8)
def _grid(points: int = 65, edge: float = 6.0) -> tuple[Array, Array]:
    """Trapezoid rule against the normal density: converges exponentially for smooth functions."""
    z = np.linspace(-edge, edge, points)
    w = np.exp(-(z**2) / 2)
    return z, w / w.sum()


MANY = 256
"""Above this number of normals a coarser grid will do: errors at kinks average out over them."""


def moments_by_quadrature(function: PointFunction) -> MomentFunction:
    """`MomentFunction` of any pointwise function.

    E[f(m + σz)ⁿ] is a weighted sum over a fixed grid in z, and so are the Hermite coefficients (Stein's
    lemma gives a₁ as σ·E[f'], but no derivative is needed here).
    """

    def moments(mean: Array, variance: Array) -> Moments:
        many = mean.size > MANY
        z, w = _grid(33) if many else _grid()
        points = mean[..., None] + np.sqrt(np.maximum(variance, 0.0))[..., None] * z
        with torch.no_grad():
            given = torch.from_numpy(points.astype(np.float32 if many else np.float64))
            values = function(given).numpy()
        if not np.isfinite(values).all():
            values = np.nan_to_num(values)
        first = values @ w
        centred = values - first[..., None]
        variance_out = np.einsum("...z,...z,z->...", centred, centred, w)
        return first, variance_out, centred @ (w * z), centred @ (w * (z**2 - 1)) / SQRT_2

    return moments


def logarithm(shift: float = 0.0) -> MomentFunction:
    """Of log(x + shift): what a network takes logarithms of is positive, and is taken as log-normal.

    With s² = log(1 + σ²/m²):  E = log m - s²/2,  Var = s²,  Cov(x, log x) = m·s².
    """

    def moments(mean: Array, variance: Array) -> Moments:
        m, v = np.maximum(mean + shift, 1e-6), np.maximum(variance, 1e-300)
        square = np.log1p(v / m**2)
        linear = m * square / np.sqrt(v)
        rest = np.sqrt(np.maximum(square - linear**2, 0.0))
        return np.log(m) - square / 2, square, linear, rest

    return moments


def normal_cdf(x: Array) -> Array:
    """Φ(x)."""
    result: Any = torch.special.ndtr(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    return np.asarray(result, dtype=np.float64)


def rectified(slope: float = 0.0) -> MomentFunction:
    """Closed form for ReLU and leaky ReLU, f(x) = x for x > 0 and slope·x below.

    With t = m/σ:  E[x⁺] = mΦ(t) + σφ(t),  E[(x⁺)²] = (m² + σ²)Φ(t) + mσφ(t),  E[f'] = Φ(t) + slope·Φ(-t);
    a₂ = σ(1 - slope)φ(t)/√2; the negative part is the same with m → -m. At m = 0 these are Kim Eq. 12 and 13.
    """

    def moments(mean: Array, variance: Array) -> Moments:
        sigma = np.sqrt(np.maximum(variance, 1e-300))
        t = mean / sigma
        density = sigma * np.exp(-np.minimum(t * t, 1400.0) / 2) / SQRT_2PI
        above = normal_cdf(t)
        first = mean * above + density
        second = (mean**2 + variance) * above + mean * density
        gain = above
        if slope:
            below = 1 - above
            first = first + slope * (mean * below - density)
            second = second + slope**2 * ((mean**2 + variance) * below - mean * density)
            gain = above + slope * below
        a1 = gain * np.sqrt(np.maximum(variance, 0.0))
        return first, np.maximum(second - first**2, 0.0), a1, (1 - slope) * density / SQRT_2

    return moments


def rectified_skewness(mean: Array, variance: Array) -> Array:
    """Skewness of max(x, 0), x normal: E[(x⁺)³] = σ³((t³ + 3t)Φ(t) + (t² + 2)φ(t)), t = m/σ."""
    t = mean / np.sqrt(np.maximum(variance, 1e-300))
    t = np.clip(t, -4.0, 8.0)
    density, above = np.exp(-(t**2) / 2) / SQRT_2PI, normal_cdf(t)
    first, second = t * above + density, (t**2 + 1) * above + t * density
    third = (t**3 + 3 * t) * above + (t**2 + 2) * density
    spread = np.maximum(second - first**2, 1e-12)
    result: Array = (third - 3 * first * second + 2 * first**3) / spread**1.5
    return result


_BEND = np.linspace(-0.7, 0.7, 281)
_SKEW_OF_BEND = (6 * _BEND + 8 * _BEND**3) / (1 + 2 * _BEND**2) ** 1.5


def skewed_nodes(skew: Array) -> tuple[Array, Array]:
    """Standardised values of the given skewness at fixed quantiles: h(z) = (z + b(z² - 1))/√(1 + 2b²).

    z is standard normal and the skewness of h is (6b + 8b³)/(1 + 2b²)^1.5, which is solved for b (|b| ≤ 0.7).

    Returns:
        h, (…, points), and their weights, (points,).
    """
    z, w = _grid(33)
    bend = np.interp(skew, _SKEW_OF_BEND, _BEND)[..., None]
    return (z + bend * (z**2 - 1)) / np.sqrt(1 + 2 * bend**2), w


def skewed_rectified(mean: Array, variance: Array, skew: Array) -> tuple[Array, Array, Array, Array]:
    """ReLU of a skewed variable: mean, variance, covariance with the standardised input, skewness."""
    h, w = skewed_nodes(skew)
    values = np.maximum(mean[..., None] + np.sqrt(np.maximum(variance, 0.0))[..., None] * h, 0.0)
    first = values @ w
    centred = values - first[..., None]
    square = centred**2
    second = square @ w
    return first, second, (centred * h) @ w, (square * centred) @ w / np.maximum(second, 1e-30) ** 1.5


def noisy_rectified(mean: Array, signal: Array, noise: Array, skew: Array) -> tuple[Array, Array]:
    """ReLU of a signal of the given skewness with normal noise: the variance that the signal causes, and the
    part of it that is linear in the signal.

    The noise is averaged over in closed form, E[(s + n)⁺] = sΦ(s/σ) + σφ(s/σ), then the signal by quadrature.
    """
    h, w = skewed_nodes(skew)
    values = mean[..., None] + np.sqrt(np.maximum(signal, 0.0))[..., None] * h
    given = rectified()(values, np.broadcast_to(noise[..., None], values.shape))[0]
    centred = given - (given @ w)[..., None]
    return centred**2 @ w, ((centred * h) @ w) ** 2
