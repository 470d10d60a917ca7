"""Pointwise functions, evaluated once with the test moments and once for each train component.

Derivation. A component is normal, so E[f], Var[f] and the Hermite coefficients a₁ = σE[f'] and a₂ follow in
closed form (ReLU family) or by quadrature. With correlation r = sig²/var between two draws of the noise, the
part of Var[f] that the data cause is the Hermite series Σ a_j² r^j; its first two terms are exact and the
rest is taken at third order:

    sig_out² = a₁² r + a₂² r² + (Var[f] - a₁² - a₂²) r³

Correlations between positions go the same way. The mask of a pending dropout needs no case of its own
(`state`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dropout_lint.prediction.abreast import everywhere
from dropout_lint.prediction.ops.base import (
    Call,
    NoRule,
    Parameter,
    Transfer,
    function,
    module,
    several,
    transfer_of,
)
from dropout_lint.prediction.parts import Normals, Skewness, by_row, quotient, replace
from dropout_lint.prediction.quadrature import (
    Array,
    MomentFunction,
    PointFunction,
    logarithm,
    moments_by_quadrature,
    noisy_rectified,
    rectified,
    rectified_skewness,
    skewed_rectified,
)
from dropout_lint.prediction.state import State

PAIR = 0.4
"""Assumed correlation of the channels that trained weights add up, beyond what `State.energy_slope` says."""

_DEV_NODES, _DEV_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_DEV_WEIGHTS = _DEV_WEIGHTS / _DEV_WEIGHTS.sum()


class Passed(NamedTuple):
    """What f makes of a normal component.

    Attributes:
        mean, dev, var: mean, its spread over channels, variance.
        data: what of the variance the data cause.
        first: the part of that which is linear in the data (a₁²·r).
        slope: E[f'].
        energy_slope: half the difference between the means at high and at low local energy.
    """

    mean: Array
    dev: Array
    var: Array
    data: Array
    first: Array
    slope: Array
    energy_slope: Array


def pointwise(x: State, moments: MomentFunction, *, homogeneous: bool = False) -> State:
    """f(x), f given by its moments on normal input; `homogeneous` where f(mx) = m·f(x) for all m ≥ 0."""
    energy_slope, t_energy_slope = x.energy_slopes
    train = x.mean, x.dev, x.var, x.sig**2, by_row(energy_slope) * x.component_scale
    test = x.t_mean, x.t_dev, x.t_var, x.t_var, t_energy_slope
    if everywhere(x, x.dev == 0) != everywhere(x, x.t_dev == 0) or not homogeneous:
        before, after = (_passed(moments, *each, x.energy_variance) for each in (train, test))
        return _after(x, before, after, homogeneous)
    pairs = zip(train, test, strict=True)  # a closed form takes both modes at once
    mean, dev, var, signal, slope = (np.concatenate([of, t_of[..., None, :]], axis=-2) for of, t_of in pairs)
    both = _passed(moments, mean, dev, var, signal, slope, x.energy_variance)
    before, after = (Passed(*(of[..., rows, :] for of in both)) for rows in (np.s_[:-1], -1))
    return _after(x, before, after, homogeneous)


def _passed(  # noqa: PLR0917 - the symbols of the series below
    moments: MomentFunction,
    mean: Array,
    dev: Array,
    var: Array,
    signal: Array,
    energy_slope: Array,
    energy_variance: float,
) -> Passed:
    """By the Hermite series: two draws of the noise leave a correlation of r = signal/var.

    Where the variance around a position is not the same everywhere, it is
    (1 ± √energy_variance)·var, half and half, and the mean goes along with it by ± energy_slope.
    """
    if not energy_variance:
        return _hermite(moments, mean, dev, var, signal)
    var = np.maximum(var, 0.0)  # of what is dropped, 0 up to rounding
    along = np.minimum(energy_slope**2, 0.9 * np.minimum(signal, var))
    low_high = np.array([-1.0, 1.0]).reshape(2, *[1] * var.ndim)
    louder = 1 + low_high * math.sqrt(energy_variance)
    means = mean + low_high * np.copysign(np.sqrt(along), energy_slope)
    each = _hermite(moments, means, dev, (var - along) * louder, (signal - along) * louder)
    energy_slope = (each.mean[1] - each.mean[0]) / 2
    both = Passed(*((low + high) / 2 for low, high in each))
    square = energy_slope**2
    return both._replace(var=both.var + square, data=both.data + square, energy_slope=energy_slope)


def _hermite(moments: MomentFunction, mean: Array, dev: Array, var: Array, signal: Array) -> Passed:
    ratio = np.minimum(np.maximum(quotient(signal, var, 1.0), 0.0), 1.0)
    first, spread, variance, a1, a2 = spread_moments(moments, mean, dev, var)
    linear = np.minimum(a1**2, variance)
    square = np.minimum(a2**2, variance - linear)
    data = linear * ratio + square * ratio**2 + (variance - linear - square) * ratio**3
    slope = np.divide(a1, np.sqrt(np.maximum(var, 0.0)), out=np.zeros(a1.shape), where=var > 0)
    return Passed(first, spread, variance, data, linear * ratio, slope, np.zeros(first.shape))


def _after(x: State, train: Passed, test: Passed, homogeneous: bool) -> State:
    sig = np.sqrt(train.data)
    before, after = (x.prob @ x.sig) ** 2, (x.prob @ sig) ** 2
    data = quotient(x.data * after, before)
    weight = x.counts * test.var
    share = quotient((x.counts * test.first).sum(-1), weight.sum(-1), 1.0)
    energy_slope, t_energy_slope = x.energy_slope, x.t_energy_slope
    if energy_slope is not None or x.energy_variance:
        energy_slope, t_energy_slope = x.prob @ train.energy_slope, test.energy_slope
    sample_mask_slope = (
        None
        if x.sample_mask_slope is None
        else x.sample_mask_slopes * by_row(x.prob @ (train.slope * x.component_scale))
    )
    return replace(
        x,
        t_mean=test.mean,
        t_dev=test.dev,
        t_var=test.var,
        mean=train.mean,
        dev=train.dev,
        sig=sig,
        var=train.var,
        data=data,
        energy_slope=energy_slope,
        t_energy_slope=t_energy_slope,
        sample_mask_slope=sample_mask_slope,
        covariance_growth=_lift(x, train, test),
        levels=x.levels if homogeneous else (),
        rho=share[..., None] * x.rho + (1 - share[..., None]) * x.rho**2,
        channel_correlation=(share * x.channel_correlation**0.5 + (1 - share) * x.channel_correlation) ** 2,
        from_weight_layer=False,
        skew=None,
        before_relu=None,
        positions_averaged=0.0,
    ).balanced()


def _lift(x: State, train: Passed, test: Passed) -> Array:
    """Test over train covariance of two channels that correlate at `PAIR`, by the same series."""
    rest = np.maximum(train.data - train.first - train.energy_slope**2, 0.0)
    if x.components > 1:
        weight = x.prob[:, None]
        apart = np.divide(x.data, (x.prob @ x.sig) ** 2, out=np.ones_like(x.data), where=x.data > 0)
        first = (weight * np.sqrt(train.first)).sum(-2) ** 2 * apart
        other = (weight * np.sqrt(rest)).sum(-2) ** 2 * apart
    else:
        first, other = train.first[..., 0, :], rest[..., 0, :]
    came = quotient(x.t_var, x.data, 1.0)
    now = first + other * PAIR + (x.prob @ train.energy_slope) ** 2
    rest = np.maximum(test.data - test.first - test.energy_slope**2, 0.0)
    then = test.first * x.covariance_growths / came + rest * PAIR + test.energy_slope**2
    result: Array = quotient(then, now, 1.0)
    return result


def spread_moments(
    moments: MomentFunction, mean: Array, dev: Array, var: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Moments of f where the channel mean itself is `mean + dev·ζ`."""
    if not dev.any():
        first, variance, a1, a2 = moments(mean, var)
        return first, np.zeros(first.shape), variance, a1, a2
    centre = mean[..., None] + dev[..., None] * _DEV_NODES
    first, variance, a1, a2 = moments(centre, var[..., None])
    overall = first @ _DEV_WEIGHTS
    apart = first - overall[..., None]
    falls = (apart * _DEV_NODES) @ _DEV_WEIGHTS * np.where(dev < 0, -1, 1) < 0
    spread = np.sqrt(apart**2 @ _DEV_WEIGHTS)
    return (
        overall,
        np.where(falls, -spread, spread),
        variance @ _DEV_WEIGHTS,
        a1 @ _DEV_WEIGHTS,
        a2 @ _DEV_WEIGHTS,
    )


RELU = rectified()


@several
@module("ReLU")
@function("relu")
def relu(call: Call) -> State:
    """max(x, 0)."""
    x = call.x
    if x.before_relu is not None and (x.components == 1 or x.levels) and min(x.levels, default=0.0) >= 0:
        return x
    if x.skew is not None and everywhere(x, x.dev == 0) and everywhere(x, x.t_dev == 0):
        y = _skewed(x, x.skew)
    else:
        y = pointwise(x, RELU, homogeneous=True)
        if not call.ledger.weight_layers.issuperset(call.node.users):  # they leave no skewness
            test = rectified_skewness(x.t_mean, x.t_var)
            skew = Skewness(rectified_skewness(x.mean, x.var), _in_each(x, test), test)
            y = replace(y, skew=skew)
    if x.components > 1 and not x.levels:
        return y
    flat = x
    if x.components > 1:  # ReLU(mask·x) = mask·ReLU(x)
        kept = int(np.argmax(x.levels))
        flat = replace(
            x,
            mean=x.mean[..., [kept], :] / x.levels[kept],
            dev=x.dev[..., [kept], :] / x.levels[kept],
            var=x.var[..., [kept], :] / x.levels[kept] ** 2,
            sig=x.sig[..., [kept], :] / x.levels[kept],
        )
    mean, dev, var, sig = (of[..., 0, :] for of in (flat.mean, flat.dev, flat.var, flat.sig))
    return replace(y, before_relu=Normals(mean, dev, var, sig**2, x.t_mean, x.t_dev, x.t_var, x.rho))


def _in_each(x: State, test: Array) -> Array:
    """(G,) test-mode values in each of the components."""
    return np.repeat(test[..., None, :], x.components, axis=-2)


def _skewed(x: State, skew: Skewness) -> State:
    """ReLU of skewed values, such as a rectified skip with its branch: it passes the large ones."""
    signal, noise = x.sig**2, np.maximum(x.var - x.sig**2, 0.0)
    mean, var, linear, total = skewed_rectified(x.mean, x.var, skew.train)
    t_mean, t_var, t_linear, test = skewed_rectified(x.t_mean, x.t_var, skew.test)
    if everywhere(x, np.abs(skew.train) * x.var**1.5 <= 1.01 * np.abs(skew.data) * x.sig**3 + 1e-9):
        data, first = noisy_rectified(x.mean, signal, noise, skew.data)
    else:
        # a skip's noise is as one-sided as its data and goes along with it: what ReLU lets pass of either is
        # taken from their common distribution
        ratio = np.clip(quotient(signal, x.var, 1.0), 0.0, 1.0)
        first = np.minimum(linear**2, var)
        data, first = first * ratio + (var - first) * ratio**2, first * ratio
    none = np.zeros_like(mean)
    slope, t_slope = (
        np.divide(a, np.sqrt(v), out=np.zeros_like(a), where=v > 0)
        for a, v in ((linear, x.var), (t_linear, x.t_var))
    )
    energy_slope, t_energy_slope = x.energy_slopes
    before = Passed(mean, none, var, data, first, slope, slope * by_row(energy_slope))
    t_first = np.minimum(t_linear**2, t_var)
    after = Passed(t_mean, none[..., 0, :], t_var, t_var, t_first, t_slope, t_slope * t_energy_slope)
    y = _after(x, before, after, homogeneous=True)
    return replace(y, skew=Skewness(total, _in_each(x, test), test))


MakeMoments = Callable[[Call], MomentFunction | None]
_MOMENTS: dict[Transfer, MakeMoments] = {relu: lambda _: RELU}


def activation(
    *, functions: Iterable[str] = (), modules: Iterable[str] = (), homogeneous: bool = False
) -> Callable[[MakeMoments], MakeMoments]:
    """Register pointwise functions by what gives their moments; None where only a run would tell."""

    def register(make: MakeMoments) -> MakeMoments:
        def transfer(call: Call) -> State:
            moments = make(call)
            if moments is None:
                raise NoRule
            return pointwise(call.x, moments, homogeneous=homogeneous)

        _MOMENTS[function(*functions)(module(*modules)(transfer))] = make
        return make

    return register


def moments_of(call: Call) -> MomentFunction | None:
    """The moments of a call of a pointwise function; None for any other call."""
    transfer = transfer_of(call)
    make = _MOMENTS.get(transfer) if transfer is not None else None
    return make(call) if make is not None else None


@activation(functions=["leaky_relu"], modules=["LeakyReLU"], homogeneous=True)
def leaky_relu(call: Call) -> MomentFunction:
    """max(x, 0) + slope·min(x, 0)."""
    layer: Any = call.module
    slope = layer.negative_slope if layer is not None else call.arg(1, "negative_slope", 0.01)
    return rectified(float(slope))


@activation(functions=["rrelu"], modules=["RReLU"])
def rrelu(call: Call) -> MomentFunction:
    """Leaky ReLU at the mean of its random slope."""
    layer: Any = call.module
    lower, upper = (
        (layer.lower, layer.upper)
        if layer is not None
        else (call.arg(1, "lower", 1 / 8), call.arg(2, "upper", 1 / 3))
    )
    return rectified((float(lower) + float(upper)) / 2)


@activation(functions=["prelu"], modules=["PReLU"])
def prelu(call: Call) -> MomentFunction:
    """Leaky ReLU with a learned slope; its mean over channels, 0.25 where it has no value."""
    weight: Any = call.module.weight if call.module is not None else call.arg(1, "weight")
    weight = weight.tensor if isinstance(weight, Parameter) else weight
    known = isinstance(weight, torch.Tensor) and not weight.is_meta
    return rectified(float(weight.detach().mean()) if known else 0.25)


MODULE_KINDS = (
    "ReLU6", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "Hardtanh",
    "Sigmoid", "Tanh", "Softplus", "Softsign", "Softshrink", "Hardshrink", "Tanhshrink", "LogSigmoid",
    "Threshold", "QuickGELU", "FastGELU", "Swish", "HardSwish", "HardSigmoid", "PytorchGELUTanh",
    "GELUTanh", "NewGELUActivation", "QuickGELUActivation", "GELUActivation", "HardMish",
    "GELUTanhActivation", "SiLUActivation", "MishActivation",
)  # fmt: skip


@activation(modules=MODULE_KINDS)
def activation_module(call: Call) -> MomentFunction:
    """Any activation module, by quadrature of the module itself."""
    assert call.module is not None
    inner = call.module
    return moments_by_quadrature(lambda t: inner(t.clone()))


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
LOGARITHMS: Mapping[str, MomentFunction] = {"log": logarithm(), "log1p": logarithm(1.0)}
IGNORED_KEYWORDS = ("inplace", "out", "input")


@activation(functions=LOGARITHMS)
def logarithm_function(call: Call) -> MomentFunction:
    """log(x) and log(1 + x)."""
    return LOGARITHMS[call.name]


@activation(functions=FUNCTIONS)
def activation_function(call: Call) -> MomentFunction:
    """A pointwise function without parameters, by quadrature."""
    return moments_by_quadrature(FUNCTIONS[call.name])


@activation(functions=PARAMETRISED)
def parametrised_function(call: Call) -> MomentFunction | None:
    """A pointwise function with numbers for parameters, by quadrature."""
    target = PARAMETRISED[call.name]
    rest = [_number(value) for value in call.args[1:] if not isinstance(value, bool)]
    keywords = {k: _number(v) for k, v in call.kwargs.items() if k not in IGNORED_KEYWORDS}
    if call.name in ("clamp", "clip") and not any(
        isinstance(v, (int, float)) for v in (*rest, *keywords.values())
    ):
        # bounds that only a run would tell: taken as so wide that they cut nothing
        return None
    return moments_by_quadrature(lambda t: target(t, *rest, **keywords))


def _number(value: Any) -> Any:
    """A parameter of one element as a number; None for what has no value here."""
    if isinstance(value, Parameter):
        return float(value.tensor) if value.known and value.tensor.numel() == 1 else None
    return value if _plain(value) else None


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, str))


@activation(functions=["pow"])
def power(call: Call) -> MomentFunction | None:
    """x ** n for a number n."""
    exponent = call.arg(1, "exponent")
    if not isinstance(exponent, (int, float)):
        return None
    if float(exponent).is_integer() and exponent >= 0:
        return moments_by_quadrature(lambda t: t**exponent)
    return moments_by_quadrature(lambda t: t.clamp(min=1e-3) ** exponent)


def is_pointwise(module_: nn.Module) -> bool:
    """Whether the table has `module_` as an activation."""
    return any(base.__name__ in MODULE_KINDS for base in type(module_).__mro__)
