"""A linear map with the weights of a layer: what linear layers and convolutions of every kind have in common.

Derivation. Per output channel o and tap t, z_o = Σ_t Σ_i w_oit x_i(p + t). Noise of separate masks adds up in
power:

    Var noise(z_o) = Σ_t f_t Σ_i w_oit² Var noise(x_i)

f_t is the fraction of output positions at which tap t lies inside the input (zero padding: at 2×2 with
padding 1 a 3×3 kernel sees 4 of its 9 taps). Noise shared by all positions of a channel adds up over the
taps first: Σ_tt' f_tt' w_t w_t', f_tt' the fraction at which both taps see the input. Noise (m - 1)·x of a
mask that all positions share has that part from the mean of x, and correlates like x for the rest of it:
Σ_tt' f_tt' ρ_tt' w_t w_t'. So does the signal within a channel; channels are taken as separate, which for
zero-mean weights is the expectation. Where the padding cuts taps off, a mean becomes a pattern over
positions, and that is variance of the norm's input as well (`State.border_variance`): with u_ot = Σ_i
w_oit c_i it is Σ_tt' u_ot u_ot' (f_tt' - f_t f_t').

With weights on meta, w has mean 0 and its initialiser's variance: kaiming_uniform(a = √5), 1/(3·fan_in), as
torch's layers use it. The factor hardly matters, it cancels at the next norm.

Zero-mean weights add up what the data do to the inputs with random signs, so the outputs' variances differ:
with C the inputs' covariance (over channels and taps), wᵀCw has mean σ²·tr C and relative variance 2·tr
C²/(tr C)², and two outputs have the squared correlation tr C²/(tr C)² (`State.channel_spread`,
`State.channel_correlation`). Noise of separate masks has no such spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dropout_lint.prediction.abreast import Apart, of_a_single, same_for_all
from dropout_lint.prediction.correlation import between, mean_correlation
from dropout_lint.prediction.expected import smoothed
from dropout_lint.prediction.ops.dropout import Sources
from dropout_lint.prediction.ops.kernel import Taps, apply, powers, responses, squares
from dropout_lint.prediction.parts import quotient, replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State

DEFAULT_GAIN = 1 / 3
"""Weight variance times fan-in of torch's default initialiser of linear and convolution layers."""

POINT_GAIN = 0.4
"""Power of the amplification that a kernel of one tap takes part in: neighbouring positions add up in larger
ones.
"""

CORRELATED = ("test", "data", "covariance_growths", "signal", "energy_slope")
"""Rows that correlate between positions like the data part."""


