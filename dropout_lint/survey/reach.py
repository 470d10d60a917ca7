"""Which norms that shift a dropout's noise reaches first, and by which way."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from dropout_lint.graph.flow import Flow
from dropout_lint.graph.operations import Kind

MOST_NORMS = 16
MOST_STEPS = 600


@dataclass(frozen=True)
class Way:
    """The way from a dropout to one norm, the one with the fewest weight layers and then the fewest steps.

    Attributes:
        norm: number of the norm.
        steps: the nodes on the way, dropout and norm included.
        weights: weight layers between.
    """

    norm: int
    steps: tuple[int, ...]
    weights: int


class Reach:
    """Finds the ways; norms that do not shift (layer, group, frozen batch norms) are walked through.

    A skip carries noise past one block after the other to norms ever further away. The first `MOST_NORMS`
    within `MOST_STEPS` nodes are looked at, and always the nearest one: the cost stays in proportion to the
    graph.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        count = len(flow.nodes)
        self._nearest: list[tuple[int, int, int] | None] = [None] * count
        for number in reversed(range(count)):
            best: tuple[int, int, int] | None = None
            for user in flow.users[number]:
                if Kind.SHIFTING_NORM in flow.kinds[user]:
                    option = (0, 1, user)
                else:
                    further = self._nearest[user]
                    if further is None:
                        continue
                    option = (further[0] + self._weighs(user), further[1] + 1, user)
                best = option if best is None or option < best else best
            self._nearest[number] = best

    def _weighs(self, number: int) -> int:
        return 1 if Kind.WEIGHT in self._flow.kinds[number] else 0

    def nearest(self, start: int) -> Way | None:
        """The way to the nearest norm, or None where no norm that shifts is reached."""
        if self._nearest[start] is None:
            return None
        steps, current, weights = [start], start, 0
        while (entry := self._nearest[current]) is not None:
            current = entry[2]
            steps.append(current)
            if Kind.SHIFTING_NORM in self._flow.kinds[current]:
                break
            weights += self._weighs(current)
        return Way(current, tuple(steps), weights)

    def ways(self, start: int) -> list[Way]:
        """The nearest norm first, then the others that are reached first on some way, in the data's order."""
        first = self.nearest(start)
        if first is None:
            return []
        flow = self._flow
        cost = {start: (0, 0)}
        came: dict[int, int] = {}
        waiting, taken = [start], 0
        norms: list[int] = []
        while waiting and taken < MOST_STEPS and len(norms) < MOST_NORMS:
            current = heapq.heappop(waiting)  # topological order: every way to it has been walked
            taken += 1
            if current != start and Kind.SHIFTING_NORM in flow.kinds[current]:
                norms.append(current)
                continue
            weights, hops = cost[current]
            for user in flow.users[current]:
                if Kind.SHIFTING_NORM not in flow.kinds[user] and self._nearest[user] is None:
                    continue
                option = (weights + self._weighs(user), hops + 1)
                if user not in cost:
                    heapq.heappush(waiting, user)
                if user not in cost or option < cost[user]:
                    cost[user], came[user] = option, current
        others = []
        for norm in norms:
            if norm == first.norm:
                continue
            steps = [norm]
            while steps[-1] != start:
                steps.append(came[steps[-1]])
            others.append(Way(norm, tuple(reversed(steps)), cost[norm][0]))
        return [first, *others]

    def to_output(self, start: int) -> tuple[int, ...]:
        """The shortest way from `start` to the output."""
        steps = [start]
        while (further := self._flow.output_after[steps[-1]]) >= 0:
            steps.append(further)
        return tuple(steps)
