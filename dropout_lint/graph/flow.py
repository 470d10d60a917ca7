"""The flow of data through the graph: dominators, counts along the ways, and what still comes after a node.

Everything here is worked out in one pass forwards and one backwards, because unrolled loops give graphs of
thousands of nodes. Counts between a node and one that it dominates are differences of counts from the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from dropout_lint.graph.kinds import kind_of
from dropout_lint.graph.operations import Kind, is_mutation, name_of, named
from dropout_lint.trace.traced import TensorInfo, Trace

ROOT = -1


def leaves_of(value: Any) -> list[TensorInfo]:
    """The tensors in a pytree of `TensorInfo`."""
    if isinstance(value, TensorInfo):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves_of(item)]
    return []


def is_discrete(dtype: torch.dtype) -> bool:
    """Whether tensors of `dtype` are indices or masks, which carry no dropout noise."""
    return not (dtype.is_floating_point or dtype.is_complex)


def read_by(node: fx.Node) -> list[fx.Node]:
    """The nodes that `node` reads.

    `mutated(tensor, *by)` is the tensor after the in-place changes `by`; where one of them has read the
    tensor itself, what the tensor held before is in its result already.
    """
    sources = list(node.all_input_nodes)
    if is_mutation(node) and any(sources[0] in change.all_input_nodes for change in sources[1:]):
        return sources[1:]
    return sources


class Flow:
    """The data nodes of a trace in topological order, numbered from 0, and what is known about each.

    A data node depends on the model's inputs; parameters, buffers, shapes, indices that were computed from
    activations, and what is made of these alone are left out; but for a dropout of what an input decides by
    its shape or its signs, which starts data of its own.

    Attributes:
        nodes: the data nodes.
        index: node → number.
        kinds: what each node does.
        sources: numbers of the data nodes that each node reads, without repetitions, in order.
        main: the same, less the gate of a multiplication (squeeze-and-excitation): the side that was computed
            from the other side.
        users: the inverse of `sources`.
        parent: immediate dominator of each node, `ROOT` where it is none of them.
        weights, fewest_weights, norms: the most and the fewest weight layers, the most norms that shift, on
            any way from the input to each node, itself included.
    """

    def __init__(self, trace: Trace) -> None:
        shifting = {site.node for site in trace.norms if site.spec.shifts}
        norms = {site.node for site in trace.norms}
        dropouts = {site.node for site in trace.dropouts}
        fed = set(trace.graph.find_nodes(op="placeholder"))
        for node in trace.graph.nodes:
            if not fed.isdisjoint(node.all_input_nodes):
                fed.add(node)
        self.nodes: list[fx.Node] = []
        self.index: dict[fx.Node, int] = {}
        self.sources: list[tuple[int, ...]] = []
        for node in trace.graph.nodes:
            sources = tuple(self.index[source] for source in read_by(node) if source in self.index)
            starts = node.op == "placeholder" or (node in dropouts and not sources and node in fed)
            if starts or (sources and self._passes(node, sources)):
                self.index[node] = len(self.nodes)
                self.nodes.append(node)
                self.sources.append(sources)
        self.kinds = [
            kind_of(
                trace.model, node, shifting=node in shifting, norm=node in norms, dropout=node in dropouts
            )
            for node in self.nodes
        ]
        count = len(self.nodes)
        self.users: list[list[int]] = [[] for _ in range(count)]
        for number, sources in enumerate(self.sources):
            for source in sources:
                self.users[source].append(number)
        self._dominate()
        self.main = [self._main_sources(number) for number in range(count)]
        self.weights = self._count(Kind.WEIGHT, max)
        self.fewest_weights = self._count(Kind.WEIGHT, min)
        self.norms = self._count(Kind.SHIFTING_NORM, max)
        self.any_norms = self._count(Kind.SHIFTING_NORM | Kind.OTHER_NORM, max)
        self._mark_products()
        self.activations = self._count(Kind.ACTIVATION, max)
        self._look_ahead()

    def weighs_positions(self, number: int) -> bool:
        """Whether a node holds an attention's weights: behind a softmax, before a product with the values."""
        current = number
        while Kind.PROBABILITY not in self.kinds[current]:
            if len(self.sources[current]) != 1 or not (current == number or self._only_moves(current)):
                return False
            (current,) = self.sources[current]
        if Kind.ACTIVATION in self.kinds[current]:  # a gate's sigmoid
            return False
        current = number
        while Kind.MATMUL not in named(name_of(self.nodes[current])):
            if len(self.users[current]) != 1 or not (current == number or self._only_moves(current)):
                return False
            (current,) = self.users[current]
        return True

    def _only_moves(self, number: int) -> bool:
        kind = self.kinds[number] | named(name_of(self.nodes[number]))
        return bool(kind & (Kind.LAYOUT | Kind.DROPOUT | Kind.CAST))

    def _passes(self, node: fx.Node, sources: tuple[int, ...]) -> bool:
        if node.op == "output":
            return True
        if node.op == "get_attr" or Kind.BLIND in named(name_of(node)):
            return False
        value = node.meta.get("value")
        tensors = leaves_of(value)
        if not tensors:
            return "value" not in node.meta or value is None
        if not all(is_discrete(tensor.dtype) for tensor in tensors):
            return True
        read = [leaf for source in sources for leaf in leaves_of(self.nodes[source].meta.get("value"))]
        return bool(read) and all(is_discrete(leaf.dtype) for leaf in read)

    # dominators -----------------------------------------------------------------------------------------

    def _dominate(self) -> None:
        """Immediate dominators of an acyclic graph: the lowest common ancestor of all sources.

        Jump pointers make each ancestor query logarithmic; entry and exit times answer `dominates` at once.
        """
        count = len(self.nodes)
        self.parent = [ROOT] * count
        self.depth = [0] * count
        self._jump = [ROOT] * count
        children: list[list[int]] = [[] for _ in range(count)]
        for number, sources in enumerate(self.sources):
            parent = sources[0] if sources else ROOT
            for source in sources[1:]:
                parent = self.common(parent, source)
            self.parent[number] = parent
            if parent == ROOT:
                continue
            children[parent].append(number)
            self.depth[number] = self.depth[parent] + 1
            far = self._jump[parent]
            if (
                far != ROOT
                and self._jump[far] != ROOT
                and (self.depth[parent] - self.depth[far] == self.depth[far] - self.depth[self._jump[far]])
            ):
                self._jump[number] = self._jump[far]
            else:
                self._jump[number] = parent
        self._entry = [0] * count
        self._exit = [0] * count
        clock = 0
        for root in (number for number in range(count) if self.parent[number] == ROOT):
            stack = [(root, False)]
            while stack:
                number, done = stack.pop()
                clock += 1
                if done:
                    self._exit[number] = clock
                    continue
                self._entry[number] = clock
                stack.append((number, True))
                stack.extend((child, False) for child in children[number])

    def common(self, one: int, other: int) -> int:
        """The nearest node that dominates both, `ROOT` if there is none."""
        if ROOT in (one, other):
            return ROOT
        while self.depth[one] != self.depth[other]:
            if self.depth[one] < self.depth[other]:
                one, other = other, one
            jump = self._jump[one]
            one = jump if jump != ROOT and self.depth[jump] >= self.depth[other] else self.parent[one]
        while one != other:
            if self._jump[one] != self._jump[other]:
                one, other = self._jump[one], self._jump[other]
            else:
                one, other = self.parent[one], self.parent[other]
            if ROOT in (one, other):
                return ROOT
        return one

    def is_input(self, number: int) -> bool:
        """Whether `number` is an input of the model."""
        return self.nodes[number].op == "placeholder"

    def dominates(self, above: int, below: int) -> bool:
        """Whether every way to `below` goes through `above` (a node dominates itself)."""
        if above == ROOT:
            return True
        return self._entry[above] <= self._entry[below] and self._exit[below] <= self._exit[above]

    def upwards(self, number: int, stop: int = ROOT) -> Iterable[int]:
        """The nodes that every way to `number` goes through, nearest first, down to but without `stop`."""
        number = self.parent[number]
        while number not in (ROOT, stop):
            yield number
            number = self.parent[number]

    # counts ---------------------------------------------------------------------------------------------

    def _main_sources(self, number: int) -> tuple[int, ...]:
        sources = self.sources[number]
        if Kind.MULTIPLY in self.kinds[number] and len(sources) == 2:
            for one, other in (sources, sources[::-1]):
                if self.dominates(one, other):
                    return (one,)
        return sources

    def _count(self, kind: Kind, pick: Callable[[Iterable[int]], int]) -> list[int]:
        counts: list[int] = []
        for number, sources in enumerate(self.main):
            own = 1 if self.kinds[number] & kind else 0
            counts.append(own + (pick(counts[source] for source in sources) if sources else 0))
        return counts

    def _mark_products(self) -> None:
        """`x * sigmoid(x)` is an activation; a gate with weights (squeeze-and-excitation) is not."""
        for number, main in enumerate(self.main):
            gates = [source for source in self.sources[number] if source not in main]
            if Kind.MULTIPLY not in self.kinds[number] or len(gates) != 1:
                continue
            gate, value = gates[0], main[0]
            between = (gate, *self.upwards(gate, value))
            if self.weights[gate] == self.weights[value] and any(
                Kind.ACTIVATION in self.kinds[step] for step in between
            ):
                self.kinds[number] |= Kind.ACTIVATION

    def _look_ahead(self) -> None:
        """What comes after each node, not counting the node itself."""
        count = len(self.nodes)
        main_users: list[list[int]] = [[] for _ in range(count)]
        for number, sources in enumerate(self.main):
            for source in sources:
                main_users[source].append(number)
        self.main_users = main_users
        # a gate leads nowhere on the main way; what only feeds gates is no part of it
        self.live = [False] * count
        self.weights_after = [0] * count
        self.norms_after = [False] * count
        self.any_norm_after = [False] * count
        self.pool_after: list[int | None] = [None] * count
        self.output_after = [ROOT] * count
        hops = [0] * count
        for number in reversed(range(count)):
            live_users = [user for user in main_users[number] if self.live[user]]
            self.live[number] = self.nodes[number].op == "output" or bool(live_users)
            if not self.users[number]:
                continue
            self.norms_after[number] = any(
                self.norms_after[user] or Kind.SHIFTING_NORM in self.kinds[user]
                for user in self.users[number]
            )
            self.any_norm_after[number] = any(
                self.any_norm_after[user] or self.kinds[user] & (Kind.SHIFTING_NORM | Kind.OTHER_NORM)
                for user in self.users[number]
            )
            self.weights_after[number] = max(
                (self.weights_after[user] + self._weighs(user) for user in live_users), default=0
            )
            pools = [
                0 if Kind.POOL in self.kinds[user] else add(self.pool_after[user], self._weighs(user))
                for user in live_users
            ]
            known = [pool for pool in pools if pool is not None]
            self.pool_after[number] = max(known) if known and len(known) == len(pools) else None
            nearest = min(self.users[number], key=lambda user: hops[user])
            hops[number], self.output_after[number] = hops[nearest] + 1, nearest

    def _weighs(self, number: int) -> int:
        return 1 if Kind.WEIGHT in self.kinds[number] else 0


def add(count: int | None, more: int) -> int | None:
    """`count + more`, None staying None."""
    return None if count is None else count + more
