"""Powers of one tensor, and steep functions of values that are rectified."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from dropout_lint.prediction.ops.activation import pointwise
from dropout_lint.prediction.ops.maximum import rectified_parts
from dropout_lint.prediction.parts import quotient, replace
from dropout_lint.prediction.quadrature import Array, moments_by_quadrature
from dropout_lint.prediction.state import MOMENTS_ALONE, State


def root(x: State, exponent: float) -> State:
    """xᵃ of a positive x, taken as log-normal: E[xᵃ] = mᵃ(1 + c²)^{a(a-1)/2}, c = sd/m.

    It is as good as linear in x, so data and noise keep their proportion.
    """

    def moved(mean: Array, dev: Array, variance: Array) -> tuple[Array, Array, Array]:
        m = np.maximum(mean, 1e-30)
        spread = 1 + np.maximum(variance, 0.0) / m**2
        first = m**exponent * spread ** (exponent * (exponent - 1) / 2)
        second = m ** (2 * exponent) * spread ** (exponent * (2 * exponent - 1))
        still = (mean <= 0) & (variance <= 0)  # a dropped value stays 0
        first, second = (np.where(still, 0.0, part) for part in (first, second))
        return first, np.where(still, 0.0, exponent * dev / m * first), np.maximum(second - first**2, 0.0)

    mean, dev, var = moved(x.mean, x.dev, x.var)
    t_mean, t_dev, t_var = moved(x.t_mean, x.t_dev, x.t_var)
    share = quotient(x.sig**2, x.var, 1.0)
    sig = np.sqrt(var * np.clip(share, 0.0, 1.0))
    before, after = (x.prob @ x.sig) ** 2, (x.prob @ sig) ** 2
    return replace(
        x,
        t_mean=t_mean,
        t_dev=t_dev,
        t_var=t_var,
        mean=mean,
        dev=dev,
        var=var,
        sig=sig,
        data=quotient(x.data * after, before),
        levels=(),
        **MOMENTS_ALONE,
        from_weight_layer=False,
    ).balanced()


def through(x: State, f: Callable[[torch.Tensor], torch.Tensor]) -> State:
    """f(x); f of ReLU of the normal below where the values are rectified, which is exact where f is steep."""
    normal = below_rectifier(x)
    if normal is None:
        return pointwise(x, moments_by_quadrature(f))
    return pointwise(normal, moments_by_quadrature(lambda t: f(t.clamp(min=0))))


def below_rectifier(x: State) -> State | None:
    """The normal values of which `x` is the rectified part, None where it is none."""
    u = rectified_parts(x)
    if u is None:
        return None
    return replace(
        x,
        mean=u.mean,
        dev=u.dev,
        var=u.var,
        sig=np.sqrt(u.sig2),
        t_mean=u.t_mean,
        t_dev=u.t_dev,
        t_var=u.t_var,
        data=(x.prob @ np.sqrt(u.sig2)) ** 2,
        rho=u.rho,
        levels=(),
        **MOMENTS_ALONE,
    )


def reciprocal(b: State) -> State:
    """1/b for a b that stays on one side of 0, as divisors do; taken as log-normal (`pooling.root`)."""
    if float(b.counts @ b.t_mean) < 0:
        return root(b.scaled(-1.0), -1.0).scaled(-1.0)
    return root(b, -1.0)
