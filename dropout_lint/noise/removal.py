"""What a norm's Δ would be without each of the dropouts: which of them is its main cause.

Noise and data grow from node to node as the ledger says they do with all dropouts on. Without dropout i four
things differ: it makes no noise; a younger dropout's s·E[x²] is of an E[x²] that lacks i's noise; a batch
norm divides by a smaller deviation, so that the data, and the noise that is left, weigh more against what is
added behind it; and an activation passes another part of what it gets. That is followed for all dropouts at
once, in one walk beside the ledger's; the ledger once more for each would take many times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx

from dropout_lint.noise.quadrature import Array, MomentFunction, skewed_rectified
from dropout_lint.noise.state import State
from dropout_lint.noise.transfer.activation import moments_of, spread_moments
from dropout_lint.noise.transfer.base import Call, function_name

CHANNELS = 128
"""Of a tensor with more channels than this, every second, third, … is looked at."""
LEAST = 1e-6
"""Least noise, against the variance, by which dropouts are told apart."""
TINY = 1e-12
"""A variance below this is none."""
LEAST_SHARE = 0.03
"""An activation is evaluated anew for dropouts that cause this share of the shortfall or more."""
NONE = -9
"""Stands for no dropout where dropouts are told by their row."""
MOST_FACTOR = 4.0
"""Bound on the factor by which the shortfall behind an activation is corrected."""
MOST_DRIFT = 3.0
"""Bound on how far test means move without a dropout, as a multiple of how far they move with it."""


@dataclass(frozen=True)
class Removal:
    """One tensor: S dropouts, G channels (or groups of them). Row i of an (S, G) array is without dropout i.

    Attributes:
        state: what the ledger knows of the tensor with all dropouts on.
        noise: (S, G) how much Var_test lacks against Var_train for each dropout. In sum that is less than
            the ledger's noise where a nonlinear function gives test variance back as noise is taken away.
        kept: (S, G) test variance, as a multiple of what it is with all.
        left: (S, G) noise of the other dropouts, likewise.
        drift: (S, G) distance of the test mean from the train mean, likewise.
    """

    state: State
    noise: Array
    kept: Array
    left: Array
    drift: Array

    @property
    def counts(self) -> Array:
        """(G,) how many channels each stands for."""
        return self.sampled(self.state.counts)

    @property
    def t_var(self) -> Array:
        """(G,) test variance with all dropouts."""
        return self.sampled(self.state.t_var)

    @property
    def moments(self) -> Array:
        """(S, G) noise as the ledger has it."""
        return self.sampled(self.state.noise)

    @property
    def shift(self) -> Array:
        """(2, G) test less train: mean, and its spread over the channels of a group."""
        s = self.state
        return self.sampled(np.stack([s.t_mean - s.train_mean, s.t_dev - s.train_dev]))

    @property
    def others(self) -> Array:
        """(S, G) noise of the other dropouts, with all of them on."""
        result: Array = np.maximum(self.noise.sum(0) - self.noise, 0.0)
        return result

    @property
    def test(self) -> Array:
        """(S, G) test variance."""
        result: Array = self.t_var * self.kept
        return result

    @property
    def train(self) -> Array:
        """(S, G) train variance."""
        result: Array = self.test + self.others * self.left
        return result

    @property
    def raised(self) -> Array:
        """(S,) by how much the removal of each raises Δ."""
        test, train = self.test @ self.counts, self.train @ self.counts
        now = float(self.t_var @ self.counts)
        total = now + float(self.noise.sum(0) @ self.counts)
        without = np.divide(test, train, out=np.ones_like(train), where=train > 0)
        result: Array = without - (now / total if total > 0 else 1.0)
        return result

    def sampled(self, values: Array) -> Array:
        """The channels that are looked at, of an array over all."""
        return values[..., :: _step(self.state.groups)]


def _step(groups: int) -> int:
    return -(-groups // CHANNELS)


def _clean(state: State) -> Removal:
    shape = (len(state.noise), len(state.counts[:: _step(state.groups)]))
    return Removal(state, np.zeros(shape), *(np.ones(shape),) * 3)


def follow(call: Call, value: Any, known: Mapping[fx.Node, Any], env: Mapping[fx.Node, Any]) -> Any:
    """What removals change at the result of a node.

    Args:
        call: the node.
        value: what the ledger worked out for it.
        known: the same of the nodes before it, where there was noise.
        env: what the ledger worked out for them.

    Returns:
        A `Removal` for a tensor, None for one without noise, a tuple of these for a tuple.
    """
    if isinstance(value, (tuple, list)):
        return tuple(follow(call, item, known, env) for item in value)
    if not isinstance(value, State) or not value.noise.any():
        return None
    inputs = [pair for n in call.node.all_input_nodes for pair in _paired(env.get(n), known.get(n))]
    same = next((x for x in inputs if x.state is value), None)
    if same is not None or not inputs:
        return same or _clean(value)
    y = _joined(call, inputs, value)
    rows = [row for row, _ in call.ledger.sources(call.node)]
    y.noise[rows] = y.moments[rows]
    y = _balanced(y, _unsure(inputs[0].state) if call.node in call.ledger.weight_layers else None)
    for row in rows:
        y = _masked(inputs[0], y, row)
    site = call.ledger.norms.get(call.node)
    if site is not None and site.spec.tracks and not site.spec.frozen:
        return _normalised(y)
    return _activated(call, inputs[0], y)


def _paired(value: Any, removal: Any) -> Iterator[Removal]:
    if isinstance(value, State):
        yield removal or _clean(value)
    elif isinstance(value, (tuple, list)):
        removals = removal if isinstance(removal, tuple) else (None,) * len(value)
        for item, one in zip(value, removals, strict=True):
            yield from _paired(item, one)


def _joined(call: Call, inputs: Sequence[Removal], value: State) -> Removal:
    """What the tensors that an operation reads bring to its channels, and how their noise has grown in it."""
    y, first = _clean(value), inputs[0]
    wide = y.kept.shape[1]
    mixes = call.node in call.ledger.weight_layers or (value.weighed and not first.state.weighed)
    joins = function_name(call.node.target) in ("cat", "concat")
    if joins and sum(x.state.groups for x in inputs) == value.groups:
        parts = [_columns(x) for x in inputs]
        moments, noise, kept, left, drift = (
            np.concatenate(column, axis=1)[:, _side_by_side(inputs)] for column in zip(*parts, strict=True)
        )
    elif len(inputs) == 1 and not mixes and first.state.groups == value.groups:
        moments, noise, kept, left, drift = _columns(first)
    else:
        mixes = mixes or any(x.kept.shape[1] not in (1, wide) for x in inputs)
        columns = zip(*(_weighted(x, mixes) for x in inputs), strict=True)
        sums = [sum(column, np.zeros(1)) for column in columns]
        moments, noise = sums[:2]
        kept, left, drift = (
            np.broadcast_to(_ratio(top, bottom), y.kept.shape)
            for top, bottom in zip(sums[2:5], sums[5:], strict=True)
        )
    grown = y.moments * np.divide(noise, moments, out=np.zeros(moments.shape), where=moments > 0)
    if not any(x.shift.any() for x in inputs) and y.shift.any():  # it moves means as far as there is noise
        drift = _ratio((grown.sum(0) - grown) * left, grown.sum(0))
    return replace(y, noise=grown, kept=kept, left=left, drift=drift)


def _columns(x: Removal) -> tuple[Array, ...]:
    return x.moments, x.noise, x.kept, x.left, x.drift


def _side_by_side(inputs: Sequence[Removal]) -> npt.NDArray[np.int_]:
    """Of the channels looked at in the parts of a concat, those that stand for the ones looked at in it."""
    places, start = [], 0
    for x in inputs:
        places.append(start + np.arange(x.state.groups) // _step(x.state.groups))
        start += x.kept.shape[1]
    whole = np.concatenate(places)
    return whole[:: _step(len(whole))]


def _weighted(x: Removal, mixes: bool) -> tuple[Array, ...]:
    """Noise, each multiple times what it counts by, and that; sums over the channels where an operation
    `mixes` them.
    """
    t_var = np.broadcast_to(x.t_var, x.kept.shape)
    others, square = x.others, np.broadcast_to((x.shift**2).sum(0), x.kept.shape)
    columns = (x.moments, x.noise, x.kept * t_var, x.left * others, x.drift * square, t_var, others, square)
    return tuple((column @ x.counts)[:, None] for column in columns) if mixes else columns


def _unsure(state: State) -> Array:
    """(S, 1) share of each dropout's noise whose growth in a weight layer is no plain Σ w²."""
    total = state.noise @ state.counts
    old = (state.noise * state.old) @ state.counts
    result: Array = np.divide(old, total, out=np.zeros_like(total), where=total > 0)[:, None]
    return result


