"""Dropout in all its forms: one mask of mean 1 with two values, at probability π₀ and π₁.

Derivation. x·m has the component x·m_j with probability π_j. Inverted dropout: m is 0 with probability p and
1/k with probability k. Uout, Gaussian dropout and random gates: two values at 1 ± s^½ have the same mean and
variance. The noise that the mask adds is s·E[x²], E[x²] taken in train mode, so it masks noise from further
up as well. A mask on elements that have one pending multiplies: a component for each pair of their values.
What the mask is shared over decides how the noise adds up later: a channel's mask (Dropout2d) is the same at
all positions, a sample's (DropPath) in all channels as well. The shared part of the noise is the part of
E[x²] that is the same everywhere.

A mean of tensors by random weights Σw·x: the sum of the weights is a mask on the even mean, and what the
weights differ by adds Σ Var(w)·Var(x), less what that mask accounts for (`trace/blends.py`).

Alpha dropout sets dropped values to α' and then maps a·x + b so that mean 0 and variance 1 are kept
(Klambauer et al. 2017, Sec. 1): the dropped component is the constant a·α' + b, the kept one a·x + b.

DropBlock zeroes blocks of b^d positions; its masks overlap and are no independent groups. Approximation: one
mask for each element. Noise per position is exact so; that neighbours share it is left out, so what is left
of it behind kernels whose weights agree and behind average pooling comes out too small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropout_lint.layers import DropoutSpec
from dropout_lint.prediction.abreast import level
from dropout_lint.prediction.algebra import mixed
from dropout_lint.prediction.parts import by_row, quotient, replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State, align
from dropout_lint.terms import Noise

ALPHA_PRIME = -1.0507009873554805 * 1.6732632423543772

MOST_PENDING = 8
"""An element's masks are told apart up to this number of components, and are one normal beyond."""

TRACE_OF_NOISE = 1e-3
"""Part of a variance that stands for a draw which moves whole batches alone."""

Sources = npt.NDArray[np.bool_]


def noise_pair(x: State, pair: float, tied: Sources) -> Array:
    """(S, G) mean correlation of the noise over pairs whose data part correlates by `pair`.

    Noise of a shared mask is (m - 1)·x. Its correlation is (c² + v·ρ)/(c² + v), of which
    `State.shared_by_positions` is the value at large distances; the rest of it goes with ρ. Noise of
    separate masks has the shared part.
    """
    far = float(np.clip(x.rho[-1], 0.0, 0.999))
    near = max((pair - far) / (1 - far), 0.0)
    result: Array = x.shared_by_positions + (1 - x.shared_by_positions) * np.where(tied, near, 0.0)[:, None]
    return result


@dataclass(frozen=True)
class Draw:
    """One of the values that a dropout makes of x, `factor`·x + `shift`, and its probability.

    Attributes:
        fill: variance of normal noise that is added.
    """

    probability: float
    factor: float
    shift: float = 0.0
    fill: float = 0.0


def draws(spec: DropoutSpec) -> tuple[Draw, ...]:
    """The values that dropout `spec` takes; none where it makes no noise, multiplies by nothing, or is not
    known.
    """
    if not spec.is_noisy or math.isnan(spec.p) or spec.noise.mask.of_calls:
        return ()
    if spec.noise is Noise.BLEND:
        mean, spread = spec.weights[0], math.sqrt(spec.weights[1])
        return Draw(0.5, mean - spread), Draw(0.5, mean + spread)
    p = min(spec.p, 1 - 1e-6)
    if not spec.noise.drops:
        spread = math.sqrt(min(spec.mask_variance, 1e6))
        return Draw(0.5, 1 - spread), Draw(0.5, 1 + spread)
    if spec.noise.mask.keeps_moments:
        a = ((1 - p) * (1 + ALPHA_PRIME**2 * p)) ** -0.5
        b = -a * ALPHA_PRIME * p
        return Draw(p, 0.0, a * ALPHA_PRIME + b), Draw(1 - p, a, b)
    fills = spec.block is not None and spec.block.fills
    kept = 1 / (1 - p) if spec.rescales and not fills else 1.0
    kept = kept if spec.kept is None else spec.kept
    return Draw(p, 0.0, fill=float(fills)), Draw(1 - p, kept)


def drop(x: State, spec: DropoutSpec, row: int, over: str = "element") -> State:
    """`x` after dropout `spec`, whose noise goes to `row`; a draw of its mask is shared over `over`."""
    drawn = draws(spec)
    if not drawn:
        return x
    if not (x.mask == over == "element" and x.source >= 0 and x.components <= MOST_PENDING):
        x = x.collapse()
    x = x if spec.scale == 1 else x.scaled(spec.scale)
    masked = _masked(x, drawn, over, row)
    return _blended(masked, x, spec.mask_variance, row) if spec.noise is Noise.BLEND else masked


