"""Normalisation.

Batch norm. In train mode it divides by the statistics of the batch, noise included; in test mode by the same
numbers, frozen. So both modes go through one affine map, and the shortfall of the test variance travels on. A
checkpoint knows these numbers: `running_var` is Var_train and `running_mean` the mean, measured over training
(`calibrated`).

Layer, group, RMS and instance norm divide by what they see, in either mode: train and test moments are each
scaled by their own second moment, so nothing shifts here. The noise stays: its share of the variance is what
it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dropout_lint.layers import NormSpec
from dropout_lint.layers.signatures import NORMS
from dropout_lint.prediction.abreast import of_a_single
from dropout_lint.prediction.correlation import whitened
from dropout_lint.prediction.ops.base import (
    Call,
    Parameter,
    find_module,
    function,
    module,
    several,
    takes_several,
)
from dropout_lint.prediction.ops.linear_map import amplified
from dropout_lint.prediction.parts import by_row, quotient, replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import SEVERAL, State

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

MOST_GAIN = 6.0
"""Largest amplification that is carried on to a weight layer without a norm behind it."""

ROUNDING = 1e-12
"""Of two numbers that differ by no more than this part, the difference is none."""

FLOOR = 0.02
"""Least share of a norm's measured variance that is left to the signal."""


def values(tensor: Any) -> Array | None:
    """A parameter or buffer as an array; None without values."""
    tensor = tensor.tensor if isinstance(tensor, Parameter) else tensor
    if not isinstance(tensor, torch.Tensor) or tensor.is_meta or type(tensor).__name__ == "FakeTensor":
        return None
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)


def calibrated(x: State, mean: Array, variance: Array) -> State:
    """`x` with the train mean and variance that a trained norm has measured; noise keeps its absolute size.

    Behind a pending mask, E[x²] = q·E[x'²] with q = E[mask²] gives the second moment before the mask exactly,
    and so the mask's own noise: (q - 1)·E[x'²]. With Li's case (a), Δ = 1 - p·(var + mean²)/var follows from
    the file alone.
    """
    if x.channels != len(mean):
        return x
    x = x.per_channel()
    if len(x.levels) == x.components == 2:  # those of one mask
        levels = np.array(x.levels)
        q = float(x.prob @ levels**2)
        before = _before_mask(x, levels, q)
        energy = (variance + mean**2) / q
        fitted = _fit(before, mean, np.maximum(energy - mean**2, FLOOR * variance))
        noise = fitted.noise.copy()
        own = (q - 1) * energy
        old = fitted.shared_by_channels.copy()
        old[x.source] = noise[x.source] * old[x.source] / np.maximum(noise[x.source] + own, 1e-30)
        noise[x.source] += own
        column = levels[:, None]
        return replace(
            x,
            t_mean=fitted.t_mean,
            t_dev=fitted.t_dev,
            t_var=fitted.t_var,
            mean=fitted.mean * column,
            dev=fitted.dev * column,
            sig=fitted.sig * column,
            var=fitted.var * column**2,
            data=fitted.data,
            noise=noise,
            shared_by_channels=old,
            channel_spread=0.0,
            covariance_growth=fitted.covariance_growth,
            trained_gain=fitted.trained_gain,
        )
    if x.sample_wide:
        return _fit_mixture(x, mean, variance)
    if x.source == SEVERAL:
        scale = np.sqrt(variance / np.maximum(x.train_var, 1e-30))
        return x.scaled(scale, mean - x.train_mean * scale)
    return _fit(x.collapse(), mean, variance)


