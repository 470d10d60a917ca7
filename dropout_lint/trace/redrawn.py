"""What chance decided in Python, from several recordings: the model is recorded again with other outcomes.

Where every recording takes the same way, and only numbers and arrays in the graph differ, these are what
chance has made: the graph gets a node for each, with the values that it takes. Where a recording takes
another way, or a number depends on more than one draw, nothing is followed, and what comes behind stays
unknown.
"""

from __future__ import annotations

import functools
import operator
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from dropout_lint.trace.chance import Chance, Compared, Read, Wish
from dropout_lint.trace.draws import ARRAYS, COUNT, VALUES, borrows_shape
from dropout_lint.trace.layer_drop import layers_left_out, with_nodes
from dropout_lint.trace.observer import Sight, arriving
from dropout_lint.trace.quantiles import DRAWS
from dropout_lint.trace.record import Recording, chance_notes
from dropout_lint.trace.traced import shape_of
from dropout_lint.trace.witness import Draw
from dropout_lint.words import count

MOST_READS = 500
"""Models that ask chance for more are not recorded again."""
MOST_RECORDINGS, MOST_NODES = 32, 4000
"""Of a model that draws arrays there are so many recordings, or so many that all have this many nodes."""
AGREE = 1e-6
"""Relative difference up to which a number is taken for a linear function of a draw."""
_ARITHMETIC = frozenset({"add", "iadd", "sub", "isub", "rsub", "mul", "imul", "truediv", "itruediv", "div"})


class Unfollowed(Exception):
    """What chance makes cannot be followed."""


def drawn(value: float) -> float:
    """A number that chance has made in Python: in the graph, a node of its own."""
    return value


def redrawn(first: Recording, again: Callable[[Chance], Recording]) -> Recording:
    """A recording with nodes for what chance has made in Python, or as it is where that cannot be followed.

    Args:
        first: the recording.
        again: records the same once more.
    """
    if not first.reads or len(first.reads) > MOST_READS or first.sight is None:
        return first
    others: list[Recording] = []
    for seed, wish in enumerate(_wishes(first), 1):
        try:
            others.append(again(Chance(wish, seed, others[0].reads if others else ())))
        except Exception:  # the model's own code may raise anything at other numbers
            return first
        if not _alike(first, others[-1]):
            return _without_layers(first, others[:2], again)
    try:
        return _with_nodes(first, first.sight, _Differences([first, *others]))
    except Unfollowed:
        return first


def _without_layers(
    first: Recording, ends: Sequence[Recording], again: Callable[[Chance], Recording]
) -> Recording:
    """A recording with a node for each layer that chance leaves out, or the first where it does more.

    `ends`: recorded with all answers at their least, and perhaps at their largest.
    """
    try:
        whole, found = layers_left_out(ends, again)
    except Exception:  # the model's own code may raise anything at other numbers
        return first
    sight = whole.sight
    if sight is None or not found:
        return first
    places = [whole.reads[one.read].place for one in found]
    draws = {}
    for place, node in zip(places, with_nodes(whole.graph, found), strict=True):
        draws[node] = replace(sight.draws[place], node=node, chance=False)
        node.meta["call"] = draws[node].call
    out = Counter((str(sight.draws[place]), one.p) for place, one in zip(places, found, strict=True))
    notes = [f"{draw} leaves {count(layers, 'layer')} out (p = {p:g})" for (draw, p), layers in out.items()]
    told = _told(whole, sight, draws, sorted(set(places)))
    return replace(told, notes=(*told.notes, *notes))


