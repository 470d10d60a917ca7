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

from dropout_lint.prediction.ops.activation import moments_of, spread_moments
from dropout_lint.prediction.ops.base import Call, function_name
from dropout_lint.prediction.quadrature import Array, MomentFunction, skewed_rectified
from dropout_lint.prediction.state import State

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


class Seen:
    """What the ledger knows of a tensor with all dropouts on, for the channels that are looked at."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.step = -(-state.groups // CHANNELS)
        self.counts = self.of(state.counts)
        self.t_var = self.of(state.t_var)
        self.noise = self.of(state.noise)

    def of(self, values: Array) -> Array:
        """The channels that are looked at, of an array over all."""
        return values if self.step == 1 else values[..., :: self.step]

    @cached_property
    def mean(self) -> Array:
        """(G,) train mean."""
        return self.of(self.state.train_mean)

    @cached_property
    def dev(self) -> Array:
        """(G,) spread of the train mean over the channels of a group."""
        return self.of(self.state.train_dev)

    @cached_property
    def var(self) -> Array:
        """(G,) train variance."""
        return self.of(self.state.train_var)

    @cached_property
    def shift(self) -> tuple[Array, Array]:
        """(G,) test less train: mean, and its spread over the channels of a group."""
        return self.of(self.state.t_mean) - self.mean, self.of(self.state.t_dev) - self.dev

    @cached_property
    def square(self) -> Array:
        """(G,) `shift`, squared and summed."""
        mean, dev = self.shift
        result: Array = mean**2 + dev**2
        return result


@dataclass(frozen=True)
class Removal:
    """One tensor: S dropouts, G channels (or groups of them). Row i of an (S, G) array is without dropout i.

    Attributes:
        seen: what the ledger knows of it.
        noise: (S, G) how much Var_test lacks against Var_train for each dropout. In sum that is less than
            the ledger's noise where a nonlinear function gives test variance back as noise is taken away.
        kept: (S, G) test variance, as a multiple of what it is with all.
        left: (S, G) noise of the other dropouts, likewise.
        drift: (S, G) distance of the test mean from the train mean, likewise.
    """

    seen: Seen
    noise: Array
    kept: Array
    left: Array
    drift: Array

    @cached_property
    def others(self) -> Array:
        """(S, G) noise of the other dropouts, with all of them on."""
        result: Array = np.maximum(self.noise.sum(0) - self.noise, 0.0)
        return result

    @cached_property
    def test(self) -> Array:
        """(S, G) test variance."""
        result: Array = self.seen.t_var * self.kept
        return result

    @cached_property
    def train(self) -> Array:
        """(S, G) train variance."""
        result: Array = self.test + self.others * self.left
        return result

    @cached_property
    def total(self) -> Array:
        """(G,) train variance with all dropouts."""
        result: Array = self.seen.t_var + self.noise.sum(0)
        return result

    @property
    def raised(self) -> Array:
        """(S,) log of the factor by which the removal of each raises Δ.

        Dropouts with a norm between them make Δ a product, one factor each: the logs add up to that of Δ.
        """
        counts = self.seen.counts
        test, train = self.test @ counts, self.train @ counts
        without, now = _ratio(test, train), _ratio(self.seen.t_var @ counts, self.total @ counts)
        result: Array = np.log(np.maximum(without, LEAST) / max(float(now), LEAST))
        return result


def _clean(state: State) -> Removal:
    seen = Seen(state)
    shape = seen.noise.shape
    return Removal(seen, np.zeros(shape), *(np.ones(shape),) * 3)


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
    same = next((x for x in inputs if x.seen.state is value), None)
    if same is not None or not inputs:
        return same or _clean(value)
    y = _joined(call, inputs, value)
    y.noise[rows] = y.seen.noise[rows]
    y = _balanced(y, _unsure(inputs[0]) if call.node in call.ledger.weight_layers else None)
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
    seen, first = Seen(value), inputs[0]
    shape = seen.noise.shape
    mixes = call.node in call.ledger.weight_layers or (
        value.from_weight_layer and not first.seen.state.from_weight_layer
    )
    joins = function_name(call.node.target) in ("cat", "concat")
    if joins and sum(x.seen.state.groups for x in inputs) == value.groups:
        places = _side_by_side(inputs)
        columns = zip(*((x.seen.noise, x.noise, x.kept, x.left, x.drift) for x in inputs), strict=True)
        moments, noise, kept, left, drift = (np.concatenate(column, axis=1)[:, places] for column in columns)
    elif len(inputs) == 1 and not mixes and first.seen.state.groups == value.groups:
        moments, noise, kept, left, drift = first.seen.noise, first.noise, first.kept, first.left, first.drift
    else:
        mixes = mixes or any(x.kept.shape[1] not in (1, shape[1]) for x in inputs)
        columns = zip(*((_summed if mixes else _weighted)(x) for x in inputs), strict=True)
        moments, noise, *sums = (sum(column[1:], column[0]) for column in columns)
        kept, left, drift = (
            np.broadcast_to(_ratio(top, bottom), shape)
            for top, bottom in zip(sums[:3], sums[3:], strict=True)
        )
    grown = seen.noise * _quotient(noise, moments)
    if (
        not any(x.seen.square.any() for x in inputs) and seen.square.any()
    ):  # it moves means as far as there is noise
        drift = _ratio((grown.sum(0) - grown) * left, grown.sum(0))
    return Removal(seen, grown, kept, left, drift)


def _side_by_side(inputs: Sequence[Removal]) -> npt.NDArray[np.int_]:
    """Of the channels looked at in the parts of a concat, those that stand for the ones looked at in it."""
    places, start = [], 0
    for x in inputs:
        places.append(start + np.arange(x.seen.state.groups) // x.seen.step)
        start += x.kept.shape[1]
    whole = np.concatenate(places)
    return whole[:: -(-len(whole) // CHANNELS)]


def _weighted(x: Removal) -> tuple[Array, ...]:
    """The ledger's noise and what is counted of it; each multiple times what it counts by, and that."""
    seen, others = x.seen, x.others
    kept, left, drift = x.kept * seen.t_var, x.left * others, x.drift * seen.square
    return seen.noise, x.noise, kept, left, drift, seen.t_var, others, seen.square