def _fit_mixture(x: State, mean: Array, variance: Array) -> State:
    """Components of a whole sample's mask with the given total moments.

    The components' means follow from the weights. What varies within them is amplified (`_fit`): with B the
    variance of the means, D the data part and O older noise within, var = B + O·(1 - κ) + A·(D + κO).
    """
    apart = x.mean - x.train_mean
    between = x.prob @ apart**2
    narrow = np.minimum(1.0, np.sqrt((1 - FLOOR) * variance / np.maximum(between, 1e-30)))
    apart, between = apart * narrow, between * narrow**2
    older = np.delete(x.noise, x.source, axis=0).sum(0)
    amplified_noise = np.delete(x.amplified_noise, x.source, axis=0).sum(0)
    part = quotient(amplified_noise, older)
    noise = np.maximum(x.var - x.sig**2, 0.0)
    signal, still = x.prob @ (x.sig**2 + part * noise), x.prob @ ((1 - part) * noise)
    gain = np.maximum(variance - between - still, 0.25 * signal) / np.maximum(signal, 1e-30)
    squeeze = (variance - between) / np.maximum(gain * signal + still, 1e-30)
    signal2, noise = x.sig**2 * gain * squeeze, noise * (1 + part * (gain - 1)) * squeeze
    data = x.data * gain * squeeze
    rows = (x.noise + (gain - 1) * x.amplified_noise) * squeeze
    rows[x.source] = 0.0
    rows[x.source] = np.maximum(variance - data - rows.sum(0), 0.0)
    return replace(
        x,
        t_mean=x.t_mean - x.train_mean + mean,
        t_var=(x.t_var * np.minimum(gain, 1.0) + x.covariance_growths * x.data * np.maximum(gain - 1, 0.0))
        * squeeze,
        mean=mean + apart,
        sig=np.sqrt(signal2),
        var=signal2 + noise,
        data=data,
        noise=rows,
        levels=(),
        covariance_growth=x.covariance_growths,
    )


def _before_mask(x: State, levels: Array, q: float) -> State:
    kept = int(np.argmax(levels))
    level = levels[kept]
    var = x.var[kept] / level**2
    noise = x.noise.copy()
    own = (q - 1) * (var + x.mean[kept] ** 2 / level**2 + x.dev[kept] ** 2 / level**2)
    before = noise[x.source] * x.shared_by_channels[x.source]
    noise[x.source] = np.maximum(noise[x.source] - own, 0.0)
    old = x.shared_by_channels.copy()
    old[x.source] = np.clip(before / np.maximum(noise[x.source], 1e-30), 0.0, 1.0)
    return replace(
        x.collapse(),
        mean=x.mean[kept][None] / level,
        dev=x.dev[kept][None] / level,
        sig=np.sqrt(x.data)[None],
        var=var[None],
        noise=noise,
        shared_by_channels=old,
    )


def _fit(x: State, mean: Array, variance: Array) -> State:
    """One component with the given moments.

    Noise of fresh masks is what was predicted. The rest of the measured variance tells how much more the
    weights add up than Σ w²: var = fresh + A·data + (1 + κ(A - 1))·old, which is solved for A (`amplified`).
    """
    now = x.train_var
    if (
        x.trained_gain != 1 and not x.from_weight_layer
    ):  # pooled behind a weight layer, which amplified all of it alike
        x = replace(x, covariance_growth=None, energy_slope=None)
    rises = (
        x.amplified_noise if x.from_weight_layer else np.zeros_like(x.noise)
    )  # after an add, the rest is covariance of its parts
    old, amplified_noise = (x.noise * x.shared_before_weights).sum(0), rises.sum(0)
    fresh_noise = x.noise.sum(0) - old
    # where fresh noise alone leaves no room, its predicted share is the better guide
    ratio = quotient(variance, now, 1.0)
    factor = np.where(fresh_noise > (1 - FLOOR) * variance, np.minimum(ratio, 1.0), 1.0)
    x = replace(x, noise=x.noise * np.where(x.shared_before_weights < 1, factor, 1.0))
    room = variance - fresh_noise * factor
    # what goes along with the local energy, and the padding's pattern, are known with the weights
    known = np.minimum(
        x.energy_slopes[0] ** 2 + x.border_variances[0], 0.5 * np.minimum(x.data, np.maximum(room, 0.0))
    )
    signal = x.data - known
    gain = (room - known - (old - amplified_noise)) / np.maximum(signal + amplified_noise, 1e-30)
    # with little room the old noise has to shrink with the data
    least = 0.25
    squeeze = np.where(
        gain < least,
        room / np.maximum(known + least * (signal + amplified_noise) + old - amplified_noise, 1e-30),
        1.0,
    )
    gain = np.maximum(gain, least)
    y = amplified(x, gain, signal, rises)
    shrink = np.minimum(squeeze, 1.0)
    noise = y.noise * np.where(y.shared_before_weights > 0, shrink, 1.0)
    data = np.maximum(variance - noise.sum(0), FLOOR * variance)
    weights = x.data
    found = float((gain * weights).sum() / weights.sum()) if weights.sum() > 0 else 1.0
    return replace(
        y,
        t_mean=x.t_mean - x.train_mean + mean,
        t_var=y.t_var * quotient(data, y.data, 1.0),
        mean=mean[None],
        dev=np.zeros((1, len(mean))),
        t_dev=np.zeros(len(mean)),
        sig=np.sqrt(data)[None],
        var=variance[None],
        data=data,
        noise=noise,
        channel_spread=0.0,
        covariance_growth=x.covariance_growths,
        trained_gain=float(np.clip(x.trained_gain * found, 1.0, MOST_GAIN))
        if x.from_weight_layer or x.before_relu is not None
        else x.trained_gain,
    )


