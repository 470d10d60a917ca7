"""Softmax: e^x over the sum of all, which each mode takes of what it sees."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dropout_lint.prediction.ops.activation import pointwise
from dropout_lint.prediction.ops.base import Call, function, module
from dropout_lint.prediction.ops.few_values import MOST_SAMPLED, corrected, of_channels
from dropout_lint.prediction.ops.pairs import normalised
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.quadrature import Array, moments_by_quadrature
from dropout_lint.prediction.state import State

MANY = 16.0
"""A softmax whose weights effectively spread over more values than this divides by a nearly constant sum."""
MOST_EXPONENT = 20.0
"""e^x is taken up to here."""


def energy(x: State) -> Array:
    """(2,) mean E[x²] over the channels, in train and in test mode."""
    share = x.counts / x.counts.sum()
    train = (x.train_var + x.train_mean**2 + x.train_dev**2) @ share
    return np.array([train, (x.t_var + x.t_mean**2 + x.t_dev**2) @ share])


@function("softmax", "log_softmax", "softmin", "sparsemax")
@module("Softmax", "LogSoftmax", "Softmin", "Softmax2d")
def softmax(call: Call) -> State:
    """e^x over its mean, in each mode, and over L."""
    x, shape = call.x, call.shape
    dim = getattr(call.module, "dim", None) if call.module is not None else call.arg(1, "dim", -1)
    if call.name == "Softmax2d":
        dim = -3
    axis = int(dim) % len(shape) if isinstance(dim, int) and shape else max(len(shape) - 1, 0)
    length = shape[axis] if shape else 1
    if "in" in call.name:
        x = x.scaled(-1.0)
    if "log" in call.name.lower():
        return _sampled(x, _logarithm_by_moments, (axis,), length, lambda t: t - _largest(t) - _log_sum(t))
    return softmax_of(x, (axis,), length)


def _exponential(x: State) -> State:
    return pointwise(x, moments_by_quadrature(lambda t: t.clamp(max=MOST_EXPONENT).exp()))


def softmax_of(x: State, dims: tuple[int, ...], length: int) -> State:
    """Softmax of `x` over `dims`, which hold `length` values."""
    return _sampled(x, _softmax_by_moments, dims, length, lambda t: np.exp(t - _largest(t) - _log_sum(t)))


def _largest(t: Array) -> Array:
    result: Array = t.max(1, keepdims=True)
    return result


def _log_sum(t: Array) -> Array:
    """(rows, 1) log Σ e^(t - largest)."""
    result: Array = np.log(np.exp(t - _largest(t)).sum(1, keepdims=True))
    return result


def _sampled(
    x: State,
    by_moments: Callable[[State, tuple[int, ...], int], State],
    dims: tuple[int, ...],
    length: int,
    exactly: Callable[[Array], Array],
) -> State:
    """By moments, corrected by a sample where the sum is one of effectively few values."""
    y = by_moments(x, dims, length)
    if not np.any(x.noise) or length <= 1:
        return y
    length, whole = min(length, MOST_SAMPLED), length
    one_mask = x.mask == "sample" or (x.mask == "channel" and x.axis not in dims)
    spread = _softmax_by_moments(x.merged(), dims, length)
    crowd = length / (1 + length**2 * spread.train_var[0]), spread.positions_averaged
    if min(crowd) > MANY and not one_mask:
        return y
    if dims == (x.axis,) and x.groups > 1 and x.channels == whole == length:
        return of_channels(x.per_channel(), y.collapse().per_channel(), exactly, one_mask=one_mask)
    typical = by_moments(x.merged(), dims, length).collapse()
    return corrected(x, y.collapse(), typical, length, 0.0, exactly, one_mask=one_mask)


def _logarithm_by_moments(x: State, dims: tuple[int, ...], length: int) -> State:
    """The logarithm shifts x by that of the mean of e^x."""
    e = _exponential(x)
    share = e.counts / e.counts.sum()
    part = e.mean @ share if x.sample_wide else np.full(x.components, e.train_mean @ share)
    shift = np.log(np.maximum(part * length, 1e-30))[:, None]
    t_shift = math.log(max(float(e.t_mean @ share) * length, 1e-30))
    return replace(x, mean=x.mean - shift, t_mean=x.t_mean - t_shift, levels=(), before_relu=None).balanced()


def _softmax_by_moments(x: State, dims: tuple[int, ...], length: int) -> State:
    e = _exponential(x)
    power = energy(e)[1]
    mean = float(e.t_mean @ e.counts / e.counts.sum())
    over = max(length * mean**2 / power, 1.0) if power > 0 else float(length)
    return replace(normalised(e, dims, first=True).scaled(1 / max(length, 1)), positions_averaged=over)