def linear_map(  # noqa: PLR0917 - what layers of every kind have in common
    x: State,
    axis: int,
    c_in: int,
    c_out: int,
    groups: int,
    taps: Taps,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    tied: Sources | None = None,
    learned: float | Array = 1.0,
) -> State:
    """State of Σ w x + b; `weight` is (c_out, c_in / groups, T), or None where it has no values.

    `learned` is the gain that training is expected to give weights without values (`expected`).
    """
    x = replace(x, before_relu=None, skew=None)
    if not x.sample_wide and not (x.mask == "channel" and x.source >= 0 and groups == c_in):
        x = x.collapse()
    overlap = _overlap(x, c_in / groups, taps)
    x = replace(
        x,
        channel_correlation=overlap if groups < c_in else x.channel_correlation * overlap,
        channel_spread=2 * overlap,
        kernel_size=taps.kernel_size,
        border_variance=None,
        t_border_variance=None,
    )
    if weight is None:
        x = x if isinstance(learned, float) else same_for_all(x, len(learned))
        y = _expected(x, axis, c_in, c_out, groups, taps)
        return y if isinstance(learned, float) and learned == 1 else _trained(y, x, np.asarray(learned))
    x = of_a_single(x).on(x.axis, c_in).per_channel()
    k, gain = x.components, x.trained_gain if len(taps.single) > 1 else x.trained_gain**POINT_GAIN
    active = np.flatnonzero(x.noise.any(1))  # dropouts that lie ahead; the others have nothing to be carried
    means, rows = _carried_rows(x, active)
    if tied is not None and taps.neighbours and tied[active].any():
        rows["smooth"] = x.noise[active] * (1 - x.shared_by_positions[active]) * tied[active][:, None]
    squared, added_up = squares(weight, taps.single, _patterns(x, taps, rows))
    power = powers(squared, rows, groups)
    if "data" in added_up:
        correlated = {name: block for name, block in rows.items() if name in CORRELATED}
        separate = power["signal"]
        power |= powers(added_up.pop("data"), correlated, groups)
        power["var"] = power["var"] + power["signal"] - separate
    mean, border = responses(weight, means, taps, groups)
    pattern, t_pattern = border["train" if k > 1 else "components"][0], border["test"][0]
    test, data = power["test"][0] + t_pattern, power["data"][0] + pattern
    signal, var = power["signal"] + border["components"], power["var"] + border["components"]
    amplifies = power["data"][0]
    coherent = {name: apply(matrix, rows[name], groups) for name, matrix in added_up.items()}
    noise, more = _noise_behind(x, active, power, mean, coherent)
    var = var + more  # the train variance holds the same noise
    energy_slope = mean.get("energy_slope", (None, None))
    if "energy_slope" in rows:  # what channels have in common adds up before it is squared
        more, t_more = mean["energy_slope"] ** 2 - power["energy_slope"]
        within = more * power["signal"] / np.maximum(power["data"], 1e-300)
        data, test, amplifies = data + more, test + t_more, amplifies - power["energy_slope"][0]
        signal, var = np.maximum(signal + within, 0.0), var + within
    spread = np.sqrt(power["spread"]) if "spread" in rows else np.zeros((1 + k, c_out))
    shift = 0.0 if bias is None or bias.is_meta else bias.detach().double().numpy()
    result = x.changed(
        axis=axis,
        counts=np.ones(c_out),
        t_mean=mean["test"][0] + shift,
        t_dev=spread[0],
        t_var=test,
        mean=mean["components"] + shift,
        dev=spread[1:],
        sig=np.sqrt(signal),
        var=var,
        data=data,
        energy_slope=energy_slope[0],
        t_energy_slope=energy_slope[1],
        covariance_growth=np.divide(
            power["covariance_growths"][0], power["data"][0], out=np.ones(c_out), where=power["data"][0] > 0
        ),
        border_variance=pattern,
        t_border_variance=t_pattern,
        **noise,
        shared_by_channels=np.ones((len(x.noise), c_out)),
        trained_gain=gain,
        levels=() if bias is not None else x.levels,
        from_weight_layer=True,
    )
    result = amplified(result, np.full(c_out, gain), amplifies)
    # a mask on all channels moves all their means at once: those add up before they are squared
    return result.balanced() if k > 1 else result


