"""Layers that chance leaves out of whole batches (LayerDrop: Fan et al. 2020; Huang et al. 2016, Sec. 3).

A loop that asks chance whether to call a layer makes one graph where it calls all, and others where it does
not. What an answer decides stands between its question and the next: the nodes that another graph lacks at
the start of such a block are the layer, and what reads their result in the one reads another node in the
other, which goes on in its place. The model is recorded with every other layer left out, and with the rest,
which shows this of each layer; and with none at all, which shows that they do not depend on each other.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import fx

from dropout_lint.trace.chance import Chance, Compared, Read
from dropout_lint.trace.draws import LEFT_OUT, left_out
from dropout_lint.trace.record import Recording
from dropout_lint.trace.traced import shape_of


class NotLeftOut(Exception):
    """What chance decides is not whether layers are called."""


@dataclass(frozen=True)
class LeftOut:
    """A layer that chance leaves out.

    Attributes:
        read: the number of the question.
        nodes: the layer.
        result: the node that others read.
        instead: the node that goes on in its place.
        p: probability that it is left out.
    """

    read: int
    nodes: frozenset[fx.Node]
    result: fx.Node
    instead: fx.Node
    p: float


def layers_left_out(
    ends: Sequence[Recording], again: Callable[[Chance], Recording]
) -> tuple[Recording, list[LeftOut]]:
    """A recording that lacks no layer, and the layers in it that chance leaves out of others, in order.

    Args:
        ends: recorded with all answers at their least and, where that is done, at their largest.
        again: records the model once more.

    Raises:
        NotLeftOut: chance decides something else, or no single node stands for a layer.
    """
    least, most = ends if len(ends) > 1 else (*ends, again(_chance(1.0, known=ends[0].reads)))
    of_size = sorted(((0.0, least), (1.0, most)), key=lambda end: len(end[1].graph.nodes))
    (quantile, none), (_, first) = of_size
    whole = _against(first, none)
    asked = [number for number, nodes in enumerate(whole.missing) if nodes]
    stands: dict[fx.Node, fx.Node] = {}
    for out in filter(None, (set(asked[0::2]), set(asked[1::2]))):
        some = again(_chance(quantile, out, none.reads))
        for result, instead in _against(first, some).replaced.items():
            if stands.setdefault(result, instead) is not instead:
                raise NotLeftOut
    if any(_last(result, stands) is not instead for result, instead in whole.replaced.items()):
        raise NotLeftOut
    found = [
        LeftOut(number, frozenset(whole.missing[number]), result, stands[result], _p(none.reads[number]))
        for number in asked
        for result in whole.missing[number]
        if result in stands
    ]
    if {one.read for one in found} != set(asked) or any(
        shape_of(one.result) is None or shape_of(one.result) != shape_of(one.instead) for one in found
    ):
        raise NotLeftOut
    return first, found


def with_nodes(graph: fx.Graph, found: Sequence[LeftOut]) -> list[fx.Node]:
    """Put a `left_out` behind each result; the new nodes, in the order of `found`."""
    new: dict[fx.Node, fx.Node] = {}
    for one in found:
        with graph.inserting_after(one.result):
            node = graph.call_function(left_out, (one.result, new.get(one.instead, one.instead)))
        node.meta = {**one.result.meta, LEFT_OUT: one.p}
        for user in [user for user in one.result.users if user is not node and user not in one.nodes]:
            user.replace_input_with(one.result, node)
        new[one.result] = node
    return list(new.values())


def _chance(quantile: float, out: Container[int] | None = None, known: Sequence[Read] = ()) -> Chance:
    """Every answer at a quantile, or those to the questions `out`, and the others at the other end."""
    return Chance(lambda number: quantile if out is None or number in out else 1 - quantile, known=known)


@dataclass(frozen=True)
class _Compared:
    """What a recording lacks of another: nodes, by question, and what is read instead of their results."""

    missing: Sequence[Sequence[fx.Node]]
    replaced: Mapping[fx.Node, fx.Node]


def _against(first: Recording, other: Recording) -> _Compared:
    """
    Raises:
        NotLeftOut: `other` lacks more than the nodes at the start of blocks, or differs in what it has.
    """
    if len(first.reads) != len(other.reads):
        raise NotLeftOut
    missing, same = [], dict[fx.Node, fx.Node]()
    for whole, less in zip(_blocks(first), _blocks(other), strict=True):
        lacking = len(whole) - len(less)
        if lacking < 0:
            raise NotLeftOut
        missing.append(whole[:lacking])
        same.update(zip(less, whole[lacking:], strict=True))
    if missing[0]:
        raise NotLeftOut
    gone = {node for nodes in missing for node in nodes}
    replaced: dict[fx.Node, fx.Node] = {}
    for node, twin in same.items():
        if not _alike(node, other, twin, first):
            raise NotLeftOut
        for given, was in zip(_leaves(node), _leaves(twin), strict=True):
            if isinstance(was, fx.Node) and was in gone:
                if replaced.setdefault(was, same.get(given, was)) in gone or same[given] is not replaced[was]:
                    raise NotLeftOut
            elif same[given] is not was if isinstance(given, fx.Node) else repr(given) != repr(was):
                raise NotLeftOut
    return _Compared(missing[1:], replaced)


def _blocks(recording: Recording) -> Iterator[list[fx.Node]]:
    """The nodes before the first question, those up to the second, …, and those behind the last."""
    nodes = list(recording.graph.nodes)
    places = [0, *(read.nodes for read in recording.reads), len(nodes)]
    for start, end in pairwise(places):
        yield nodes[start:end]


def _alike(node: fx.Node, of: Recording, twin: fx.Node, first: Recording) -> bool:
    """Whether two nodes do the same, whatever they are given. Constants are counted, so that names differ."""
    if node.op == "get_attr" == twin.op and str(node.target) in of.constants:
        held = str(twin.target)
        return held in first.constants and of.form_of(str(node.target)) == first.form_of(held)
    alike = node.op == twin.op and (node.target == twin.target or node.op == "output")
    return alike and len(_leaves(node)) == len(_leaves(twin))


def _leaves(node: fx.Node) -> list[Any]:
    found: list[Any] = []
    fx.node.map_aggregate((node.args, dict(node.kwargs)), found.append)
    return found


def _last(node: fx.Node, stands: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """What goes on where all layers are left out."""
    while node in stands:
        node = stands[node]
    return node


def _p(read: Read) -> float:
    """The probability of the answer that was given, or of all on the same side of what it is compared with.

    Raises:
        NotLeftOut: what it is compared with was not seen.
    """
    if not read.number or read.values is None:
        raise NotLeftOut
    values, given = read.values, float(read.value)
    if not isinstance(read.value, Compared) or len(set(read.value.thresholds)) != 1:
        if len(set(values.tolist())) > 2:
            raise NotLeftOut
        return round(float(np.mean(values == given)), 3)
    threshold = read.value.thresholds[0]
    low = bisect([threshold], given) == 0
    p, uniform = float(np.mean((values < threshold) == low)), threshold if low else 1 - threshold
    near = (
        abs(p - uniform) < 3 * math.sqrt(p * (1 - p) / len(values)) and 0 <= values.min() < values.max() <= 1
    )
    return round(uniform if near else p, 3)
