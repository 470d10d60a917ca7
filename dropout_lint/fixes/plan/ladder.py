"""What is tried for a dropout, and what comes next where that does not help."""

from __future__ import annotations

from dataclasses import dataclass, field

from dropout_lint.fixes.plan.anchors import anchors_for
from dropout_lint.fixes.plan.case import Case
from dropout_lint.fixes.plan.steps import Action, Anchor
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.terms import Strategy

LADDER: tuple[Action, ...] = ("move", "reduce", "uout")


@dataclass
class Barred:
    """What the caller cannot carry out, in source.

    Attributes:
        actions: (node name of a dropout call, action) pairs.
        places: the keys of the only places for a dropout call, by its node name: those that one edit makes
            for all calls of its line.
    """

    actions: set[tuple[str, str]] = field(default_factory=set)
    places: dict[str, frozenset[tuple[str, ...]]] = field(default_factory=dict)


class Ladder:
    """The order in which strategies are tried.

    Args:
        flow: the graph.
        strategy: what the user asked for.
        barred: what the caller cannot carry out.
        uout: `auto` may end in Uout, where nothing else helps.
    """

    def __init__(self, flow: Ancestry, strategy: Strategy, barred: Barred, uout: bool) -> None:
        self.flow = flow
        self.strategy = strategy
        self.barred = barred
        self.rungs = LADDER if uout else LADDER[:-1]

    def begin(self, case: Case, strategy: Action, ladder: bool) -> None:
        """Put a dropout at its first place or strategy: with `ladder` that which its rules name."""
        case.tried = 0
        case.action = self._first(case, strategy, ladder)
        case.anchors = self._anchors(case, ladder) if case.action == "move" else []
        if case.action == "move" and not case.anchors:
            self.advance(case, ladder)

    def _anchors(self, case: Case, ladder: bool) -> list[Anchor]:
        found = anchors_for(self.flow, case.site, anywhere=self.strategy == "move")
        places = self.barred.places.get(case.site.node.name)
        return [
            anchor
            for anchor in found
            if (ladder or not anchor.settles) and (places is None or anchor.key in places)
        ]

    def _first(self, case: Case, strategy: Action, ladder: bool) -> Action | None:
        if not case.places:
            return None if (case.site.node.name, "repair") in self.barred.actions else "repair"
        wanted = strategy
        if ladder:
            wanted = case.first_rule_fix if case.movable else "reduce"
        return wanted if self._allowed(case, wanted) else self._next(case, wanted, ladder)

    def _allowed(self, case: Case, action: Action) -> bool:
        if (case.site.node.name, action) in self.barred.actions or (case.site.inside and action != "repair"):
            return False
        if action == "uout":
            return case.site.spec.noise.drops and not case.site.spec.noise.whole_sample
        fixed_place = case.site.node in self.flow.weighing or not case.site.spec.noise.movable
        return action != "move" or not fixed_place

    def _next(self, case: Case, action: Action, ladder: bool) -> Action | None:
        """What comes after an action that does not help: on the ladder, and a repair at its end."""
        if ladder and action in self.rungs:
            for later in self.rungs[self.rungs.index(action) + 1 :]:
                if self._allowed(case, later):
                    return later
        mends = case.repairs and action != "repair" and self._allowed(case, "repair")
        return "repair" if mends else None

    def advance(self, case: Case, ladder: bool) -> bool:
        """Send a dropout to its next place or strategy; False where there is none."""
        if case.action == "move" and case.tried + 1 < len(case.anchors):
            case.tried += 1
            return True
        if case.action is None or case.action == "repair":
            return False
        case.action = self._next(case, case.action, ladder)
        return case.action is not None

    def give_way(self, case: Case) -> None:
        """Send a dropout that does not go to its place to where it is better off, or to its next strategy."""
        later = [
            number for number in range(case.tried + 1, len(case.anchors)) if case.anchors[number].settles
        ]
        if later:
            case.tried = later[0]
        else:
            case.action = self._next(case, "move", ladder=True)
