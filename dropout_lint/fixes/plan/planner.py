"""Decide what happens to each dropout that was found: the steps of a fix, and what is left for people.

Each finding gets a strategy of its own. `auto` first repairs and moves; where no place answers what was
found it lowers the ratio, down to half of it. Further it does not go by itself, but says what would help:
other noise (Uout) and less of it are for people to choose, and so is one dropout for those of several blocks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx

from dropout_lint.analysis import Analysis
from dropout_lint.fixes.plan.amounts import HALF, Amounts
from dropout_lint.fixes.plan.anchors import anchors_for, positions_of
from dropout_lint.fixes.plan.case import Case, can_be_fixed, kind_for
from dropout_lint.fixes.plan.merging import at_place, merge, rivals
from dropout_lint.fixes.plan.steps import DELETING, Action, Anchor, Skipped, Step, Weighed
from dropout_lint.fixes.plan.trials import Remaining, Trials
from dropout_lint.fixes.plan.words import (
    BETTER_OFF,
    advice_for,
    not_worth_it,
    nothing_would,
    taken_place,
    titled,
    what_would,
)
from dropout_lint.rules.findings import Finding
from dropout_lint.terms import SEVERITIES, Strategy
from dropout_lint.trace.traced import DropoutSite, shape_of

ROUNDS = 8  # how often the planner may send a dropout on to its next place before it gives up
LADDER: tuple[Action, ...] = ("move", "reduce", "uout")
ALTERNATIVES: tuple[Action, ...] = ("move", "uout", "reduce", "remove")
WORTH = 0.02
"""A fix has to bring the worst norm that its findings speak of nearer to Δ = 1 by this much, or to the
threshold, and the model's worst norm no further from it: less is within what the prediction can tell."""


