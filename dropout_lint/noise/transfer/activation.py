"""Pointwise functions, evaluated once with the test moments and once for each train component.

Derivation. A component is normal, so E[f], Var[f] and the linear coefficient a₁ = σE[f'] follow in closed
form (ReLU family) or by quadrature. With correlation r = sig²/var between two draws of the noise, the part of
Var[f] that the data cause is the Hermite series Σ a_j² r^j; its first term is exact and the rest is taken at
second order:

    sig_out² = a₁² r + (Var[f] - a₁²) r²

Correlations between positions go the same way. The mask of a pending dropout needs no case of its own
(`state`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dropout_lint.noise.quadrature import (
    Array,
    MomentFunction,
    PointFunction,
    moments_by_quadrature,
    rectified,
    rectified_skewness,
    skewed_nodes,
)
from dropout_lint.noise.state import State, Underlying, replace
from dropout_lint.noise.transfer.base import Call, Parameter, function, module

PAIR = 0.1
"""Assumed correlation of the channels that trained weights add up."""

_DEV_NODES, _DEV_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_DEV_WEIGHTS = _DEV_WEIGHTS / _DEV_WEIGHTS.sum()


def pointwise(x: State, moments: MomentFunction, *, homogeneous: bool = False, skewed: bool = False) -> State:
    """f(x), f given by its moments on normal input; `homogeneous` where f(mx) = m·f(x) for all m ≥ 0."""
    if skewed and x.skew is not None and not np.any(x.dev) and not np.any(x.t_dev):
        mean, dev, var, linear = _skewed(x.mean, x.var, x.skew)
        t_mean, t_dev, t_var, t_linear = _skewed(x.t_mean, x.t_var, x.skew)
    else:
        mean, dev, var, linear = _spread(moments, x.mean, x.dev, x.var)
        t_mean, t_dev, t_var, t_linear = _spread(moments, x.t_mean, x.t_dev, x.t_var)
    ratio = np.divide(x.sig**2, x.var, out=np.ones_like(x.var), where=x.var > 0)
    ratio = np.clip(ratio, 0.0, 1.0)
    first = np.minimum(linear**2, var)
    sig = np.sqrt(first * ratio + (var - first) * ratio**2)
    before, after = (x.prob @ x.sig) ** 2, (x.prob @ sig) ** 2
    data = np.divide(x.data * after, before, out=np.zeros_like(after), where=before > 0)
    weight = x.counts * t_var
    share = (
        float((x.counts * np.minimum(t_linear**2, t_var)).sum() / weight.sum()) if weight.sum() > 0 else 1.0
    )
    return replace(
        x,
        t_mean=t_mean,
        t_dev=t_dev,
        t_var=t_var,
        mean=mean,
        dev=dev,
        sig=sig,
        var=var,
        data=data,
        lift=_lift(x, (linear**2, var), (t_linear**2, t_var), ratio),
        levels=x.levels if homogeneous else (),
        rho=share * x.rho + (1 - share) * x.rho**2,
        alike=(share * x.alike**0.5 + (1 - share) * x.alike) ** 2,
        weighed=False,
        skew=None,
        under=None,
        spread_over=0.0,
    ).balanced()


def _lift(x: State, train: tuple[Array, Array], test: tuple[Array, Array], ratio: Array) -> Array:
    """Test over train covariance of two channels that correlate at `PAIR`, by the same series."""
    if x.components > 1:
        weight = x.prob[:, None]
        first = (weight * np.sqrt(train[0] * ratio)).sum(0) ** 2
        rest = (weight * np.sqrt(np.maximum(train[1] - train[0], 0.0)) * ratio).sum(0) ** 2
        apart = np.divide(x.data, (x.prob @ x.sig) ** 2, out=np.ones_like(x.data), where=x.data > 0)
        first, rest = first * apart, rest * apart
    else:
        first, rest = (train[0] * ratio)[0], (np.maximum(train[1] - train[0], 0.0) * ratio**2)[0]
    came = np.divide(x.t_var, x.data, out=np.ones_like(x.data), where=x.data > 0)
    now = first + rest * PAIR
    then = test[0] * x.lifted / came + np.maximum(test[1] - test[0], 0.0) * PAIR
    result: Array = np.divide(then, now, out=np.ones_like(now), where=now > 0)
    return result


def _spread(
    moments: MomentFunction, mean: Array, dev: Array, var: Array
) -> tuple[Array, Array, Array, Array]:
    """Moments of f where the channel mean itself is `mean + dev·ζ`."""
    if not np.any(dev):
        first, variance, linear = moments(mean, var)
        return first, np.zeros_like(first), variance, linear
    centre = mean[..., None] + dev[..., None] * _DEV_NODES
    first, variance, linear = moments(centre, np.broadcast_to(var[..., None], centre.shape))
    overall = first @ _DEV_WEIGHTS
    sign = np.sign(((first - overall[..., None]) * _DEV_NODES) @ _DEV_WEIGHTS * np.where(dev < 0, -1, 1))
    spread = np.sqrt(((first - overall[..., None]) ** 2) @ _DEV_WEIGHTS)
    return overall, np.where(sign < 0, -spread, spread), variance @ _DEV_WEIGHTS, linear @ _DEV_WEIGHTS


def _skewed(mean: Array, var: Array, skew: Array) -> tuple[Array, Array, Array, Array]:
    """Moments of ReLU of a skewed variable, by quadrature: it passes the large values in either mode."""
    h, z, w = skewed_nodes(skew)
    values = np.maximum(mean[..., None] + np.sqrt(np.maximum(var, 0.0))[..., None] * h, 0.0)
    first = values @ w
    centred = values - first[..., None]
    return first, np.zeros_like(first), (centred**2) @ w, centred @ (w * z)


RELU = rectified()


@module("ReLU")
@function("relu")
def relu(call: Call) -> State:
    """max(x, 0)."""
    x = call.x
    y = pointwise(x, RELU, homogeneous=True, skewed=True)
    y = replace(y, skew=rectified_skewness(x.t_mean, x.t_var))
    if x.components > 1 and not x.levels:
        return y
    flat = x
    if x.components > 1:  # ReLU(mask·x) = mask·ReLU(x)
        kept = int(np.argmax(x.levels))
        flat = replace(
            x,
            mean=x.mean[kept][None] / x.levels[kept],
            dev=x.dev[kept][None] / x.levels[kept],
            var=x.var[kept][None] / x.levels[kept] ** 2,
            sig=x.sig[kept][None] / x.levels[kept],
        )
    under = Underlying(
        flat.mean[0], flat.dev[0], flat.var[0], flat.sig[0] ** 2, x.t_mean, x.t_dev, x.t_var, x.rho
    )
    return replace(y, under=under)


@module("LeakyReLU")
@function("leaky_relu")
def leaky_relu(call: Call) -> State:
    """max(x, 0) + slope·min(x, 0)."""
    slope = call.module.negative_slope if call.module is not None else call.arg(1, "negative_slope", 0.01)
    return pointwise(call.x, rectified(float(slope)), homogeneous=True)  # type: ignore[arg-type]


@module("RReLU")
@function("rrelu")
def rrelu(call: Call) -> State:
    """Leaky ReLU at the mean of its random slope."""
    lower, upper = (
        (call.module.lower, call.module.upper)
        if call.module is not None
        else (call.arg(1, "lower", 1 / 8), call.arg(2, "upper", 1 / 3))
    )
    return pointwise(call.x, rectified((float(lower) + float(upper)) / 2))  # type: ignore[arg-type]


@module("PReLU")
@function("prelu")
def prelu(call: Call) -> State:
    """Leaky ReLU with a learned slope; its mean over channels, 0.25 where it has no value."""
    weight: Any = call.module.weight if call.module is not None else call.arg(1, "weight")
    weight = weight.tensor if isinstance(weight, Parameter) else weight
    known = isinstance(weight, torch.Tensor) and not weight.is_meta
    return pointwise(call.x, rectified(float(weight.detach().mean()) if known else 0.25))


MODULE_KINDS = (
    "ReLU6",
    "ELU",
    "SELU",
    "CELU",
    "GELU",
    "SiLU",
    "Mish",
    "Hardswish",
    "Hardsigmoid",
    "Hardtanh",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Softsign",
    "Softshrink",
    "Hardshrink",
    "Tanhshrink",
    "LogSigmoid",
    "Threshold",
    "QuickGELU",
    "FastGELU",
    "Swish",
    "HardSwish",
    "HardSigmoid",
    "PytorchGELUTanh",
    "GELUTanh",
    "NewGELUActivation",
    "QuickGELUActivation",
    "GELUActivation",
    "HardMish",
    "GELUTanhActivation",
    "SiLUActivation",
    "MishActivation",
)


@module(*MODULE_KINDS)
def activation_module(call: Call) -> State:
    """Any activation module, by quadrature of the module itself."""
    assert call.module is not None
    inner = call.module
    return pointwise(call.x, moments_by_quadrature(lambda t: inner(t.clone())))


FUNCTIONS: Mapping[str, PointFunction] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hard_swish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "relu6": F.relu6,
    "selu": F.selu,
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
    "exp": lambda t: torch.exp(t.clamp(max=20.0)),
    "expm1": lambda t: torch.expm1(t.clamp(max=20.0)),
    "log": lambda t: torch.log(t.clamp(min=1e-6)),
    "log1p": lambda t: torch.log1p(t.clamp(min=-1 + 1e-6)),
    "sqrt": lambda t: torch.sqrt(t.clamp(min=0.0)),
    "rsqrt": lambda t: torch.rsqrt(t.clamp(min=1e-3)),
    "reciprocal": lambda t: torch.where(t.abs() < 1e-2, torch.zeros_like(t), 1 / t),
    "square": torch.square,
    "abs": torch.abs,
    "absolute": torch.abs,
    "neg": torch.neg,
    "negative": torch.neg,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
}
PARAMETRISED: Mapping[str, Any] = {
    "gelu": F.gelu,
    "elu": F.elu,
    "celu": F.celu,
    "hardtanh": F.hardtanh,
    "softplus": F.softplus,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "threshold": F.threshold,
    "clamp": torch.clamp,
    "clip": torch.clip,
    "clamp_min": torch.clamp_min,
    "clamp_max": torch.clamp_max,
}
IGNORED_KEYWORDS = ("inplace", "out", "input")


@function(*FUNCTIONS)
def activation_function(call: Call) -> State:
    """A pointwise function without parameters, by quadrature."""
    return pointwise(call.x, moments_by_quadrature(FUNCTIONS[call.name]))


@function(*PARAMETRISED)
def parametrised_function(call: Call) -> State:
    """A pointwise function with numbers for parameters, by quadrature."""
    target = PARAMETRISED[call.name]
    rest = [_number(value) for value in call.args[1:] if not isinstance(value, bool)]
    keywords = {k: _number(v) for k, v in call.kwargs.items() if k not in IGNORED_KEYWORDS}
    if call.name in ("clamp", "clip") and not any(
        isinstance(v, (int, float)) for v in (*rest, *keywords.values())
    ):
        # bounds that only a run would tell: taken as so wide that they cut nothing
        call.ledger.fallback(call.name)
        return call.x
    return pointwise(call.x, moments_by_quadrature(lambda t: target(t, *rest, **keywords)))


def _number(value: Any) -> Any:
    """A parameter of one element as a number; None for what has no value here."""
    if isinstance(value, Parameter):
        return float(value.tensor) if value.known and value.tensor.numel() == 1 else None
    return value if _plain(value) else None


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, str))


@function("pow")
def power(call: Call) -> State:
    """x ** n for a number n."""
    exponent = call.arg(1, "exponent")
    if not isinstance(exponent, (int, float)):
        return call.x
    if float(exponent).is_integer() and exponent >= 0:
        return pointwise(call.x, moments_by_quadrature(lambda t: t**exponent))
    return pointwise(call.x, moments_by_quadrature(lambda t: t.clamp(min=1e-3) ** exponent))


def is_pointwise(module_: nn.Module) -> bool:
    """Whether the table has `module_` as an activation."""
    return any(base.__name__ in MODULE_KINDS for base in type(module_).__mro__)
