"""Sums over positions of one tensor: finite differences, a window's mean beside its centre, centring.

`h[..., 1:] - h[..., :-1]`, `h - h.roll(1, 2)`, `avg_pool(h) - h`: both sides hold the same data at other
positions, so their variances do not add up. With weights a_i at the offsets i, Σ a_i·x_{t+i} has the mean
Σ a_i·E[x], the data part keeps Σ_ij a_i a_j ρ(|i - j|), and noise keeps the same with its own correlation: 0
between positions for masks of each element, that of the data for masks that all positions share.

Less its mean over positions, Σ_t (x_t - x̄)² = Σ_t x_t² - T·x̄²: all parts fall by what they have in the mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from dropout_lint.prediction.abreast import of_a_single
from dropout_lint.prediction.ops.base import Call, NoRule, first_shape, function
from dropout_lint.prediction.ops.dropout import Sources
from dropout_lint.prediction.ops.kernel import by_dimension
from dropout_lint.prediction.ops.operands import QUOTIENTS, SCALES, scaling
from dropout_lint.prediction.ops.resampling import rho_at
from dropout_lint.prediction.parts import quotient, replace
from dropout_lint.prediction.state import State

Offset = tuple[int, ...]
Taps = Mapping[Offset, float]
MOST_TAPS = 64
"""Filters of more taps are not worked out."""


@dataclass(frozen=True)
class Filter:
    """A tensor as a weighted sum of another one's positions.

    Attributes:
        root: the other one.
        taps: weight by offset, one number for each dimension.
        steps: distance in the root of neighbouring results, by dimension.
    """

    root: fx.Node
    taps: Taps
    steps: Offset

    @classmethod
    def none(cls, node: fx.Node, rank: int) -> Filter:
        """A tensor as it is."""
        return cls(node, {(0,) * rank: 1.0}, (1,) * rank)

    def after(self, taps: Taps, steps: Offset) -> Filter:
        """Another filter on top."""
        found: dict[Offset, float] = {}
        for (inner, one), (outer, other) in itertools.product(self.taps.items(), taps.items()):
            at = tuple(i + o * step for i, o, step in zip(inner, outer, self.steps, strict=True))
            found[at] = found.get(at, 0.0) + one * other
        return Filter(self.root, found, tuple(a * b for a, b in zip(self.steps, steps, strict=True)))

    def plus(self, other: Filter, factor: float) -> Filter:
        """The sum with another filter of the same root, times a number."""
        found = dict(self.taps)
        for at, weight in other.taps.items():
            found[at] = found.get(at, 0.0) + factor * weight
        return Filter(self.root, found, self.steps)


# --- what a call does to positions ------------------------------------------------------------------------


def _sliced(call: Call, rank: int) -> Filter | None:
    """`x[..., 1:]`, `x[:, ::2]`."""
    given = call.node.args[1]
    index: list[Any] = list(given) if isinstance(given, tuple) else [given]
    if Ellipsis in index:
        place = index.index(Ellipsis)
        index[place : place + 1] = [slice(None)] * (rank - len(index) + 1)
    index += [slice(None)] * (rank - len(index))
    if len(index) != rank or not all(isinstance(part, slice) for part in index):
        return None
    starts, steps = [], []
    for part, size in zip(index, call.in_shape, strict=True):
        ends = part.start, part.stop, part.step
        known = [_number(end) for end in ends]
        if any(end is not None and number is None for end, number in zip(ends, known, strict=True)):
            return None
        start, _, step = slice(*known).indices(size)
        starts.append(start)
        steps.append(step)
    return _of(call, {tuple(starts): 1.0}, tuple(steps))


def _number(value: Any) -> int | None:
    value = value.meta.get("value") if isinstance(value, fx.Node) else value
    return int(value) if isinstance(value, int) else None


def _narrowed(call: Call, rank: int) -> Filter | None:
    dim, start = call.arg(1, "dim"), call.arg(2, "start")
    if not isinstance(dim, int) or not isinstance(start, int):
        return None
    return _of(call, {_at(rank, dim, start % max(call.in_shape[dim], 1)): 1.0})


def _rolled(call: Call, rank: int) -> Filter | None:
    """`x.roll(1, 2)`: what is at t was at t - 1."""
    shift, dim = (
        part[0] if isinstance(part, (tuple, list)) and len(part) == 1 else part
        for part in (call.arg(1, "shifts"), call.arg(2, "dims"))
    )
    if not isinstance(shift, int) or not isinstance(dim, int):
        return None
    return _of(call, {_at(rank, dim, -shift): 1.0})


def _pooled(call: Call, rank: int) -> Filter | None:
    """The mean over a window around each position; zeros at the border would be a pattern of their own."""
    dims = rank - 2
    given = [_option(call, place, name) for place, name in enumerate(("kernel_size", "stride", "padding"), 1)]
    if dims < 1 or given[0] is None or given[1] is None:
        return None
    kernel, stride, padding = (by_dimension(value or 0, dims) for value in given)
    counts_zeros = any(padding) and _option(call, 5, "count_include_pad", True)
    if set(stride) != {1} or counts_zeros:
        return None
    sides = [range(-before, size - before) for size, before in zip(kernel, padding, strict=True)]
    places = list(itertools.product((0,), (0,), *sides))
    return _of(call, dict.fromkeys(places, 1 / len(places)))


def _padded(call: Call, rank: int) -> Filter | None:
    """Positions moved by what is put before them; what the border has is left out."""
    pad = call.arg(1, "pad")
    if not isinstance(pad, (tuple, list)) or not all(isinstance(size, int) for size in pad):
        return None
    before = [int(size) for size in pad[::2]][::-1]
    return _of(call, {(*(0,) * (rank - len(before)), *(-size for size in before)): 1.0})


def _scaled(call: Call, rank: int) -> Filter | None:
    """A tensor times a number, or over one."""
    found = scaling(call.node, call.ledger)
    return None if found is None or not found[0] else _of(call, {(0,) * rank: found[0]}, of=found[1])


def _option(call: Call, place: int, name: str, default: Any = None) -> Any:
    """An argument of a function, or of the constructor of its module."""
    return call.arg(place, name, default) if call.module is None else getattr(call.module, name)


def _differenced(call: Call, rank: int) -> Filter | None:
    """`torch.diff(x)` of the first order."""
    dim = call.arg(2, "dim", -1)
    if call.arg(1, "n", 1) != 1 or not isinstance(dim, int):
        return None
    return _of(call, {_at(rank, dim, 1): 1.0, _at(rank, dim, 0): -1.0})


def _at(rank: int, dim: int, offset: int) -> Offset:
    return tuple(offset if place == dim % rank else 0 for place in range(rank))


def _of(call: Call, taps: Taps, steps: Offset | None = None, *, of: fx.Node | None = None) -> Filter:
    """What a call makes of its first tensor, or of another one, itself a filter of something or not."""
    source, rank = of or call.node.all_input_nodes[0], len(call.shape)
    before = call.ledger.filters.get(source) or Filter.none(source, rank)
    return before.after(taps, steps or (1,) * rank)


_MADE: Mapping[str, Callable[[Call, int], Filter | None]] = {
    "getitem": _sliced,
    "narrow": _narrowed,
    "roll": _rolled,
    "diff": _differenced,
    "pad": _padded,
    **dict.fromkeys((*SCALES, *QUOTIENTS), _scaled),
    **dict.fromkeys((f"{kind}{dims}d" for kind in ("AvgPool", "avg_pool") for dims in "123"), _pooled),
    "neg": lambda call, rank: _of(call, {(0,) * rank: -1.0}),
}


def note_filter(call: Call) -> None:
    """Remember what a call that moves positions about is a filter of."""
    made = _MADE.get(call.name)
    ranks = {len(first_shape(node.meta.get("value")) or ()) for node in call.node.all_input_nodes}
    if made is None or first_shape(call.value) is None or len(call.shape) not in ranks:
        return
    found = made(call, len(call.shape))
    if found is not None and len(found.taps) <= MOST_TAPS:
        call.ledger.filters[call.node] = found


# --- what it makes of a state -----------------------------------------------------------------------------


def sum_of_positions(call: Call, factor: float) -> State | None:
    """a + factor·b of two tensors that hold one tensor's positions; None where they do not."""
    nodes = [node for node in call.node.args[:2] if isinstance(node, fx.Node)]
    if len(nodes) < 2:
        return None
    filters, rank = call.ledger.filters, len(call.shape)
    one, other = (filters.get(node) or Filter.none(node, rank) for node in nodes)
    if one.root is not other.root or one.steps != other.steps:
        return _centred(call, *nodes) if factor == -1 else None
    whole = one.plus(other, factor)
    found = _of_root(call, whole)
    if found is not None:
        filters[call.node] = whole
    return found