def _blended(y: State, x: State, relative: float, row: int) -> State:
    """`y`, the mean `x` of independent tensors times the sum of their random weights, with what it adds that
    these are not even: each tensor's deviation from the mean that all share, times the spread of its weight.
    """
    y, x = y.collapse(), x.collapse()
    added = relative * x.var[..., 0, :]
    centred = replace(x, mean=np.zeros_like(x.mean), dev=np.zeros_like(x.dev))
    return with_noise(replace(y, var=y.var + by_row(added)), centred, added, "sample", row)


def without_layer(y: State, x: State, p: float, row: int) -> State:
    """A layer's result `y`, for which `x` stands in the part `p` of all batches (LayerDrop).

    Var = (1 - p)·Var y + p·Var x, each within its batches, where it is the data's: a batch has the one or the
    other. What is put down as noise only tells where this draw has gone.
    """
    y, x = align(*level(y.collapse(), x.collapse()))
    both = mixed([y, x], [1 - p, p], y.rho)
    tested = replace(both, t_mean=y.t_mean, t_dev=y.t_dev, t_var=y.t_var)
    return with_noise(tested, y, TRACE_OF_NOISE * p * (1 - p) * both.data, "sample", row)


def _masked(x: State, drawn: tuple[Draw, ...], over: str, row: int) -> State:
    """x·m for a mask m that takes the values `drawn`.

    x·m = x·E[m] + x·(m - E[m]): older noise stays what it was, times E[m], which is 1 for inverted dropout.
    Where each element of x has a mask pending already, there is a component for each pair of their values;
    all that are dropped are one.
    """
    pairs = [
        (draw, k, draw.probability * (float(x.prob[k]) if draw.factor else 1.0))
        for draw in drawn
        for k in range(x.components if draw.factor else 1)
    ]
    of = [k for _, k, _ in pairs]
    prob, column, shift, fill = (
        np.array(values)[:, None]
        for values in zip(*((p, d.factor, d.shift, d.fill) for d, _, p in pairs), strict=True)
    )
    middle = sum(draw.probability * draw.factor for draw in drawn)
    spread = sum(draw.probability * draw.factor**2 for draw in drawn) - middle**2
    plain = not shift.any() and not fill.any()
    before = x.levels if x.components > 1 else (1.0,)
    growth = x.covariance_growth
    steady = replace(
        x,
        noise=x.noise * middle**2,
        covariance_growth=None if growth is None else growth / middle**2,
        withheld=x.withheld / middle**2,
    )
    added = spread * (x.prob @ (x.var + x.mean**2 + x.dev**2))
    y = replace(
        with_noise(steady, x, added, over, row),
        data=x.data * middle**2,
        prob=prob[:, 0],
        mean=x.mean[..., of, :] * column + shift,
        dev=x.dev[..., of, :] * column,
        sig=x.sig[..., of, :] * column,
        var=x.var[..., of, :] * column**2 + fill,
        mask=over,
        source=row,
        skew=x.skew and x.skew.components(of),
        levels=tuple(draw.factor * before[k] for draw, k, _ in pairs) if before and plain else (),
    )
    return y if plain else y.balanced()


def with_noise(y: State, x: State, added: Array, over: str, row: int) -> State:
    """`y` with (G,) noise `added` to what `row` makes, by a fresh mask of `x` that is shared over `over`."""
    if over != "element":
        mean, dev, sig, var = (of[..., 0, :] for of in (x.mean, x.dev, x.sig, x.var))
        steady = mean**2 + dev**2 + sig**2 * x.rho[..., -1:]
        second = mean**2 + dev**2 + var
        share = quotient(steady, second)
    else:
        share = np.zeros_like(added)
    noise, shared = y.noise.copy(), y.shared_by_positions.copy()
    old, data_correlation = y.shared_by_channels.copy(), y.data_correlation.copy()
    here, before = np.s_[..., row, :], noise[..., row, :]
    total = before + added
    shared[here] = quotient(before * shared[here] + added * share, total)
    old[here] = 1.0 if over == "sample" else quotient(before * old[here], total)
    data_correlation[here] = float(over == "sample")
    noise[here] = total
    return replace(
        y,
        noise=noise,
        shared_by_positions=shared,
        shared_by_channels=old,
        data_correlation=data_correlation,
    )