def _wishes(first: Recording) -> Iterator[Wish]:
    """Quantiles for each number: all low, high, between; then codes that tell them apart.

    Arrays come out as they do: there are so many more recordings that their moments are known.
    """
    yield lambda _: 0.0
    yield lambda _: 1.0
    yield lambda _: 0.3
    codes = len(first.reads).bit_length()
    for bit in range(codes):
        yield functools.partial(_coded, bit)
    if any(not read.number for read in first.reads):
        for _ in range(min(MOST_RECORDINGS, MOST_NODES // len(first.graph.nodes)) - codes - 3):
            yield lambda _: 0.7


def _coded(bit: int, number: int) -> float:
    return float((number + 1) >> bit & 1)


def _alike(one: Recording, other: Recording) -> bool:
    """Whether two recordings took the same way: the same calls, of the same arguments but for numbers."""
    nodes, others = list(one.graph.nodes), list(other.graph.nodes)
    if len(nodes) != len(others) or len(one.reads) != len(other.reads):
        return False
    return all(
        (node.op, node.target, _form(node)) == (twin.op, twin.target, _form(twin))
        for node, twin in zip(nodes, others, strict=True)
    ) and [*map(one.form_of, one.constants)] == [*map(other.form_of, other.constants)]


def _form(node: fx.Node) -> str:
    """What a node is given; numbers in arithmetic do not count."""
    numbers = getattr(node.target, "__name__", node.target) in _ARITHMETIC
    leaf = ["number" if numbers and isinstance(value, (float, int)) else value for value in node.args]
    return repr((leaf, node.kwargs))


@dataclass(frozen=True)
class _Made:
    """A number or an array of the first graph that chance made.

    Attributes:
        node: what it is given to, or holds it.
        position: of the number among the arguments; None for an array.
        reads: what made it, by number.
        meta: its values, for `noise_by_hand`.
    """

    node: fx.Node
    position: int | None
    reads: Sequence[int]
    meta: Mapping[str, Any]


class _Differences:
    """What differs between recordings of one model that took one way.

    Args:
        recordings: the first is the one that counts.

    Raises:
        Unfollowed: something that differs is explained by no draw, or a draw explains nothing.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self.recordings = recordings
        self.reads = recordings[-1].reads
        self.made: list[_Made] = []
        for place, row in enumerate(zip(*(one.graph.nodes for one in recordings), strict=True)):
            for position in range(len(row[0].args)):
                self._number(row, position)
            if row[0].op == "get_attr":
                self._array(place, row[0])
        explained = {number for one in self.made for number in one.reads}
        if not all(number in explained or self._idle(number) for number in range(len(self.reads))):
            raise Unfollowed

    def _given(self, number: int) -> list[Any]:
        """What a read gave the code in each recording."""
        return [one.reads[number].value for one in self.recordings]

    def _number(self, row: Sequence[fx.Node], position: int) -> None:
        found: list[Any] = [node.args[position] for node in row]
        if not isinstance(found[0], (int, float)) or len(set(found)) == 1:
            return
        for number, read in enumerate(self.reads):
            if read.values is None or not read.number:
                continue
            table: dict[float, float] = {}
            pairs = zip(self._given(number), found, strict=True)
            if all(table.setdefault(float(value), float(result)) == result for value, result in pairs):
                meta = {VALUES: _mapped(read, table), COUNT: 0 if read.exact else DRAWS}
                self.made.append(_Made(row[0], position, [number], meta))
                return
        raise Unfollowed

    def _array(self, place: int, node: fx.Node) -> None:
        held = [one.constants.get(str(node.target)) for one in self.recordings]
        if not isinstance(held[0], (Tensor, np.ndarray)):
            return
        try:
            arrays = [torch.as_tensor(value) for value in held]
            same = all(torch.equal(arrays[0], other) for other in arrays[1:])
        except (RuntimeError, TypeError) as error:  # without values (torch.func), or of Python's objects
            raise Unfollowed from error
        if same:
            return
        holders = [node] if isinstance(held[0], Tensor) else list(node.users)
        before = [
            number
            for number, read in enumerate(self.reads)
            if not read.number and read.nodes <= place and any(map(np.size, self._given(number)))
        ]
        if not before or not all(shape_of(holder) == arrays[0].shape for holder in holders):
            raise Unfollowed
        samples = torch.stack(arrays).double().flatten()
        for number in reversed(before):  # one that is used as it was drawn can be drawn more often
            values = self.reads[number].values
            if values is not None and all(map(np.array_equal, arrays, self._given(number))):
                samples, before = torch.from_numpy(values), [number]
                break
        chosen = torch.randint(len(samples), (DRAWS,), generator=torch.Generator().manual_seed(place))
        for holder in holders:
            kind = holder.meta["value"].dtype
            whole = [array.to(kind) for array in arrays]
            meta = {VALUES: samples[chosen], COUNT: min(len(samples), DRAWS), ARRAYS: whole}
            self.made.append(_Made(holder, None, before, meta))

    def _idle(self, number: int) -> bool:
        """Whether a draw has no effect: it took its least and its largest value, and nothing differed."""
        return self.reads[number].number or not any(map(np.size, self._given(number)))


def _with_nodes(first: Recording, sight: Sight, differences: _Differences) -> Recording:
    """The first recording, its graph with a node for each number that chance made."""
    draws: dict[fx.Node, Draw] = {}
    for made in differences.made:
        node = made.node
        if made.position is not None:
            value = made.node.args[made.position]
            with node.graph.inserting_before(node):
                node = node.graph.call_function(drawn, (value,))
            node.meta = {**made.node.meta, "value": float(value)}  # type: ignore[arg-type]  # a number
            made.node.update_arg(made.position, node)
        node.meta |= made.meta
        draw = sight.draws[first.reads[made.reads[-1]].place]
        draws[node] = replace(draw, node=node, chance=False)
    decided = [place for place, draw in enumerate(sight.draws) if draw.chance and not draw.trial]
    return _told(first, sight, draws, decided)


def _told(first: Recording, sight: Sight, draws: Mapping[fx.Node, Draw], decided: Sequence[int]) -> Recording:
    """The first recording, in whose graph nodes stand for the draws at the places `decided`."""
    notes = set(chance_notes([sight.draws[place] for place in decided]))
    return replace(
        first,
        notes=tuple(note for note in first.notes if note not in notes),
        sight=_seen(sight, first.graph, draws, decided),
    )


def _mapped(read: Read, table: Mapping[float, float]) -> Tensor:
    """What a number is at each value of the draw that it depends on: looked up, on this or that side of what
    the draw is compared with, or by the line through what was seen.

    Raises:
        Unfollowed: it is none of these.
    """
    assert read.values is not None
    values = torch.from_numpy(read.values)
    if set(read.values.tolist()) <= table.keys():
        return torch.tensor([table[value] for value in values.tolist()], dtype=torch.float64)
    if isinstance(read.value, Compared) and read.value.thresholds:
        thresholds = sorted(set(read.value.thresholds))
        sides = {bisect(thresholds, x): y for x, y in table.items()}
        if all(sides[bisect(thresholds, x)] == y for x, y in table.items()):
            return torch.tensor([_at(sides, bisect(thresholds, x)) for x in values.tolist()])
        raise Unfollowed
    (low, at_low), (high, at_high) = min(table.items()), max(table.items())
    slope = (at_high - at_low) / (high - low)
    scale = max(abs(value) for value in table.values())
    if any(abs(at_low + slope * (x - low) - y) > AGREE * scale for x, y in table.items()):
        raise Unfollowed
    return at_low + slope * (values - low)


def _at(sides: Mapping[int, float], side: int) -> float:
    if side not in sides:
        raise Unfollowed
    return sides[side]


def _seen(sight: Sight, graph: fx.Graph, made: Mapping[fx.Node, Draw], decided: Sequence[int]) -> Sight:
    """What the witness saw, where the draws at the places `decided` go with the nodes that they made.

    They reach what the graph leads to from these, and not all that was run after them.
    """
    draws, own = list(sight.draws), dict[fx.Node, int]()
    for place in decided:
        draw = draws[place]
        if draw.node is not None:
            own[draw.node] = own.get(draw.node, 0) | 1 << place
    for node, draw in made.items():
        own[node] = 1 << len(draws)
        draws.append(draw)
    elsewhere = ~functools.reduce(operator.or_, (1 << place for place in decided), 0)
    came: dict[fx.Node, int] = {}
    carried: dict[fx.Node, int] = {}
    flow: dict[fx.Node, int] = {}
    for node in graph.nodes:
        read = 0 if borrows_shape(node) else arriving(node, flow)
        flow[node] = read | own.get(node, 0)
        came[node] = sight.came.get(node, 0) & elsewhere | read
        carried[node] = sight.carried.get(node, 0) & elsewhere | flow[node]
    lost = {node: bits & elsewhere for node, bits in sight.lost.items() if bits & elsewhere}
    return Sight(tuple(draws), came, carried, lost)
