"""Two plans as one: the second was made on the model that the first leads to.

Where dropouts have moved, another one may find a place that was taken, or Δ at a norm that others shifted too
may be answered by half of its ratio: a fix of the fixed model would go on. It is all said in one plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import fx

from dropout_lint.fixes.plan.steps import DELETING, Anchor, Step
from dropout_lint.trace.traced import DropoutSite

Origin = Mapping[fx.Node, fx.Node]
"""For each node of a rewritten graph, that of the graph it was made of; for a moved dropout, its old call."""


class Composed:
    """Steps on a rewritten graph, in terms of the graph it was made of.

    Args:
        sites: the dropouts of the original graph.
        first: the steps that led to the rewritten graph.
        origin: where its nodes come from.
        placed: its dropouts that are not where they were, which the original graph does not have.
    """

    def __init__(
        self,
        sites: Mapping[fx.Node, DropoutSite],
        first: Sequence[Step],
        origin: Origin,
        placed: Iterable[fx.Node],
    ) -> None:
        self.sites = sites
        self.first = {step.site.node: step for step in first}
        self.origin = origin
        self.placed = frozenset(placed)

    def steps(self, second: Sequence[Step]) -> tuple[Step, ...]:
        """Both sets of steps as one."""
        steps = dict(self.first)
        for step in second:
            new = self._translated(step)
            old = steps.get(new.site.node)
            steps[new.site.node] = new if old is None else _both(old, new)
        into = {node: step.into.node for node, step in steps.items() if step.action == "merge" and step.into}
        for node, stays in into.items():  # what one was merged into may have been merged as well
            last = stays
            while last in into:
                last = into[last]
            steps[node] = replace(steps[node], into=self.sites[last])
        return tuple(steps.values())

    def _translated(self, step: Step) -> Step:
        return replace(
            step,
            site=self._site(step.site),
            into=None if step.into is None else self._site(step.into),
            anchor=None if step.anchor is None else self._anchor(step.anchor),
        )

    def _site(self, site: DropoutSite) -> DropoutSite:
        return self.sites[self.origin[site.node]]

    def _anchor(self, anchor: Anchor) -> Anchor:
        producer = anchor.producer
        while producer in self.placed:
            producer = producer.all_input_nodes[0]
        norm = None if anchor.norm is None else self.origin[anchor.norm]
        users = tuple(dict.fromkeys(self._readers(anchor.users)))
        return replace(anchor, producer=self.origin[producer], users=users, norm=norm)

    def _readers(self, users: Iterable[fx.Node]) -> Iterator[fx.Node]:
        for user in users:
            if user in self.placed:
                yield from self._readers(user.users)
            else:
                yield self.origin[user]


def _both(first: Step, second: Step) -> Step:
    """What comes of a dropout by two steps, the second on what the first made of it."""
    codes = tuple(dict.fromkeys((*first.codes, *second.codes)))
    if second.action in DELETING:
        return replace(second, codes=codes)
    place = second if second.action == "move" or first.action != "move" else first
    value = first.value if second.value is None else second.value
    return replace(place, value=value, kind=second.kind or first.kind, codes=codes)