def _of_root(call: Call, whole: Filter) -> State | None:
    """What a filter makes of its root; None where it moves along samples or channels, or not at all."""
    x = call.ledger.results.get(whole.root)
    moved = {dim for at in whole.taps for dim, offset in enumerate(at) if offset}
    moved |= {dim for dim, step in enumerate(whole.steps) if step != 1}
    if len(whole.taps) > MOST_TAPS or not isinstance(x, State) or not moved or moved & {0, x.axis}:
        return None
    return _filtered(of_a_single(x), whole, max(moved), call.ledger.tied)


def _filtered(x: State, whole: Filter, along: int, tied: Sources) -> State:
    """The state of a filter of `x`; `along` is a dimension that it moves along."""
    if x.mask not in ("sample", "channel"):
        x = x.collapse()
    places, weights = np.array(list(whole.taps), dtype=float), np.array(list(whole.taps.values()))
    apart = places[:, None] - places[None]
    both = np.outer(weights, weights)
    total, square = float(weights.sum()), float((weights**2).sum())

    def common(distance: Any) -> Any:
        """Σ_ij a_i a_j of something that goes with the distance of two taps."""
        return (both * distance(np.sqrt((apart**2).sum(-1)))).sum()

    def data(distance: Any) -> Any:
        return rho_at(x.rho, distance)

    keep = max(float(common(data)), 1e-6)
    far = float(np.clip(x.rho[-1], 0.0, 0.999))
    near = float(common(lambda d: np.where(d > 0, np.maximum((data(d) - far) / (1 - far), 0.0), 1.0)))
    alone = np.where(tied, near, square)[:, None]  # of noise that positions do not share
    noise = x.noise * (x.shared_by_positions * total**2 + (1 - x.shared_by_positions) * alone)
    noise = np.maximum(noise, 0.0)
    fade = quotient(noise.sum(0), x.noise.sum(0), 1.0)
    steps = np.zeros((len(x.rho), places.shape[1]))
    steps[:, along] = whole.steps[along] * 2.0 ** np.arange(len(x.rho))
    moved = np.sqrt(((apart[None] + steps[:, None, None]) ** 2).sum(-1))
    rho = (both * rho_at(x.rho, moved.ravel()).reshape(moved.shape)).sum((1, 2)) / keep
    sig2 = x.sig**2 * keep
    slope, t_slope = x.energy_slope, x.t_energy_slope
    return replace(
        x,
        t_mean=x.t_mean * total,
        t_dev=x.t_dev * total,
        t_var=np.maximum(x.t_var * square + x.covariance_growths * x.data * (keep - square), 0.0),
        mean=x.mean * total,
        dev=x.dev * total,
        sig=np.sqrt(sig2),
        var=sig2 + np.maximum(x.var - x.sig**2, 0.0) * fade,
        data=x.data * keep,
        noise=noise,
        shared_by_positions=np.clip(quotient(x.noise * x.shared_by_positions * total**2, noise), 0.0, 1.0),
        rho=np.clip(rho, 0.0, 1.0),
        energy_slope=None if slope is None else slope * total,
        t_energy_slope=None if t_slope is None else t_slope * total,
        levels=(),
        skew=None,
        before_relu=None,
        from_weight_layer=False,
    )