def _balanced(x: Removal, unsure: Array | None = None) -> Removal:
    """The noise as large as the shortfall; what is to be corrected is taken from what is `unsure`."""
    train = x.sampled(x.state.train_var)
    short = np.maximum(train - x.t_var, LEAST * train)
    noise, now = x.noise, x.noise.sum(0)
    if unsure is not None:
        free = (unsure * noise).sum(0)
        more = np.divide(short - now, free, out=np.zeros_like(free), where=free > 0)
        noise = noise * np.maximum(1 + np.maximum(more, -1.0) * unsure, 0.02)
        now = noise.sum(0)
    return replace(x, noise=noise * np.divide(short, now, out=np.ones_like(now), where=now > 0))


def _masked(x: Removal, y: Removal, row: int) -> Removal:
    """Dropout `row` has masked x: the noise it makes goes with E[x²]."""
    s = x.state
    square = x.sampled(s.train_mean**2 + s.train_dev**2)
    total = square + x.t_var + x.noise.sum(0)
    energy = np.divide(square + x.train, total, out=np.ones_like(x.kept), where=total > 0)
    if energy.shape != y.kept.shape:
        energy = energy.mean(1, keepdims=True)
    others = y.others
    part = np.clip(np.divide(y.noise[row], others, out=np.zeros_like(others), where=others > 0), 0.0, 1.0)
    part[row] = 0.0
    return replace(y, left=(1 - part) * y.left + part * energy)


