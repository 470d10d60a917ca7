"""What a norm's Δ would be without each of the dropouts: which of them is its main cause.

Noise and data grow from node to node as the ledger says they do with all dropouts on. Without dropout i four
things differ: it makes no noise; a younger dropout's s·E[x²] is of an E[x²] that lacks i's noise; a batch
norm divides by a smaller deviation, so that the data, and the noise that is left, weigh more against what is
added behind it; and an activation passes another part of what it gets. That is followed for all dropouts at
once, in one walk beside the ledger's; the ledger once more for each would take many times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
LEAST_UNSURE = 0.02
"""Part of a dropout's noise that no correction takes away."""
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

    @cached_property
    def counts(self) -> Array:
        """(G,) how many channels each stands for."""
        return self.sampled(self.state.counts)

    @cached_property
    def t_var(self) -> Array:
        """(G,) test variance with all dropouts."""
        return self.sampled(self.state.t_var)

    @cached_property
    def moments(self) -> Array:
        """(S, G) noise as the ledger has it."""
        return self.sampled(self.state.noise)

    @cached_property
    def shift(self) -> Array:
        """(2, G) test less train: mean, and its spread over the channels of a group."""
        s = self.state
        result: Array = np.array([s.t_mean - s.train_mean, s.t_dev - s.train_dev])
        return self.sampled(result)

    @cached_property
    def others(self) -> Array:
        """(S, G) noise of the other dropouts, with all of them on."""
        result: Array = np.maximum(self.noise.sum(0) - self.noise, 0.0)
        return result

    @cached_property
    def test(self) -> Array:
        """(S, G) test variance."""
        result: Array = self.t_var * self.kept
        return result

    @cached_property
    def train(self) -> Array:
        """(S, G) train variance."""
        result: Array = self.test + self.others * self.left
        return result

    @cached_property
    def total(self) -> Array:
        """(G,) train variance with all dropouts."""
        result: Array = self.t_var + self.noise.sum(0)
        return result

    @property
    def raised(self) -> Array:
        """(S,) log of the factor by which the removal of each raises Δ.

        Dropouts with a norm between them make Δ a product, one factor each: the logs add up to that of Δ.
        """
        test, train = self.test @ self.counts, self.train @ self.counts
        without, now = _ratio(test, train), _ratio(self.t_var @ self.counts, self.total @ self.counts)
        result: Array = np.log(np.maximum(without, LEAST) / max(float(now), LEAST))
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
    before = call.node.all_input_nodes
    rows = [row for row, _ in call.ledger.sources(call.node)]
    if not isinstance(value, State) or not (rows or any(known.get(n) for n in before)):
        return None
    inputs = [x for n in before for x in _paired(env.get(n), known.get(n))]
    same = next((x for x in inputs if x.state is value), None)
    if same is not None or not inputs:
        return same or _clean(value)
    y = _joined(call, inputs, value)
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
        places = _side_by_side(inputs)
        columns = zip(*((x.moments, x.noise, x.kept, x.left, x.drift) for x in inputs), strict=True)
        moments, noise, kept, left, drift = (np.concatenate(column, axis=1)[:, places] for column in columns)
    elif len(inputs) == 1 and not mixes and first.state.groups == value.groups:
        moments, noise, kept, left, drift = first.moments, first.noise, first.kept, first.left, first.drift
    else:
        mixes = mixes or any(x.kept.shape[1] not in (1, wide) for x in inputs)
        columns = zip(*((_summed if mixes else _weighted)(x) for x in inputs), strict=True)
        moments, noise, *sums = (sum(column[1:], column[0]) for column in columns)
        kept, left, drift = (
            np.broadcast_to(_ratio(top, bottom), y.kept.shape)
            for top, bottom in zip(sums[:3], sums[3:], strict=True)
        )
    grown = y.moments * _quotient(noise, moments)
    if not any(x.shift.any() for x in inputs) and y.shift.any():  # it moves means as far as there is noise
        drift = _ratio((grown.sum(0) - grown) * left, grown.sum(0))
    return Removal(value, grown, kept, left, drift)


