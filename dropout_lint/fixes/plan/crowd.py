"""Dropouts of other blocks do not become one, unless a person asks for it, and none passes another.

Of a stack of blocks that drop each, the guideline leaves one dropout before the classifier, and takes the
others' noise away, which somebody chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx

from dropout_lint.fixes.plan.anchors import branch_with
from dropout_lint.fixes.plan.merging import at_place
from dropout_lint.fixes.plan.steps import DELETING, Anchor, Step
from dropout_lint.fixes.plan.words import taken_place
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.trace.traced import DropoutSite

Then = Mapping[fx.Node, fx.Node | None]
"""Where dropouts are after a fix: behind a node, or nowhere; those that it leaves stay where they are."""


class Crowd:
    """Remembers which dropouts give way to those of other blocks, and where these are after the fix.

    Args:
        flow: the graph.

    Attributes:
        why: for each dropout that gave way, the reason in words.
    """

    def __init__(self, flow: Ancestry) -> None:
        self.flow = flow
        self.why: dict[fx.Node, str] = {}
        self._waiting: dict[fx.Node, Step] = {}
        self._then: Then = {}

    def giving_way(self, moves: Sequence[Step]) -> set[fx.Node]:
        """The dropouts that do not go to their places, since others are in the way."""
        met = self._met(moves, moves, self._then)
        for step in moves:
            if step.site.node in met:
                assert step.anchor is not None
                together = sorted(
                    (step.site, *met[step.site.node]), key=lambda site: self.flow.index[site.node]
                )
                self.why[step.site.node] = taken_place(step.anchor, together)
                self._waiting[step.site.node] = step
        return set(met)

    def freed(self, steps: Sequence[Step]) -> set[fx.Node]:
        """Those that gave way to dropouts which steps delete or move away: they may go after all."""
        self._then = _after(steps)
        found = self._waiting.keys() - self._met(list(self._waiting.values()), steps, self._then)
        for node in found:
            del self._waiting[node], self.why[node]
        return found

    def passing(self, steps: Sequence[Step]) -> set[fx.Node]:
        """Dropouts that steps move past others, or to where others are."""
        return set(self._met(steps, steps, _after(steps)))

    def _met(
        self, moves: Sequence[Step], others: Sequence[Step], then: Then
    ) -> dict[fx.Node, list[DropoutSite]]:
        """For each dropout that goes somewhere, those of other blocks that it would meet."""
        met = {}
        going: dict[tuple[str, ...], set[fx.Node]] = {}
        for other in others:
            if other.anchor is not None:
                going.setdefault(other.anchor.key, set()).add(other.site.node)
        for step in moves:
            there = {site.node for site in at_place(self.flow, step.anchor)} if step.anchor else set()
            if step.anchor is None or step.site.node in there:
                continue
            stay = {node for node in there if node not in then}
            bound = going.get(step.anchor.key, set()) - there
            found = self._rivals(step, step.anchor, stay | bound, then)
            if found:
                met[step.site.node] = found
        return met

    def _rivals(self, step: Step, anchor: Anchor, mates: set[fx.Node], then: Then) -> list[DropoutSite]:
        """Dropouts of other blocks that one would become one with, or pass, on its way to a place.

        One that passes no weight layer on its way is in its own block, and takes the place.

        Args:
            step: the move.
            anchor: its place.
            mates: what else goes to the same place, or is there and stays.
            then: where dropouts are that do not stay.
        """
        home = step.site.node
        if not self._weights_between(home, anchor.producer) or self._one_wanted(step, anchor):
            return []
        met = []
        for node, other in self.flow.dropouts.items():
            at = then.get(node, node)
            if not other.spec.is_noisy or other.spec.noise.whole_sample or node is home:
                continue
            if node in mates or at is anchor.producer:
                together = self._apart(home, node)
            else:
                together = at is not None and self._between(home, at, anchor, moved=node in then)
            if together:
                met.append(other)
        return met

    def _between(self, node: fx.Node, at: fx.Node, anchor: Anchor, *, moved: bool) -> bool:
        """Whether a dropout is on the way to a place, weight layers away: at a node, or behind it."""
        reaches = self.flow.reaches
        if reaches(node, anchor.producer):
            ends = (anchor.producer, *(user for user in anchor.users if not moved or user is not at))
            on_path = reaches(node, at) and any(reaches(at, end) for end in ends)
        else:
            on_path = reaches(anchor.producer, at) and reaches(at, node)
        return on_path and self._weights_between(node, at)

    def _weights_between(self, one: fx.Node, other: fx.Node) -> bool:
        """Whether a weight layer is on a way from one node to another, whichever comes first."""
        reaches = self.flow.reaches
        upper, lower = (one, other) if reaches(one, other) else (other, one)
        return any(reaches(upper, weight) and reaches(weight, lower) for weight in self.flow.weights)

    def _apart(self, one: fx.Node, other: fx.Node) -> bool:
        """Whether weight layers lie between two dropouts, or neither feeds the other."""
        related = self.flow.reaches(one, other) or self.flow.reaches(other, one)
        return not related or self._weights_between(one, other)

    def _one_wanted(self, step: Step, anchor: Anchor) -> bool:
        """Whether a dropout is to be the only one there: Kim et al. 2023 have one in a branch, one in a head.

        In a residual branch, where that is what was found; in the head, for one on what the classifier makes.
        """
        flow, home = self.flow, step.site.node
        if flow.reaches(anchor.producer, home) and not flow.below(anchor.producer, flow.shifting):
            return True
        branch = branch_with(flow, home)
        if "DL204" not in step.codes or branch is None or flow.is_concat(branch.join):
            return False
        return all(branch.mask >> flow.index[node] & 1 for node in (home, anchor.producer))


def _after(steps: Sequence[Step]) -> Then:
    then: dict[fx.Node, fx.Node | None] = {step.site.node: None for step in steps if step.action in DELETING}
    moved = {step.site.node: step.anchor.producer for step in steps if step.action == "move" and step.anchor}
    return then | moved