def _summed(x: Removal) -> tuple[Array, ...]:
    """The same in sum over the channels, (S, 1)."""
    counts = x.seen.counts[:, None]
    test, square = x.seen.t_var[:, None] * counts, x.seen.square[:, None] * counts
    noise = x.noise @ counts
    return (
        x.seen.noise @ counts,
        noise,
        x.kept @ test,
        (x.left * x.others) @ counts,
        x.drift @ square,
        test.sum(0),
        noise.sum(0) - noise,
        square.sum(0),
    )


def _unsure(x: Removal) -> Array:
    """(S, 1) share of each dropout's noise whose growth in a weight layer is no plain Σ w²: what channels
    share, and what the noise has added to the data, as the largest of masked values are larger.
    """
    state, counts = x.seen.state, x.seen.counts
    noise = state.noise @ state.counts
    old = _quotient((state.noise * state.shared_by_channels) @ state.counts, noise)
    added = np.maximum(1 - _quotient(x.seen.noise @ counts, x.noise @ counts), 0.0)
    return np.maximum(old, np.where(noise > 0, added, 0.0))[:, None]


def _balanced(x: Removal, unsure: Array | None = None) -> Removal:
    """The noise as large as the shortfall; what is to be corrected is taken from what is `unsure`."""
    train = x.seen.var
    short = np.maximum(train - x.seen.t_var, LEAST * train)
    noise, now = x.noise, x.noise.sum(0)
    if unsure is not None:
        more = np.maximum(_quotient(short - now, (unsure * noise).sum(0)), -1.0)
        noise = noise * np.maximum(1 + more * unsure, LEAST_UNSURE)
        now = noise.sum(0)
    return Removal(x.seen, noise * _ratio(short, now), x.kept, x.left, x.drift)