def _normalised(x: Removal) -> Removal:
    """Behind a batch norm: it divides by what train mode shows, which is less without a dropout."""
    total, train = x.t_var + x.noise.sum(0), x.train
    scale = np.divide(total, train, out=np.ones_like(train), where=train > 0)
    return replace(x, kept=x.kept * scale, left=x.left * scale, drift=x.drift * np.sqrt(scale))


def _activated(call: Call, x: Removal, y: Removal) -> Removal:
    """An activation evaluated for each removal, and with all dropouts on.

    With all on, the ledger knows better how it changes Δ; what is found without a dropout is corrected by the
    factor that takes the one shortfall to the other.
    """
    moments = moments_of(call)
    if moments is None or x.kept.shape != y.kept.shape:
        return y
    short = x.noise @ x.counts
    rows = np.flatnonzero(short > LEAST_SHARE * short.sum())
    total = x.t_var + x.noise.sum(0)
    train, test, drift = (
        np.concatenate([values[rows], base[None]])
        for values, base in ((x.train, total), (x.test, x.t_var), (x.drift, np.ones_like(total)))
    )
    gone = np.append(rows, NONE)[:, None] == x.sampled(x.state.pending)
    shift, train, test = _evaluated(x, moments, train, test, drift, gone)
    delta = np.clip(_ratio(test, train), LEAST, 1.0)
    all_on = y.t_var + y.noise.sum(0)
    known = np.clip(_ratio(y.t_var, all_on), LEAST, 1.0)
    factor = np.clip(_ratio(1 - known, 1 - delta[-1]), 1 / MOST_FACTOR, MOST_FACTOR)
    delta = 1 - np.minimum((1 - delta[:-1]) * factor, 1.0)
    train = all_on * _ratio(train[:-1], train[-1])
    along, square = (shift[:, :-1] * shift[:, -1:]).sum(0), (shift[:, -1] ** 2).sum(0)
    kept, left, drift = y.kept.copy(), y.left.copy(), y.drift.copy()
    kept[rows] = _ratio(train * delta, y.t_var)
    left[rows] = _ratio(train * (1 - delta), y.others[rows])
    drift[rows] = np.clip(_ratio(along, square), -MOST_DRIFT, MOST_DRIFT)
    return replace(y, kept=kept, left=left, drift=drift)


def _evaluated(  # noqa: PLR0917
    x: Removal, moments: MomentFunction, train: Array, test: Array, drift: Array, gone: Array
) -> tuple[Array, Array, Array]:
    """(2, R, G) test less train mean and their spreads, (R, G) train and test variance behind the activation.

    Args:
        x: its input.
        moments: the activation's.
        train, test, drift: (R, G) the input's variances and `Removal.drift`, for each removal R.
        gone: (R, G) where it is the pending mask that is removed: one normal component is left.
    """
    s, shape = x.state, train.shape
    mean, dev = x.sampled(s.train_mean), x.sampled(s.train_dev)
    scale = _ratio(train, x.sampled(s.train_var))
    root = np.where(gone, 0.0, np.sqrt(scale))[None]
    parts = x.sampled(s.mean)[:, None] - mean, x.sampled(s.dev)[:, None] - dev
    variance = np.where(gone, train, x.sampled(s.var)[:, None] * scale) if s.components > 1 else train[None]
    means = np.concatenate([(mean + drift * x.shift[0])[None], mean + parts[0] * root])
    devs = np.concatenate([(dev + drift * x.shift[1])[None], dev + parts[1] * root])
    variances = np.concatenate([test[None], variance])
    if s.skew is not None and not devs.any():
        skews = np.concatenate([x.sampled(s.skew.test)[None], x.sampled(s.skew.train)])[:, None]
        first, variance, _, _ = skewed_rectified(means, variances, np.broadcast_to(skews, means.shape))
        spread = np.zeros_like(first)
    else:
        first, spread, variance, _, _ = spread_moments(moments, means, devs, variances)
    seconds = variance[1:] + first[1:] ** 2 + spread[1:] ** 2
    mean, dev, second = (np.tensordot(s.prob, part, 1) for part in (first[1:], spread[1:], seconds))
    return np.stack([first[0] - mean, spread[0] - dev]), second - mean**2 - dev**2, variance[0].reshape(shape)


def _ratio(top: Array, bottom: Array) -> Array:
    """`top` / `bottom`, 1 where there is nothing to divide by."""
    shape = np.broadcast_shapes(top.shape, bottom.shape)
    result: Array = np.divide(top, bottom, out=np.ones(shape), where=np.abs(bottom) > TINY)
    return result