def _side_by_side(inputs: Sequence[Removal]) -> npt.NDArray[np.int_]:
    """Of the channels looked at in the parts of a concat, those that stand for the ones looked at in it."""
    places, start = [], 0
    for x in inputs:
        places.append(start + np.arange(x.state.groups) // _step(x.state.groups))
        start += x.kept.shape[1]
    whole = np.concatenate(places)
    return whole[:: _step(len(whole))]


def _weighted(x: Removal) -> tuple[Array, ...]:
    """The ledger's noise and what is counted of it; each multiple times what it counts by, and that."""
    square = (x.shift**2).sum(0)
    return (
        x.moments,
        x.noise,
        x.kept * x.t_var,
        x.left * x.others,
        x.drift * square,
        x.t_var,
        x.others,
        square,
    )


def _summed(x: Removal) -> tuple[Array, ...]:
    """The same in sum over the channels, (S, 1)."""
    counts = x.counts[:, None]
    test, square = x.t_var[:, None] * counts, (x.shift**2).sum(0)[:, None] * counts
    noise = x.noise @ counts
    return (
        x.moments @ counts,
        noise,
        x.kept @ test,
        (x.left * x.others) @ counts,
        x.drift @ square,
        test.sum(0),
        noise.sum(0) - noise,
        square.sum(0),
    )


def _unsure(state: State) -> Array:
    """(S, 1) share of each dropout's noise whose growth in a weight layer is no plain Σ w²."""
    old = (state.noise * state.old) @ state.counts
    return _quotient(old, state.noise @ state.counts)[:, None]


def _balanced(x: Removal, unsure: Array | None = None) -> Removal:
    """The noise as large as the shortfall; what is to be corrected is taken from what is `unsure`."""
    train = x.sampled(x.state.train_var)
    short = np.maximum(train - x.t_var, LEAST * train)
    noise, now = x.noise, x.noise.sum(0)
    if unsure is not None:
        more = np.maximum(_quotient(short - now, (unsure * noise).sum(0)), -1.0)
        noise = noise * np.maximum(1 + more * unsure, LEAST_UNSURE)
        now = noise.sum(0)
    return Removal(x.state, noise * _ratio(short, now), x.kept, x.left, x.drift)


def _masked(x: Removal, y: Removal, row: int) -> Removal:
    """Dropout `row` has masked x: the noise it makes goes with E[x²]."""
    square = x.sampled(x.state.train_mean**2 + x.state.train_dev**2)
    energy = _ratio(square + x.train, square + x.total)
    if energy.shape != y.kept.shape:
        energy = energy.mean(1, keepdims=True)
    part = np.minimum(_quotient(y.noise[row], y.others), 1.0)
    part[row] = 0.0
    return Removal(y.state, y.noise, y.kept, y.left + part * (energy - y.left), y.drift)


def _normalised(x: Removal) -> Removal:
    """Behind a batch norm: it divides by what train mode shows, which is less without a dropout."""
    scale = _ratio(x.total, x.train)
    return Removal(x.state, x.noise, x.kept * scale, x.left * scale, x.drift * np.sqrt(scale))


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
    train, test, drift = (
        np.concatenate([values[rows], base[None]])
        for values, base in ((x.train, x.total), (x.test, x.t_var), (x.drift, np.ones_like(x.total)))
    )
    gone = np.append(rows, NONE)[:, None] == x.sampled(x.state.pending)
    shift, train, test = _evaluated(x, moments, train, test, drift, gone)
    delta = np.clip(_ratio(test, train), LEAST, 1.0)
    known = np.clip(_ratio(y.t_var, y.total), LEAST, 1.0)
    factor = np.clip(_ratio(1 - known, 1 - delta[-1]), 1 / MOST_FACTOR, MOST_FACTOR)
    delta = 1 - np.minimum((1 - delta[:-1]) * factor, 1.0)
    train = y.total * _ratio(train[:-1], train[-1])
    along, square = (shift[:, :-1] * shift[:, -1:]).sum(0), (shift[:, -1] ** 2).sum(0)
    kept, left, drift = y.kept.copy(), y.left.copy(), y.drift.copy()
    kept[rows] = _ratio(train * delta, y.t_var)
    left[rows] = _ratio(train * (1 - delta), y.others[rows])
    drift[rows] = np.clip(_ratio(along, square), -MOST_DRIFT, MOST_DRIFT)
    return Removal(y.state, y.noise, kept, left, drift)


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
    some = bottom > TINY
    result: Array = np.where(some, top, 1.0) / np.where(some, bottom, 1.0)
    return result


def _quotient(top: Array, bottom: Array) -> Array:
    """The same, 0 where there is nothing to divide by."""
    some = bottom > TINY
    result: Array = np.where(some, top, 0.0) / np.where(some, bottom, 1.0)
    return result