def _carried_rows(x: State, active: npt.NDArray[Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    """What goes through the weights themselves, and what goes through their squares; rows of (C,)."""
    loud = x.noise[active]
    means = {"test": x.t_mean[None], "components": x.mean}
    if x.components > 1:
        means["train"] = x.train_mean[None]
    rows = {
        "test": x.t_var[None],
        "data": x.data[None],
        "covariance_growths": (x.covariance_growths * x.data)[None],
    }
    rows |= {"var": x.var, "signal": x.sig**2, "noise": loud}
    if (x.shared_by_channels[active] < 1).any():
        rows["fresh"] = loud * (1 - x.shared_by_channels[active])
    if x.shared_by_positions[active].any():
        rows["shared_by_positions"] = loud * x.shared_by_positions[active]
    if x.energy_slope is not None:
        means["energy_slope"] = np.stack(x.energy_slopes)
        rows["energy_slope"] = means["energy_slope"] ** 2
    if np.any(x.dev) or np.any(x.t_dev):
        rows["spread"] = np.concatenate([x.t_dev[None], x.dev]) ** 2
    if x.sample_mask_slope is not None:
        means["sample_mask_slope"] = x.sample_mask_slopes[active]
        rows["sample_mask_slope"] = means["sample_mask_slope"] ** 2
    return means, rows


def _patterns(x: State, taps: Taps, rows: Mapping[str, Array]) -> dict[str, Array]:
    """By the rows that it holds for, (T, T): how often two taps both see the input, times its correlation."""
    if not taps.neighbours:
        return {"shared_by_positions": taps.pair} if "shared_by_positions" in rows else {}
    near = between(x.rho, taps.kernel_size)
    found = {"data": taps.pair * near}
    if "shared_by_positions" in rows:
        found["shared_by_positions"] = taps.pair
    if "smooth" in rows:
        far = min(float(x.rho[-1]), 0.999)
        found["smooth"] = taps.pair * np.maximum((near - far) / (1 - far), 0.0)
    return found


def _noise_behind(
    x: State,
    active: npt.NDArray[Any],
    power: Mapping[str, Array],
    mean: Mapping[str, Array],
    coherent: Mapping[str, Array],
) -> tuple[dict[str, Array | None], Array | float]:
    """`noise`, `shared_by_positions`, `newly_shared`, `sample_mask_slope` behind a layer, and how much more
    than Σ w²·noise the noise is.

    `coherent` has what neighbouring positions hold in common, added up over the taps before it is squared;
    those by masks of whole samples are so over all inputs.
    """
    carried, more = power["noise"], np.zeros_like(power["noise"])
    noise, shared = np.zeros((2, len(x.noise), carried.shape[1]))
    for name, added in coherent.items():
        more = more + added - power[name]
    sample_mask_slope = None
    if "sample_mask_slope" in power:
        more = more + mean["sample_mask_slope"] ** 2 - power["sample_mask_slope"]
        sample_mask_slope = np.zeros_like(noise)
        sample_mask_slope[active] = mean["sample_mask_slope"]
    more = np.maximum(more, -carried)  # correlations that are about right may leave less than nothing
    carried = carried + more
    noise[active] = carried
    newly_shared = None
    if "fresh" in power:
        newly_shared = np.zeros_like(noise)
        newly_shared[active] = _share(power["fresh"], power["noise"])
    if "shared_by_positions" in coherent:
        shared[active] = _share(coherent["shared_by_positions"], carried)
    found = {
        "noise": noise,
        "shared_by_positions": shared,
        "newly_shared": newly_shared,
        "sample_mask_slope": sample_mask_slope,
    }
    return found, more.sum(0)


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def amplified(x: State, factor: Array, signal: Array, amplified_noise: Array | None = None) -> State:
    """Trained weights add up what channels hold in common: Var is `factor` times Σ w²·data for the data part.

    `signal` is the part of `x.data` that this holds for (not the pattern that padding makes),
    `amplified_noise` the noise, (S, G): what the state says where it is not given.
    """
    if (factor == 1).all():
        return x
    more = (factor - 1) * signal
    amplified_noise = x.amplified_noise if amplified_noise is None else amplified_noise
    noise = x.noise + (factor - 1)[..., None, :] * amplified_noise
    data = np.maximum(x.data + more, 0.0)
    scale = quotient(data, x.data, 1.0)
    rows = scale[..., None, :]
    var = x.var + more[..., None, :] + (noise - x.noise).sum(-2)[..., None, :]
    if x.components > 1:  # what a pending mask leaves of each
        older, now = (np.delete(rows, x.source, axis=-2).sum(-2) for rows in (x.noise, noise))
        louder = np.divide(now, older, out=np.ones_like(now), where=older > 0)
        var = x.sig**2 * rows + np.maximum(x.var - x.sig**2, 0.0) * louder[..., None, :]
    y = replace(
        x,
        t_var=np.where(more > 0, x.t_var + x.covariance_growths * more, x.t_var * scale),
        sig=x.sig * np.sqrt(rows),
        var=np.maximum(var, 0.0),
        data=data,
        noise=noise,
    )
    return y if x.components == 1 else y.balanced()


def _overlap(x: State, fan_in: float, taps: Taps) -> Any:
    """tr C²/(tr C)² of the data part over the inputs of one output, channels and taps taken as separable."""
    among_taps = 1.0
    if taps.kernel_size:
        n = math.prod(taps.kernel_size)
        among_taps = mean_correlation(x.rho**2, taps.kernel_size) if n > 1 else 1.0
    return (1 / fan_in + (1 - 1 / fan_in) * x.channel_correlation) * among_taps


def _expected(x: State, axis: int, c_in: int, c_out: int, groups: int, taps: Taps) -> State:  # noqa: PLR0917 - the same, without values
    """Expectation over weights of mean 0 and variance 1/(3·fan_in), and biases of the same variance."""
    x = x.on(x.axis, c_in)
    count = len(taps.single)
    fan_in = c_in / groups * count
    inside, cut, whole = taps.means
    if groups == c_in and x.groups > 1 and c_out % c_in == 0:  # depthwise: the groups stay apart
        counts, gather = x.counts * (c_out / c_in), np.eye(x.groups)
    else:
        counts, gather = np.array([float(c_out)]), (x.counts / x.counts.sum())[:, None]

    alone = gather.size == 1  # the one group is the mean over all

    def power(rows: Array) -> Array:
        result: Array = DEFAULT_GAIN * (rows if alone else rows @ gather)
        return result

    def spread(mean: Array, dev: Array) -> Array:
        result: Array = np.sqrt(whole * power(mean**2 + dev**2) + DEFAULT_GAIN / fan_in)
        return result

    covariance_growths, plain = power(x.covariance_growths * x.data), power(x.data)
    t_cut, border = cut * power(x.t_mean**2 + x.t_dev**2), cut * power(x.mean**2 + x.dev**2)
    noise = inside * power(x.noise)
    return replace(
        x,
        axis=axis,
        counts=counts,
        t_mean=np.zeros(len(counts)),
        t_dev=spread(x.t_mean, x.t_dev),
        t_var=inside * power(x.t_var) + t_cut,
        mean=np.zeros((x.components, len(counts))),
        dev=spread(x.mean, x.dev),
        sig=np.sqrt(inside * power(x.sig**2) + border),
        var=inside * power(x.var) + border,
        data=inside * power(x.data) + cut * power(x.train_mean**2 + x.train_dev**2),
        noise=noise,
        covariance_growth=quotient(covariance_growths, plain, 1.0),
        energy_slope=None,
        t_energy_slope=None,
        sample_mask_slope=None,
        shared_by_positions=quotient(inside * power(x.noise * x.shared_by_positions), noise),
        shared_by_channels=np.ones(noise.shape),
    )


def _trained(y: State, x: State, learned: Array) -> State:
    """`y`, a layer's output for the input `x`, with weights that have learned to add up the data.

    Noise of masks that pass their first weight layer has no direction that these could know. The scale of
    the whole is left as it is: how far weights have grown, shapes do not tell. Nor do they tell that test
    mode raises what channels have in common, as it does behind a rectifier in the last layers.
    """
    none = learned == 1  # the trainings that add up nothing more
    if y.components > 1 and none.any():
        raise Apart
    noise, amplifies = x.noise @ x.counts, x.amplified_noise @ x.counts
    part = quotient(amplifies, noise)
    assert y.covariance_growth is not None
    most = np.asarray(x.withheld)[..., None]
    growth = np.where(none, y.covariance_growth, np.minimum(y.covariance_growths, most))
    z = replace(y, covariance_growth=growth, rho=np.where(none, y.rho, smoothed(y.rho, learned)))
    z = amplified(z, learned * np.ones(y.groups), y.data, y.noise * part[..., None])
    scale = np.sqrt(quotient(y.train_var @ y.counts, z.train_var @ z.counts, 1.0))
    return z.scaled(scale[..., None])