def _masked(x: Removal, y: Removal, row: int) -> Removal:
    """Dropout `row` has masked x: the noise it makes goes with E[x²]."""
    square = x.seen.mean**2 + x.seen.dev**2
    energy = _ratio(square + x.train, square + x.total)
    if energy.shape != y.kept.shape:
        energy = energy.mean(1, keepdims=True)
    part = np.minimum(_quotient(y.noise[row], y.others), 1.0)
    part[row] = 0.0
    return Removal(y.seen, y.noise, y.kept, y.left + part * (energy - y.left), y.drift)


def _normalised(x: Removal) -> Removal:
    """Behind a batch norm: it divides by what train mode shows, which is less without a dropout."""
    scale = _ratio(x.total, x.train)
    return Removal(x.seen, x.noise, x.kept * scale, x.left * scale, x.drift * np.sqrt(scale))


def _activated(call: Call, x: Removal, y: Removal) -> Removal:
    """An activation evaluated for each removal, and with all dropouts on.

    With all on, the ledger knows better how it changes Δ; what is found without a dropout is corrected by the
    factor that takes the one shortfall to the other.
    """
    moments = moments_of(call)
    if moments is None or x.kept.shape != y.kept.shape:
        return y
    short = x.noise @ x.seen.counts
    rows = np.flatnonzero(short > LEAST_SHARE * short.sum())
    if not len(rows):
        return y
    train, test, drift = (
        np.concatenate([values[rows], base[None]])
        for values, base in ((x.train, x.total), (x.test, x.seen.t_var), (x.drift, np.ones_like(x.total)))
    )
    gone = np.append(rows, NONE)[:, None] == x.seen.of(x.seen.state.pending)
    shift, train, test = _evaluated(x, moments, train, test, drift, gone)
    delta = np.clip(_ratio(test, train), LEAST, 1.0)
    known = np.clip(_ratio(y.seen.t_var, y.total), LEAST, 1.0)
    factor = np.clip(_ratio(1 - known, 1 - delta[-1]), 1 / MOST_FACTOR, MOST_FACTOR)
    delta = 1 - np.minimum((1 - delta[:-1]) * factor, 1.0)
    train = y.total * _ratio(train[:-1], train[-1])
    along, square = (shift[:, :-1] * shift[:, -1:]).sum(0), (shift[:, -1] ** 2).sum(0)
    kept, left, drift = y.kept.copy(), y.left.copy(), y.drift.copy()
    kept[rows] = _ratio(train * delta, y.seen.t_var)
    left[rows] = _ratio(train * (1 - delta), y.others[rows])
    drift[rows] = np.clip(_ratio(along, square), -MOST_DRIFT, MOST_DRIFT)
    return Removal(y.seen, y.noise, kept, left, drift)


def _evaluated(  # noqa: PLR0917 - what each is stands below
    x: Removal, moments: MomentFunction, train: Array, test: Array, drift: Array, gone: Array
) -> tuple[Array, Array, Array]:
    """(2, R, G) test less train mean and their spreads, (R, G) train and test variance behind the activation.

    Args:
        x: its input.
        moments: the activation's.
        train, test, drift: (R, G) the input's variances and `Removal.drift`, for each removal R.
        gone: (R, G) where it is the pending mask that is removed: one normal component is left.
    """
    seen, shape = x.seen, train.shape
    s, of, mean, dev = seen.state, seen.of, seen.mean, seen.dev
    t_mean, t_dev = mean + drift * seen.shift[0], dev + drift * seen.shift[1]
    if s.components == 1:
        means = np.stack([t_mean, np.broadcast_to(mean, shape)])
        devs = np.stack([t_dev, np.broadcast_to(dev, shape)])
        variance = train[None]
    else:
        scale = _ratio(train, seen.var)
        root = np.where(gone, 0.0, np.sqrt(scale))[None]
        means = np.concatenate([t_mean[None], mean + (of(s.mean)[:, None] - mean) * root])
        devs = np.concatenate([t_dev[None], dev + (of(s.dev)[:, None] - dev) * root])
        variance = np.where(gone, train, of(s.var)[:, None] * scale)
    variances = np.concatenate([test[None], variance])
    if s.skew is not None and not devs.any():
        skews = np.concatenate([of(s.skew.test)[None], of(s.skew.train)])[:, None]
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
