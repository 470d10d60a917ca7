"""Residual branches and dense layers: where they fork, where they join, and which dropout lies in which."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from dropout_lint.graph.flow import ROOT, Flow
from dropout_lint.graph.operations import Kind, concat_dim
from dropout_lint.trace.traced import Trace, module_of, shape_of


@dataclass(frozen=True)
class Branch:
    """The way with weights from a fork to the add (or concat) where it meets the skip again.

    Attributes:
        fork: number of the node whose value goes both ways.
        join: number of the add or concat.
        end: number of the branch's last node, an operand of the join.
        by: `add` or `concat`.
        style: `pre-activation` if its last layer of weights or norm is of weights, else `post-activation`.
        norms: norms that shift on the longest way through it.
    """

    fork: int
    join: int
    end: int
    by: str
    style: str
    norms: int


class Branches:
    """Every branch of a graph, and the innermost one around a node.

    A join is an add or a channel concat with one operand that carries the fork's value on without weights (or
    through a single projection) and another that has more of them. An add that makes predictions is none.
    Branches that shrink the map and grow it again (U-Nets, hourglasses, feature pyramids) are streams of
    their own, not residual branches.
    """

    def __init__(self, trace: Trace, flow: Flow) -> None:
        self._flow, self._model = flow, trace.model
        self.all: list[Branch] = []
        for number, kind in enumerate(flow.kinds):
            if kind & (Kind.ADD | Kind.CONCAT) and len(flow.sources[number]) > 1:
                self.all.extend(self._found_at(number))
        self._places = {branch: place for place, branch in enumerate(self.all)}
        self._reach()
        self.adds = {branch.join for branch in self.all if branch.by == "add"}
        self._inputs = self._block_inputs()

    # finding --------------------------------------------------------------------------------------------

    def _found_at(self, join: int) -> list[Branch]:
        flow = self._flow
        fork = flow.parent[join]
        if fork == ROOT:
            return []
        operands = flow.sources[join]
        least = {end: flow.fewest_weights[end] - flow.fewest_weights[fork] for end in operands}
        most = {end: flow.weights[end] - flow.weights[fork] for end in operands}
        by = "add" if Kind.ADD in flow.kinds[join] else "concat"
        if by == "add" and (self._sums_predictions(fork, join) or self._corrects_input(fork, join)):
            return []
        if by == "concat":
            skips = [end for end in operands if most[end] == 0 and flow.norms[end] == flow.norms[fork]]
            ends = [end for end in operands if least[end] > 0] if skips else []
            if self._joins_other_than_channels(join):
                return []
        else:
            ends = self._residual_ends(fork, operands, least, most)
        return [
            Branch(fork, join, end, by, self._style(fork, end), flow.norms[end] - flow.norms[fork])
            for end in ends
            if not self._shrinks_and_grows(fork, end)
        ]

    def _residual_ends(
        self, fork: int, operands: tuple[int, ...], least: dict[int, int], most: dict[int, int]
    ) -> list[int]:
        flow = self._flow
        weightless = [end for end in operands if most[end] == 0]
        if weightless:
            return [end for end in operands if most[end] > 0]
        carrying = [end for end in operands if least[end] == 0]
        if carrying:
            return [end for end in operands if least[end] > 0]

        def size(end: int) -> tuple[int, int]:
            between = flow.any_norms[end] + flow.activations[end]
            return most[end], between - flow.any_norms[fork] - flow.activations[fork]

        skip = min(operands, key=size)
        if most[skip] > 1:
            return []
        return [end for end in operands if size(end) > size(skip)]

    def _sums_predictions(self, fork: int, join: int) -> bool:
        """Whether an add makes one vector of predictions of several (wide and deep, factorisation machines).

        No weights and no norm come after it, and no operand is the fork's value as it was.
        """
        flow = self._flow
        shape = shape_of(flow.nodes[join])
        if flow.weights_after[join] or flow.any_norm_after[join] or shape is None or len(shape) > 2:
            return False
        return all(
            flow.weights[end] > flow.weights[fork] or shape_of(flow.nodes[end]) != shape_of(flow.nodes[fork])
            for end in flow.sources[join]
        )

    def _corrects_input(self, fork: int, join: int) -> bool:
        """Whether an add makes the predictions of a dense predictor of the model's input and a correction."""
        flow = self._flow
        if not flow.is_input(fork) or flow.weights_after[join] or flow.any_norm_after[join]:
            return False
        for end in flow.sources[join]:
            layers = (above for above in (end, *flow.upwards(end, fork)) if Kind.WEIGHT in flow.kinds[above])
            layer = next(layers, None)
            kernel = () if layer is None else self._kernel(layer)
            if layer is not None and max(kernel, default=1) > 1 and dense(flow, end, layer):
                return True
        return False

    def _kernel(self, number: int) -> tuple[int, ...]:
        module = module_of(self._model, self._flow.nodes[number])
        return tuple(getattr(module, "kernel_size", ()))

    def _joins_other_than_channels(self, join: int) -> bool:
        node = self._flow.nodes[join]
        shape = shape_of(node)
        dim = concat_dim(node)
        if not isinstance(dim, int) or shape is None:
            return False
        return dim % len(shape) not in (1, len(shape) - 1) if shape else False

    def _style(self, fork: int, end: int) -> str:
        for number in (end, *self._flow.upwards(end, fork)):
            kind = self._flow.kinds[number]
            if kind & (Kind.SHIFTING_NORM | Kind.OTHER_NORM):
                return "post-activation"
            if Kind.WEIGHT in kind:
                break
        return "pre-activation"

    def _shrinks_and_grows(self, fork: int, end: int) -> bool:
        last: int | None = None
        for number in (end, *self._flow.upwards(end, fork)):
            if Kind.POOL in self._flow.kinds[number]:
                return True
            extent = self._extent(number) if Kind.RESIZE in self._flow.kinds[number] else None
            if extent is None:
                continue
            if last is not None and extent < last:
                return True
            last = extent if last is None else last
        return False

    def _extent(self, number: int) -> int | None:
        shape = shape_of(self._flow.nodes[number])
        if shape is None or len(shape) < 3:
            return None
        extent = 1
        for side in shape[2:]:
            extent *= side
        return extent

    # asking ---------------------------------------------------------------------------------------------

    def _reach(self) -> None:
        """For each node a bit set of the branches whose end it reaches, and whether it reaches any join."""
        flow = self._flow
        bits = [0] * len(flow.nodes)
        joins = {branch.join for branch in self.all}
        self.join_after = [False] * len(flow.nodes)
        for branch, place in self._places.items():
            bits[branch.end] |= 1 << place
        for number in reversed(range(len(flow.nodes))):
            for user in flow.users[number]:
                bits[number] |= bits[user]
                if user in joins or self.join_after[user]:
                    self.join_after[number] = True
        self._bits = bits

    def around(self, number: int) -> Branch | None:
        """The innermost branch that `number` lies in."""
        flow = self._flow
        bits = self._bits[number]
        best: Branch | None = None
        while bits:
            low = bits & -bits
            bits ^= low
            branch = self.all[low.bit_length() - 1]
            inside = branch.fork != number and flow.dominates(branch.fork, number)
            if inside and (best is None or flow.depth[branch.fork] > flow.depth[best.fork]):
                best = branch
        return best

    def _block_inputs(self) -> dict[int, Branch]:
        """Dropouts whose output, weight-free and unnormalised, is the value that a residual block forks.

        Only blocks with a norm that shifts: the noise on the skip is what makes P0 worse than P1.
        """
        flow = self._flow
        stop = Kind.WEIGHT | Kind.SHIFTING_NORM | Kind.OTHER_NORM | Kind.ADD | Kind.CONCAT | Kind.POOL
        found: dict[int, Branch] = {}
        for branch in self.all:
            several = isinstance(flow.nodes[branch.fork].meta.get("value"), (tuple, list))
            if branch.by != "add" or not branch.norms or several:
                continue
            for number in (branch.fork, *flow.upwards(branch.fork)):
                kind = flow.kinds[number]
                if kind & stop:
                    break
                if Kind.DROPOUT in kind:
                    found.setdefault(number, branch)
        return found

    def forked_by(self, number: int) -> Branch | None:
        """The branch of the block whose input the dropout `number` makes."""
        return self._inputs.get(number)

    def after(self, number: int, branch: Branch, counts: list[int]) -> int:
        """How much `counts` (`Flow.weights` or `Flow.norms`) grows from `number` to the end of its branch."""
        flow = self._flow
        if flow.dominates(number, branch.end):
            return counts[branch.end] - counts[number]
        # beside the straight way: walk over the rest of the branch
        mark = 1 << self._places[branch]
        grown = {number: 0}
        waiting = [number]
        while waiting:
            current = heapq.heappop(waiting)
            if current == branch.end:
                break
            for user in flow.main_users[current]:
                if not self._bits[user] & mark:
                    continue
                if user not in grown:
                    heapq.heappush(waiting, user)
                step = counts[user] - max(counts[source] for source in flow.main[user])
                grown[user] = max(grown.get(user, 0), grown[current] + step)
        return grown.get(branch.end, 0)


def dense(flow: Flow, number: int, layer: int) -> bool:
    """Whether `number` is a prediction for every position of an input, and the weight layer `layer` made it.

    It has the input's positions and at most half the channels that the layer reads; an encoder's features
    have more channels, and fewer positions.
    """
    shape, read = shape_of(flow.nodes[number]), flow.sources[layer]
    before = shape_of(flow.nodes[read[0]]) if read else None
    if shape is None or before is None or len(shape) < 3 or len(before) != len(shape):
        return False
    inputs = [shape_of(node) for node in flow.nodes if node.op == "placeholder"]
    same = any(given is not None and given[2:] == shape[2:] for given in inputs)
    return same and 2 * shape[1] <= before[1]