def rescaled(  # noqa: PLR0917 - the symbols of the formula below
    x: State,
    centre: Array,
    scale: Array,
    t_centre: Array,
    t_scale: Array,
    gain: Array | float,
    bias: Array | float,
) -> State:
    """(x - centre)·scale·gain + bias in train mode, with its own centre and scale in test mode.

    Whatever the data cause in both modes is by (t_scale/scale)² larger in test mode than it was before.
    """
    y = x.scaled(scale * gain)
    grown = (t_scale / scale) ** 2
    growth = x.covariance_growth
    return replace(
        y,
        mean=y.mean - by_row(centre * scale * gain) + bias,
        t_mean=(x.t_mean - t_centre) * t_scale * gain + bias,
        t_dev=x.t_dev * t_scale * gain,
        t_energy_slope=None if x.t_energy_slope is None else x.t_energy_slope * t_scale * gain,
        t_var=x.t_var * (t_scale * gain) ** 2,
        levels=(),
        covariance_growth=None if growth is None else growth * grown,
        withheld=x.withheld * (grown @ x.counts) / x.channels,
    )


def _affine(weight: Any, bias: Any, groups: int) -> tuple[Array | float, Array | float]:
    gain, shift = values(weight), values(bias)
    fits = gain is not None and gain.size == groups
    return (
        (gain.ravel() if gain is not None and fits else 1.0),
        (shift.ravel() if shift is not None and shift.size == groups else 0.0),
    )


def batch_norm(  # noqa: PLR0917 - what a call of a batch norm is given
    x: State, spec: NormSpec, weight: Any, bias: Any, running: tuple[Any, Any], trained: bool
) -> State:
    """Batch norm by the batch's own statistics, or by stored ones where it is frozen."""
    stored_mean, stored_var = values(running[0]), values(running[1])
    if spec.frozen and not trained:
        return x  # its statistics are whatever the initialiser put there: an affine map without effect on Δ
    if values(weight) is not None and x.channels > 1:
        x = x.per_channel()
    centre, var, dev = x.train_mean, x.train_var, x.train_dev
    if spec.frozen and stored_mean is not None and stored_var is not None and x.groups == len(stored_mean):
        centre, var, dev = stored_mean, stored_var, np.zeros_like(stored_mean)
    scale = 1 / np.sqrt(var + spec.eps)
    gain, shift = _affine(weight, bias, x.groups)
    x = replace(x, dev=_beyond(x.dev, by_row(dev)), t_dev=_beyond(x.t_dev, dev))
    y = rescaled(x, centre, scale, centre, scale, gain, shift)
    return y if spec.frozen or not np.any(x.channel_spread) else evened(y, x)