def _centred(call: Call, left: fx.Node, right: fx.Node) -> State | None:
    """x - x.mean(dims, keepdim=True) over positions; None where it is none."""
    if right.target not in ("mean", torch.mean):
        return None
    x, mean = call.ledger.results.get(left), call.ledger.results.get(right)
    if right.all_input_nodes[0] is not left or not isinstance(x, State) or not isinstance(mean, State):
        return None
    whole, shape = call.shape, first_shape(right.meta.get("value")) or ()
    if len(whole) != len(shape):
        return None
    over = [dim for dim, (n, m) in enumerate(zip(whole, shape, strict=True)) if n > 1 and m == 1]
    if not over or {0, x.axis} & {*over}:
        return None
    if x.mask not in ("sample", "channel"):
        x = x.collapse()
    sig2 = np.maximum(x.sig**2 - mean.sig**2, 0.0)
    nothing = np.zeros_like(x.t_mean)
    return replace(
        x,
        t_mean=nothing,
        t_dev=nothing,
        t_var=np.maximum(x.t_var - mean.t_var, 0.0),
        mean=np.zeros_like(x.mean),
        dev=np.zeros_like(x.dev),
        sig=np.sqrt(sig2),
        var=np.maximum(x.var - mean.var, sig2),
        data=np.maximum(x.data - mean.data, 0.0),
        noise=np.maximum(x.noise - mean.noise, 0.0),
        shared_by_positions=np.zeros_like(x.noise),
        energy_slope=None,
        t_energy_slope=None,
        levels=(),
        skew=None,
        before_relu=None,
        from_weight_layer=False,
    )


@function("diff")
def differences(call: Call) -> State:
    """torch.diff(x): neighbours are subtracted."""
    made = call.ledger.filters.get(call.node)
    found = None if made is None else _of_root(call, made)
    if found is None:
        raise NoRule
    return found
