"""Decide what happens to each dropout that was found: the steps of a fix, and what is left for people."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import fx

from dropout_lint.analysis import Analysis
from dropout_lint.fixes.graph.dropmodules import BETA_RANGE, beta_for, class_name
from dropout_lint.fixes.plan.anchors import anchors_for
from dropout_lint.fixes.plan.merging import at_place, merge
from dropout_lint.fixes.plan.steps import Action, Anchor, Skipped, Step, Weighed
from dropout_lint.fixes.plan.trials import Remaining, Trials
from dropout_lint.fixes.plan.words import advice_for, describe_step
from dropout_lint.layers import Noise
from dropout_lint.rules.findings import Finding
from dropout_lint.terms import SEVERITIES, Strategy
from dropout_lint.trace.traced import DropoutSite

ROUNDS = 8  # how often the planner may send a dropout on to its next place before it gives up
ORDER: tuple[Action, ...] = ("move", "uout", "reduce", "remove")
BETAS = (0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2)  # those that are tried, within `BETA_RANGE`


def can_be_fixed(finding: Finding) -> bool:
    """Whether a step could answer a finding: it is about a dropout call, and its rule names a fix."""
    site = finding.dropout
    return isinstance(site, DropoutSite) and finding.rule.fix is not None and not site.rooted


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


@dataclass
class Case:
    """One dropout call with everything that was found about it."""

    site: DropoutSite
    findings: list[Finding] = field(default_factory=list)
    repair: bool = False
    action: Action | None = None
    anchors: list[Anchor] = field(default_factory=list)
    tried: int = 0

    @property
    def codes(self) -> tuple[str, ...]:
        """The rules that found it."""
        return tuple(dict.fromkeys(finding.rule.code for finding in self.findings))


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
        compare: weigh every strategy, though none could do better than the one before it.
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
    ) -> None:
        self.trials = trials
        self.flow = trials.flow
        self.before = trials.before
        self.strategy = strategy
        self.threshold = trials.before.options.threshold
        self.beta = beta
        self.barred = frozenset(barred)
        self.compare = compare
        self.skipped: list[Skipped] = []
        self.cases: dict[fx.Node, Case] = {}
        for finding in findings:
            self._sort(finding)
        self.known = {(item.node, item.code) for item in trials.remaining(())}

    # what was found

    def _sort(self, finding: Finding) -> None:
        site = finding.dropout
        if not isinstance(site, DropoutSite) or not can_be_fixed(finding):
            name = None if site is None else site.name
            reason, advice = advice_for(finding)
            self.skipped.append(Skipped(name, (finding.rule.code,), reason, advice))
            return
        case = self.cases.setdefault(site.node, Case(site))
        case.findings.append(finding)
        case.repair |= finding.rule.fix == "repair"

    # the plan

    def plan(self) -> Plan:
        """The plan; raises nothing, what cannot be done is in `skipped`."""
        if not self.cases:
            return Plan((), tuple(self.skipped), self.before, self.before)
        options: tuple[Action, ...] = ORDER if self.strategy == "auto" else (self.strategy,)
        outcomes: dict[Action, Outcome] = {}
        for option in options:
            outcomes[option] = self._carry_out(option, self.strategy == "auto")
            if not self.compare and self._is_unbeaten(option, outcomes[option]):
                break
        floor = outcomes["remove"].deltas if "remove" in outcomes else {}
        ranked = sorted(
            outcomes.items(),
            key=lambda item: (
                len(item[1].left),
                self._short(item[0], item[1], floor),
                -round(self._kept(item[1].steps), 6),
                options.index(item[0]),
            ),
        )
        chosen, best = ranked[0]
        same = [name for name, outcome in outcomes.items() if _doing(outcome) == _doing(best)]
        # strategies that fall back to one result: named after what is done in it
        chosen = next((name for name in same if not self._fallback(name, outcomes[name])), chosen)
        weighed = tuple(
            Weighed(
                option,
                self._kept(outcome.steps),
                min(outcome.deltas.values(), default=None),
                len(outcome.left),
                chosen=option == chosen,
                fallback=self._fallback(option, outcome),
            )
            for option, outcome in outcomes.items()
        )
        steps, outcome = self._without_failures(best)
        return Plan(
            steps,
            (*self.skipped, *self._left_over(outcome)),
            self.before,
            self.trials.analysis(steps),
            weighed if self.strategy == "auto" else (),
        )

    def _is_unbeaten(self, option: Action, outcome: Outcome) -> bool:
        """Whether a strategy answers everything, keeps all noise and leaves no norm short."""
        whole = round(self._kept(outcome.steps), 6) >= 1
        return not outcome.left and whole and not self._short(option, outcome, {})

    def _fallback(self, option: Action, outcome: Outcome) -> str:
        """What a strategy does instead where it cannot do its own, and why; "" where it can."""
        own = {option, "repair"} | ({"merge"} if option == "move" else set())
        other = [step for step in outcome.steps if step.action not in own]
        if not other:
            return ""
        actions = " and ".join(dict.fromkeys(step.action for step in other))
        barred = any((step.site.node.name, option) in self.barred for step in other)
        why = "source cannot say it" if barred else f"no {option} answers the findings"
        some = (
            f" for {', '.join(step.site.name for step in other)}" if len(other) < len(outcome.steps) else ""
        )
        return f"here {actions}{some}: {why}"

    def _without_failures(self, outcome: Outcome) -> tuple[tuple[Step, ...], Outcome]:
        """Take back the steps of dropouts that are still found: what does not help is not done."""
        for _ in range(ROUNDS):
            bad = {item.node for item in outcome.left if item.node in self.cases}
            steps = tuple(step for step in outcome.steps if step.site.node not in bad)
            if len(steps) == len(outcome.steps):
                break
            gone = {step.site.node for step in outcome.steps} - {step.site.node for step in steps}
            steps = tuple(
                step
                for step in steps
                if step.action != "merge" or step.into is None or step.into.node not in gone
            )
            outcome = self._outcome(steps)
        return outcome.steps, outcome

    def _left_over(self, outcome: Outcome) -> list[Skipped]:
        left = []
        for node in dict.fromkeys(item.node for item in outcome.left if item.node in self.cases):
            case = self.cases[node]
            reason, advice = advice_for(case.findings[0], self.strategy)
            left.append(Skipped(case.site.name, case.codes, reason, advice))
        return left

    def _kept(self, steps: Sequence[Step]) -> float:
        """Share of the found dropouts' mask variance that stays; what they merge into counts for them."""
        total = kept = 0.0
        by_node = {step.site.node: step for step in steps}
        merged: dict[fx.Node, float] = {}
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
                kept += variance if step.value is None else step.value / (1 - step.value)
            elif step.action == "merge" and step.into is not None and step.into.node not in self.cases:
                merged[step.into.node] = merged.get(step.into.node, 0.0) + variance
        for step in steps:
            if step.into is not None and step.into.node in merged:
                kept += min(merged.pop(step.into.node), step.into.spec.mask_variance)
        return kept / total if total else 1.0

    def _short(self, option: Action, outcome: Outcome, floor: Mapping[str, float]) -> int:
        """How many norms fall under the threshold though they need not; the guideline's places are exempt."""
        if option == "move" and all(step.action in ("move", "merge", "repair") for step in outcome.steps):
            return 0
        return sum(delta < self.threshold <= floor.get(name, 1.0) for name, delta in outcome.deltas.items())

    # one strategy

    def _carry_out(self, strategy: Action, fall_back: bool) -> Outcome:
        """Steps for one strategy; a dropout that is still found goes on to its next place or strategy."""
        for case in self.cases.values():
            case.tried = 0
            case.action = self._first(case, strategy, fall_back)
            case.anchors = anchors_for(self.flow, case.site) if case.action == "move" else []
        best: Outcome | None = None
        for _ in range(ROUNDS):
            outcome = self._outcome(self._steps())
            if best is None or len(outcome.left) < len(best.left):
                best = outcome
            if not outcome.left:
                break
            advanced = [
                self._advance(self.cases[item.node], fall_back)
                for item in outcome.left
                if item.node in self.cases
            ]
            if not any(advanced):
                break
        assert best is not None
        return best

    def _first(self, case: Case, strategy: Action, fall_back: bool) -> Action | None:
        if all(finding.rule.fix == "repair" for finding in case.findings):
            return None if (case.site.node.name, "repair") in self.barred else "repair"
        wanted: Action = strategy
        if fall_back and strategy == "move" and not case.site.spec.noise.movable:
            wanted = "reduce"
        return wanted if self._allowed(case, wanted) else self._next(case, wanted, fall_back)

    def _allowed(self, case: Case, action: Action) -> bool:
        if (case.site.node.name, action) in self.barred:
            return False
        if action == "uout":
            return case.site.spec.noise not in (Noise.UNIFORM, Noise.GAUSSIAN, Noise.SAMPLE, Noise.BATCH)
        return action != "move" or case.site.spec.noise.movable

    def _next(self, case: Case, action: Action, fall_back: bool) -> Action | None:
        if not fall_back:
            return None
        for later in ORDER[ORDER.index(action) + 1 :]:
            if self._allowed(case, later):
                return later
        return None

    def _advance(self, case: Case, fall_back: bool) -> bool:
        """Send a dropout to its next place or strategy; False where there is none."""
        if case.action == "move" and case.tried + 1 < len(case.anchors):
            case.tried += 1
            return True
        if case.action is None or case.action == "repair":
            return False
        case.action = self._next(case, case.action, fall_back)
        return case.action is not None

    def _steps(self) -> tuple[Step, ...]:
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
                    step = self._repair(case)
                case _:
                    pass
            if step is not None:
                steps.append(step)
        steps += self._moves(moving)
        steps += self._uouts([case for case in self.cases.values() if case.action == "uout"], steps)
        steps += self._reductions([case for case in self.cases.values() if case.action == "reduce"], steps)
        return tuple(replace(step, why=describe_step(step)) for step in steps)

    def _repair(self, case: Case) -> Step | None:
        spec = case.site.spec
        facts = case.findings[0].facts
        rank = facts.input_rank if facts is not None else None
        flat = spec.noise in (Noise.CHANNEL, Noise.FEATURE_ALPHA) and rank is not None and rank < 3
        kind = "Dropout" if flat else None
        if kind is None and class_name(spec) is None and case.site.functional:
            return None
        return Step(case.site, "repair", kind=kind, codes=case.codes)

    def _moves(self, moving: Sequence[tuple[Case, Anchor]]) -> list[Step]:
        steps: list[Step] = []
        places: dict[tuple[str, ...], list[tuple[Case, Anchor]]] = {}
        for case, anchor in moving:
            places.setdefault(anchor.key, []).append((case, anchor))
        for group in places.values():
            anchor = group[0][1]
            found = {case.site.node: case for case, _ in group}
            there = at_place(self.flow, anchor)
            steps += merge(self.flow, anchor, found, there)
        return steps

    def _reductions(self, cases: Sequence[Case], others: Sequence[Step]) -> list[Step]:
        """The largest common share of each ratio with which no norm stays under the threshold."""
        if not cases:
            return []

        def steps_at(share: float) -> list[Step]:
            found = []
            for case in cases:
                value = math.floor(case.site.spec.p * share * 100 + 1e-9) / 100
                if value >= 0.01:  # below that a dropout is not worth its line
                    found.append(Step(case.site, "reduce", value=value, codes=case.codes))
            return found

        fits = self._fits(cases, others)
        low, high = 0.0, 1.0
        for _ in range(8):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(steps_at(middle)) else (low, middle)
        return steps_at(low)

    def _uouts(self, cases: Sequence[Case], others: Sequence[Step]) -> list[Step]:
        """β from each dropout's noise, lowered within the paper's range until every norm is fine."""
        if not cases:
            return []

        def steps_at(most: float) -> list[Step]:
            return [
                Step(
                    case.site,
                    "uout",
                    value=self.beta if self.beta is not None else min(most, beta_for(case.site.spec)),
                    kind="Uout",
                    codes=case.codes,
                )
                for case in cases
            ]

        if self.beta is None:
            fits = self._fits(cases, others)
            first = bisect_left(BETAS, True, key=lambda most: fits(steps_at(most)))
            return steps_at(BETAS[min(first, len(BETAS) - 1)])
        return steps_at(BETA_RANGE[0])

    def _fits(self, cases: Sequence[Case], others: Sequence[Step]) -> Callable[[Sequence[Step]], bool]:
        """Whether steps answer the findings of `cases` and keep every norm fine that removal would."""
        nodes = {case.site.node for case in cases}
        gone = [Step(case.site, "remove") for case in cases]
        floor = self.trials.deltas((*others, *gone))

        def fits(steps: Sequence[Step]) -> bool:
            together = (*others, *steps)
            for name, delta in self.trials.deltas(together).items():  # the cheaper of the two questions
                if floor.get(name, 1.0) >= self.threshold and not delta >= self.threshold:
                    return False
            return not any(item.node in nodes for item in self._left(together))

        return fits

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
        return tuple(
            item
            for item in self.trials.remaining(steps)
            if not self._milder(item)
            and (item.node in self.cases or (item.node, item.code) not in self.known)
        )

    def _outcome(self, steps: tuple[Step, ...]) -> Outcome:
        return Outcome(steps, self.trials.deltas(steps), self._left(steps))


def _doing(outcome: Outcome) -> set[tuple[str, Action, float | None]]:
    """What is done to which dropout, to compare outcomes by."""
    return {(step.site.node.name, step.action, step.value) for step in outcome.steps}