def _beyond(of: Array, dev: Any) -> Array:
    """`of` less `dev`; 0 where rounding alone is left, since values without a spread go other ways."""
    left = of - dev
    result: Array = np.where(np.abs(left) > ROUNDING * np.abs(of), left, 0.0)
    return result


def _mean(of: Array) -> Array:
    """Over the nodes, the first dimension."""
    result: Array = (_WEIGHTS @ of.reshape(len(of), -1)).reshape(of.shape[1:])
    return result


def evened(y: State, x: State) -> State:
    """Batch norm divides each channel by its own variance, and channels differ (`State.channel_spread`).

    Where a channel's data part is g times the average, its noise share is noise/(g·data + noise). The average
    over g (log-normal, mean 1) of g·test/(g·data + noise) is below its value at g = 1: channels with a small
    signal lose more.
    """
    width = np.log1p(x.channel_spread)[..., None]
    g = np.exp(np.multiply.outer(_NODES, np.sqrt(width)) - width / 2)
    noise = np.maximum(x.train_var - x.data, 0.0)
    total = x.data + noise
    channel = np.maximum(g * x.data + noise, 1e-300)
    kept = _mean(g * total / channel)  # of what the data cause, against all channels alike
    added = _mean(total / channel)  # the same for the noise
    var = y.sig**2 * by_row(kept) + np.maximum(y.var - y.sig**2, 0.0) * by_row(added)
    return replace(
        y,
        t_var=y.t_var * kept,
        sig=y.sig * np.sqrt(by_row(kept)),
        var=var,
        data=y.data * kept,
        noise=y.noise * by_row(added),
        rho=whitened(y.rho, x.kernel_size, x.channel_spread),
        channel_spread=np.zeros_like(x.channel_spread),
    )


def self_norm(x: State, spec: NormSpec, weight: Any, bias: Any) -> State:
    """Layer, group, RMS and instance norm."""
    if values(weight) is not None and x.channels > 1:
        x = x.per_channel()
    share = x.counts / x.counts.sum()

    def energy(mean: Array, dev: Array, var: Array) -> tuple[Array, Array]:
        if spec.family == "instance":
            return mean, var
        centre = (
            np.zeros_like(mean)
            if spec.family in ("rms", "local-response")
            else np.zeros_like(mean) + (mean @ share)[..., None]
        )
        return centre, np.zeros_like(mean) + ((var + dev**2 + (mean - centre) ** 2) @ share)[..., None]

    centre, var = energy(x.train_mean, x.train_dev, x.train_var)
    t_centre, t_var = energy(x.t_mean, x.t_dev, x.t_var)
    gain, shift = _affine(weight, bias, x.groups)
    if spec.family == "instance":
        x = replace(x, dev=x.dev - by_row(x.train_dev), t_dev=np.zeros_like(x.t_dev))
    # a mask that all of the normalised values share is divided out again; one per element is not
    x = x if x.mask == "element" else x.collapse()
    return rescaled(
        x, centre, 1 / np.sqrt(var + spec.eps), t_centre, 1 / np.sqrt(t_var + spec.eps), gain, shift
    )