@dataclass(frozen=True)
class Plan:
    """The steps of one fix and what they come to.

    Attributes:
        steps: what happens to each dropout.
        skipped: findings that no step answers.
        before: predicted Δ and findings before.
        after: the same after the steps.
        weighed: the strategies that were compared.
    """

    steps: tuple[Step, ...]
    skipped: tuple[Skipped, ...]
    before: Analysis
    after: Analysis
    weighed: tuple[Weighed, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A set of steps with what comes of it: Δ at the norms that shift, and what is left."""

    steps: tuple[Step, ...]
    deltas: Mapping[str, float]
    left: tuple[Remaining, ...]


class Planner:
    """Plans the fix of one trace.

    Args:
        trials: carries out steps on the trace that was linted, and judges them.
        findings: what was found.
        strategy: what the user asked for.
        beta: β for Uout, None to take it from the dropout's noise.
        barred: (node name of a dropout call, action) pairs that the caller cannot carry out (in source).
        compare: work out what the other strategies would do, to tell it.
        uout: `auto` may end in Uout, where nothing else helps.
    """

    def __init__(
        self,
        trials: Trials,
        findings: Sequence[Finding],
        *,
        strategy: Strategy = "auto",
        beta: float | None = None,
        barred: Collection[tuple[str, str]] = (),
        compare: bool = True,
        uout: bool = False,
    ) -> None:
        self.trials = trials
        self.flow = trials.flow
        self.before = trials.analysis(())
        self.strategy = strategy
        self.threshold = trials.before.options.threshold
        self.beta = beta
        self.barred = frozenset(barred)
        self.compare = compare
        self.ladder = LADDER if uout else LADDER[:-1]
        self.skipped: list[Skipped] = []
        self.cases: dict[fx.Node, Case] = {}
        for finding in findings:
            self._sort(finding)
        self.crowded: dict[fx.Node, str] = {}  # why a dropout does not go to its place
        self.known = {(item.node, item.code) for item in trials.remaining(())}
        self.amounts = Amounts(trials, self.threshold, self._left)

    def _sort(self, finding: Finding) -> None:
        site = finding.dropout
        if not isinstance(site, DropoutSite) or not can_be_fixed(finding):
            name = None if site is None else site.name
            reason, advice = advice_for(finding)
            self.skipped.append(Skipped(name, (finding.rule.code,), reason, advice))
            return
        self.cases.setdefault(site.node, Case(site)).findings.append(finding)

    # the plan

    def plan(self) -> Plan:
        """The plan; raises nothing, what cannot be done is in `skipped`."""
        if not self.cases:
            return Plan((), tuple(self.skipped), self.before, self.before)
        auto = self.strategy == "auto"
        outcome = self._carry_out("move" if self.strategy == "auto" else self.strategy, auto)
        outcome = self._without_what_does_not_help(outcome)
        outcome, too_little = self._without_what_gains_little(outcome) if auto else (outcome, {})
        outcome = replace(outcome, steps=titled(outcome.steps))
        others: dict[Action, Outcome] = {}
        if auto and self.compare and any(case.places for case in self.cases.values()):
            others = {option: self._carry_out(option, False) for option in ALTERNATIVES}
        left = self._left_over(outcome, too_little, others)
        after = self.trials.analysis(outcome.steps)
        weighed = self._weighed(outcome, others) if others else ()
        erased = {step.site.name for step in outcome.steps if step.action in DELETING}
        told = [item for item in self.skipped if item.dropout not in erased]
        return Plan(outcome.steps, (*told, *left), self.before, after, weighed)

    def _weighed(self, outcome: Outcome, others: Mapping[Action, Outcome]) -> tuple[Weighed, ...]:
        """What was chosen, and what each strategy alone would come to."""
        done = {step.action for step in outcome.steps}
        chosen: Action = next((name for name in ("reduce", "uout", "remove") if name in done), "move")
        rows = {**others, chosen: outcome} if outcome.steps else dict(others)
        return tuple(
            Weighed(
                name,
                self._kept(one.steps),
                min(one.deltas.values(), default=None),
                len(one.left),
                chosen=one is outcome,
            )
            for name in ALTERNATIVES
            if (one := rows.get(name)) is not None
        )

    def _without_what_does_not_help(self, outcome: Outcome) -> Outcome:
        """Take back the steps of dropouts that are still found: what does not help is not done.

        A repair stays where what it repairs is gone.
        """
        for _ in range(ROUNDS):
            left: dict[fx.Node, set[str]] = {}
            for item in outcome.left:
                left.setdefault(item.node, set()).add(item.code)
            bad = {
                step.site.node
                for step in outcome.steps
                if step.site.node in left
                and (step.action != "repair" or left[step.site.node] & set(step.codes))
            }
            if not bad:
                return outcome
            outcome = self._less(outcome, bad)
        return outcome

    def _without_what_gains_little(self, outcome: Outcome) -> tuple[Outcome, dict[fx.Node, str]]:
        """Take back what does not bring the worst norm of its findings nearer, and say so."""
        too_little: dict[fx.Node, str] = {}
        before = self.trials.deltas(())
        for _ in range(ROUNDS):
            worst = min(before.values(), default=1.0), min(outcome.deltas.values(), default=1.0)
            worse = worst[1] < min(worst[0], self.threshold) - WORTH
            found: dict[fx.Node, str] = {}
            for step in outcome.steps:
                case = self.cases[step.site.node]
                names = {item.norm.node.name for item in case.places if item.norm is not None}
                known = [name for name in names if name in before and name in outcome.deltas]
                if step.action == "repair" or not (known or worse):
                    continue
                old = min((before[name] for name in known), default=1.0)
                new = min((outcome.deltas[name] for name in known), default=1.0)
                if old < self.threshold and new < min(old + WORTH, self.threshold):
                    found[step.site.node] = not_worth_it(old, new)
                elif worse:
                    found[step.site.node] = not_worth_it(*worst)
            if not found:
                break
            too_little |= found
            outcome = self._less(outcome, set(found))
        return outcome, too_little

    def _less(self, outcome: Outcome, nodes: set[fx.Node]) -> Outcome:
        """An outcome without the steps of some dropouts, and without the merges into them."""
        return self._outcome(
            tuple(
                step
                for step in outcome.steps
                if step.site.node not in nodes and (step.into is None or step.into.node not in nodes)
            )
        )

    def _left_over(
        self, outcome: Outcome, too_little: Mapping[fx.Node, str], others: Mapping[Action, Outcome]
    ) -> list[Skipped]:
        """What no step answers, and what a milder rule says of a dropout that is better off where it goes."""
        steps = {step.site.node: step for step in outcome.steps}
        still = {item.node for item in outcome.left}
        left = []
        for node, case in self.cases.items():
            step = steps.get(node)
            codes = tuple(code for code in case.codes if step is None or code not in step.codes)
            reason = too_little.get(node) or self.crowded.get(node)
            if step is not None and step.settles:
                remaining = self.trials.remaining(outcome.steps)
                counts = [item for item in remaining if item.node is node and item.severity != "info"]
                codes = tuple(dict.fromkeys(item.code for item in counts))
                reason = reason or BETTER_OFF
            elif node not in still and node not in too_little:
                continue
            if codes:
                left.append(self._skipped(case, codes, reason, others))
        return left

    def _skipped(
        self, case: Case, codes: tuple[str, ...], reason: str | None, others: Mapping[Action, Outcome]
    ) -> Skipped:
        first = next((item for item in case.findings if item.rule.code == codes[0]), case.findings[0])
        unanswered, advice = advice_for(first, self.strategy)
        if others and case.places:
            useful = self._useful(case.site.node, others)
            advice = what_would(useful) if useful else nothing_would(codes)
        return Skipped(case.site.name, codes, reason or unanswered, advice)

    def _useful(self, node: fx.Node, others: Mapping[Action, Outcome]) -> dict[Action, float]:
        """The strategies that `auto` leaves to people and that answer what was found, with their worst Δ."""
        least = min(self.trials.deltas(()).values(), default=1.0) - WORTH
        worst = {option: min(one.deltas.values(), default=1.0) for option, one in others.items()}
        return {
            option: worst[option]
            for option, one in others.items()
            if (option != "move" or node in self.crowded)
            and worst[option] >= least
            and all(item.node is not node for item in one.left)
        }

    def _kept(self, steps: Sequence[Step]) -> float:
        """Share of the found dropouts' mask variance that still reaches the loss.

        One that is merged into another is gone; noise of single elements in front of a pooling over n
        positions is averaged, and 1/n of its variance is left.
        """
        total = kept = 0.0
        by_node = {step.site.node: step for step in steps}
        for node, case in self.cases.items():
            variance = case.site.spec.mask_variance
            if not math.isfinite(variance):
                continue
            total += variance
            step = by_node.get(node)
            if step is None or step.action == "repair":
                kept += variance
            elif step.action == "uout":
                kept += min(variance, (step.value or 0.0) ** 2 / 3)
            elif step.action in ("move", "reduce"):
                stays = variance if step.value is None else step.value / (1 - step.value)
                averaged = step.anchor is not None and not case.site.spec.noise.channelwise
                kept += stays / (positions_of(self.flow, step.anchor) if averaged and step.anchor else 1)
        return kept / total if total else 1.0

    # one strategy

    def _carry_out(self, strategy: Action, ladder: bool) -> Outcome:
        """Steps for one strategy; a dropout that is still found goes on to its next place or strategy."""
        for case in self.cases.values():
            case.tried = 0
            case.action = self._first(case, strategy, ladder)
            case.anchors = self._anchors(case, ladder) if case.action == "move" else []
            if case.action == "move" and not case.anchors:
                self._advance(case, ladder)
        best: Outcome | None = None
        for _ in range(ROUNDS):
            outcome = self._outcome(self._steps(ladder))
            if best is None or len(outcome.left) < len(best.left):
                best = outcome
            if not outcome.left:
                break
            left = [self.cases[item.node] for item in outcome.left if item.node in self.cases]
            advanced = [self._advance(case, ladder) for case in left]
            if not any(advanced):
                break
        assert best is not None
        return best

    def _anchors(self, case: Case, ladder: bool) -> list[Anchor]:
        found = anchors_for(self.flow, case.site, anywhere=self.strategy == "move")
        return [anchor for anchor in found if ladder or not anchor.settles]

    def _first(self, case: Case, strategy: Action, ladder: bool) -> Action | None:
        if not case.places:
            return None if (case.site.node.name, "repair") in self.barred else "repair"
        wanted = strategy
        if ladder:
            wanted = case.first_rule_fix if case.movable else "reduce"
        return wanted if self._allowed(case, wanted) else self._next(case, wanted, ladder)

    def _allowed(self, case: Case, action: Action) -> bool:
        if (case.site.node.name, action) in self.barred or (case.site.inside and action != "repair"):
            return False
        if action == "uout":
            return case.site.spec.noise.drops and not case.site.spec.noise.whole_sample
        return action != "move" or case.site.spec.noise.movable

    def _next(self, case: Case, action: Action, ladder: bool) -> Action | None:
        """What comes after an action that does not help: on the ladder, and a repair at its end."""
        if ladder and action in self.ladder:
            for later in self.ladder[self.ladder.index(action) + 1 :]:
                if self._allowed(case, later):
                    return later
        mends = case.repairs and action != "repair" and self._allowed(case, "repair")
        return "repair" if mends else None

    def _advance(self, case: Case, ladder: bool) -> bool:
        """Send a dropout to its next place or strategy; False where there is none."""
        if case.action == "move" and case.tried + 1 < len(case.anchors):
            case.tried += 1
            return True
        if case.action is None or case.action == "repair":
            return False
        case.action = self._next(case, case.action, ladder)
        return case.action is not None

    def _give_way(self, case: Case) -> None:
        """Send a dropout that does not go to its place to where it is better off, or to its next strategy."""
        later = [
            number for number in range(case.tried + 1, len(case.anchors)) if case.anchors[number].settles
        ]
        if later:
            case.tried = later[0]
        else:
            case.action = self._next(case, "move", ladder=True)

    def _steps(self, ladder: bool) -> tuple[Step, ...]:
        steps: list[Step] = []
        moving: list[tuple[Case, Anchor]] = []
        for case in self.cases.values():
            step: Step | None = None
            match case.action:
                case "move" if case.anchors:
                    moving.append((case, case.anchors[case.tried]))
                case "remove":
                    step = Step(case.site, "remove", codes=case.codes)
                case "repair":
                    step = case.repair()
                case _:
                    pass
            if step is not None:
                steps.append(step)
        crowded = self._crowded(moving) if ladder else []
        if crowded:
            for case in crowded:
                self._give_way(case)
            return self._steps(ladder)
        steps += self._moves(moving)
        steps += self.amounts.uouts(self._doing("uout"), steps, self.beta)
        lowered = self._doing("reduce")
        reductions = self.amounts.reductions(lowered, steps, least=HALF if ladder else 0.0)
        if ladder and lowered and not reductions:  # even the least ratio is too much: on to what comes next
            for case in lowered:
                self._advance(case, ladder)
            return self._steps(ladder)
        return (*steps, *reductions)

    def _doing(self, action: Action) -> list[Case]:
        return [case for case in self.cases.values() if case.action == action]

    def _crowded(self, moving: Sequence[tuple[Case, Anchor]]) -> list[Case]:
        """The dropouts that would become one with those of other blocks, and so stay where they are."""
        found = []
        for case, anchor in moving:
            bound = [other.site for other, place in moving if place.key == anchor.key]
            others = rivals(self.flow, case.site, anchor, bound, one="DL204" in case.codes)
            if others:
                self.crowded[case.site.node] = taken_place(case.site, anchor, others)
                found.append(case)
        return found

    def _moves(self, moving: Sequence[tuple[Case, Anchor]]) -> list[Step]:
        steps: list[Step] = []
        places: dict[tuple[str, ...], list[tuple[Case, Anchor]]] = {}
        for case, anchor in moving:
            places.setdefault(anchor.key, []).append((case, anchor))
        leaving = {case.site.node for case in self.cases.values() if case.action in ("move", "remove")}
        for group in places.values():  # of several at one place, those that stand there already stay
            mine = {case.site.node for case, _ in group}
            if len(mine) > 1:
                leaving -= {site.node for site in at_place(self.flow, group[0][1]) if site.node in mine}
        for group in places.values():
            anchor = group[0][1]
            found = {case.site.node: case for case, _ in group}
            there = [
                site for site in at_place(self.flow, anchor) if site.node in found or site.node not in leaving
            ]
            for step in merge(self.flow, anchor, found, there):
                rank = len(shape_of(anchor.producer) or ()) or None
                kind = kind_for(step.site, rank) if step.action == "move" else None
                steps.append(replace(step, kind=kind))
        return steps

    def _milder(self, item: Remaining) -> bool:
        """Whether a strategy that leaves a dropout where it is answered all but its place.

        A placement is reported by its severest rule alone. Where `reduce` or `uout` was asked for and that
        rule is silent now, a milder one about the place may speak up; `auto` does not accept this.
        """
        case = self.cases.get(item.node)
        if case is None or self.strategy not in ("uout", "reduce") or item.code in case.codes:
            return False
        worst = min(SEVERITIES.index(finding.severity) for finding in case.findings)
        return SEVERITIES.index(item.severity) > worst

    def _left(self, steps: Sequence[Step]) -> tuple[Remaining, ...]:
        """What is found after some steps and was to go, or is new."""
        settled = {step.site.node: step for step in steps if step.settles}
        return tuple(
            item
            for item in self.trials.remaining(steps)
            if not self._milder(item)
            and not (item.node in settled and item.code not in settled[item.node].codes)
            and (item.node in self.cases or (item.node, item.code) not in self.known)
            and not self._asked_elsewhere(item)
        )

    def _asked_elsewhere(self, item: Remaining) -> bool:
        """Whether something was found about a dropout before, and nobody asked to answer it."""
        case = self.cases.get(item.node)
        return case is not None and item.code not in case.codes and (item.node, item.code) in self.known

    def _outcome(self, steps: tuple[Step, ...]) -> Outcome:
        left = self._left(steps)  # first: it knows Δ as well
        return Outcome(steps, self.trials.deltas(steps), left)