@several
@module("_NormBase", "GroupNorm", "LayerNorm", "RMSNorm", "LocalResponseNorm")
@function("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm")
def norm(call: Call) -> State:
    """Any norm that the trace lists; `ledger` reads its Δ from the input before this is called."""
    site = call.ledger.norms.get(call.node)
    m: Any = call.module
    x = call.x
    if m is not None:
        weight, bias = getattr(m, "weight", None), getattr(m, "bias", None)
        running = (getattr(m, "running_mean", None), getattr(m, "running_var", None))
    elif call.node.target in NORMS:
        arguments = NORMS[call.node.target]
        weight, bias = call.arg(*arguments.weight), call.arg(*arguments.bias)
        running = (call.arg(*arguments.mean), call.arg(*arguments.variance))
    else:
        weight = call.arg(2, "weight")
        bias = call.arg(3, "bias")
        running = (None, None)
    gain = values(weight)
    if gain is not None and (gain < 0).any():
        call.ledger.turning.add(call.node)
    spec = site.spec if site is not None else None
    if spec is None:
        family = {"batch_norm": "batch", "instance_norm": "instance", "rms_norm": "rms"}.get(
            call.name, "layer"
        )
        spec = NormSpec(call.name, family, tracks=family == "batch")
    if spec.family in ("layer", "rms") and call.in_shape:
        x = x.on(*_normalised_axis(call, x))
    elif call.in_shape:
        axis = 1 if len(call.in_shape) > 1 else 0
        x = x.on(axis, call.in_shape[axis])
    if spec.family in ("batch", "sync-batch") or (spec.family == "instance" and spec.tracks):
        y = batch_norm(x, spec, weight, bias, running, call.ledger.trained)
    else:
        y = self_norm(x, spec, weight, bias)
    return _activated(call, y)


def before_norm(call: Call, largest: Callable[[State], State]) -> State | None:
    """The largest values of what a norm has made, by way of those before it: a rectifier's long tail, which
    decides about them, is seen there and not in the moments behind. None where no norm has made them, or one
    that turns channels about.
    """
    source = call.node.all_input_nodes[0]
    if source not in call.ledger.norms or source in call.ledger.turning:
        return None
    x, y = call.ledger.results.get(source.all_input_nodes[0]), call.x
    if not isinstance(x, State) or x.groups != y.groups or not np.array_equal(x.counts, y.counts):
        return None
    scale, t_scale = np.sqrt(quotient(y.train_var, x.train_var)), np.sqrt(quotient(y.t_var, x.t_var))
    whole = largest(x)
    moved = replace(
        whole,
        dev=whole.dev - (x.train_dev - quotient(y.train_dev, scale)),
        t_dev=whole.t_dev - (x.t_dev - quotient(y.t_dev, t_scale)),
    )
    centre, t_centre = x.train_mean - quotient(y.train_mean, scale), x.t_mean - quotient(y.t_mean, t_scale)
    return rescaled(moved, centre, scale, t_centre, t_scale, 1.0, 0.0)


def _activated(call: Call, y: State) -> State:
    """The activation that a norm module of timm's has inside (`BatchNormAct2d.act`)."""
    inner = getattr(call.module, "act", None)
    if not isinstance(inner, torch.nn.Module) or isinstance(inner, torch.nn.Identity):
        return y
    transfer = find_module(type(inner))
    if transfer is None:
        call.rough()
        return y
    y = y if takes_several(transfer) else of_a_single(y)
    result: State = transfer(replace(call, name=type(inner).__name__, args=(y,), kwargs={}, module=inner))
    return result


def _normalised_axis(call: Call, x: State) -> tuple[int, int]:
    """The channel axis of a layer norm: the last one, or the second where the class is channels-first."""
    shape = call.in_shape
    weight = getattr(call.module, "weight", None)
    size = int(weight.numel()) if isinstance(weight, torch.Tensor) else shape[-1]
    if x.axis < len(shape) and shape[x.axis] == size:
        return x.axis, size
    if size == shape[-1] or len(shape) < 2:
        return len(shape) - 1, shape[-1]
    return (1, shape[1]) if shape[1] == size else (x.axis, x.channels)


@function("normalize")
def unit_length(call: Call) -> State:
    """F.normalize: divides by the length, in each mode by its own; RMS norm up to a number."""
    x = call.x
    scaled = self_norm(x, NormSpec("F.normalize", "rms", tracks=False, eps=0.0), None, None)
    dim = call.arg(2, "dim", 1)
    length = call.in_shape[int(dim)] if isinstance(dim, int) and call.in_shape else 1
    return scaled.scaled(1 / math.sqrt(max(length, 1)))
