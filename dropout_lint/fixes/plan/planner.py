"""Decide what happens to each dropout that was found: the steps of a fix, and what is left for people.

Each finding gets a strategy of its own. `auto` first repairs and moves; where no place answers what was
found it lowers the ratio, down to half of it. Further it does not go by itself, but says what would help:
other noise (Uout) and less of it are for people to choose, and so is one dropout for those of several blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx

from dropout_lint.analysis import Analysis
from dropout_lint.fixes.plan.amounts import HALF, Amounts
from dropout_lint.fixes.plan.case import Case, can_be_fixed, kind_for
from dropout_lint.fixes.plan.crowd import Crowd
from dropout_lint.fixes.plan.ladder import Barred, Ladder
from dropout_lint.fixes.plan.merging import at_place, merge
from dropout_lint.fixes.plan.steps import DELETING, Action, Anchor, Skipped, Step, Weighed
from dropout_lint.fixes.plan.trials import Outcome, Remaining, Trials
from dropout_lint.fixes.plan.weighing import ALTERNATIVES, weighed
from dropout_lint.fixes.plan.words import (
    BETTER_OFF,
    MILDER,
    advice_for,
    held_by_others,
    not_worth_it,
    nothing_would,
    titled,
    what_would,
)
from dropout_lint.rules.findings import Finding
from dropout_lint.terms import SEVERITIES, Strategy, nearness, worst_of
from dropout_lint.trace.traced import DropoutSite, shape_of

ROUNDS = 8  # how often the planner may send a dropout on to its next place before it gives up
WORTH = 0.02
"""A fix has to bring the worst norm that its findings speak of nearer to Δ = 1 by this much, or to the
threshold where the ratio stays, and the model's worst norm no further from it: less is within what the
prediction can tell."""
FURTHER = WORTH / 2
"""A norm that a dropout alone shifts further by this much counts as well, and so do all that it shifts beyond
the threshold: what is won at one norm is not lost at the next."""


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


class Planner:
    """Plans the fix of one trace.

    Args:
        trials: carries out steps on the trace that was linted, and judges them.
        findings: what was found.
        strategy: what the user asked for.
        beta: β for Uout, None to take it from the dropout's noise.
        barred: what the caller cannot carry out (in source).
        compare: work out what the other strategies would do, to tell it.
        uout: `auto` may end in Uout, where nothing else helps.
        writable: whether steps can be written where the caller writes them, in source.
    """

    def __init__(
        self,
        trials: Trials,
        findings: Sequence[Finding],
        *,
        strategy: Strategy = "auto",
        beta: float | None = None,
        barred: Barred | None = None,
        compare: bool = True,
        uout: bool = False,
        writable: Callable[[Sequence[Step]], bool] = lambda _: True,
    ) -> None:
        self.trials = trials
        self.flow = trials.flow
        self.before = trials.analysis(())
        self.strategy = strategy
        self.threshold = trials.before.options.threshold
        self.beta = beta
        self.compare = compare
        self.writable = writable
        self.ladder = Ladder(trials.flow, strategy, barred or Barred(), uout)
        self.skipped: list[Skipped] = []
        self.cases: dict[fx.Node, Case] = {}
        for finding in findings:
            self._sort(finding)
        self.crowd = Crowd(trials.flow)
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
        outcome = self._and_again(outcome) if auto else outcome
        outcome = replace(outcome, steps=titled(outcome.steps))
        after = self.trials.analysis(outcome.steps)  # while it is the last that was carried out
        others: dict[Action, Outcome] = {}
        if auto and self.compare and any(case.places for case in self.cases.values()):
            others = {option: self._carry_out(option, False) for option in ALTERNATIVES}
        left = self._left_over(outcome, too_little, others)
        rows = weighed(self.flow, list(self.cases.values()), outcome, others) if others else ()
        erased = {step.site.name for step in outcome.steps if step.action in DELETING}
        told = [item for item in self.skipped if item.dropout not in erased]
        return Plan(outcome.steps, (*told, *left), self.before, after, rows)

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
        """Take back what does not bring the worst norm of its findings nearer, or of those that the noise of
        its dropout shifts by itself, before or after; and say so.
        """
        too_little: dict[fx.Node, str] = {}
        before = self.trials.deltas(())
        for _ in range(ROUNDS):
            worst = _worst(before.values()), _worst(outcome.deltas.values())
            worse = nearness(worst[1]) < min(nearness(worst[0]), self.threshold) - WORTH
            found = self._lowered_for_nothing(outcome)
            for step in outcome.steps:
                known = self._known(step, before, outcome.deltas)
                if step.action == "repair" or not (known or worse):
                    continue
                shifted = self._shifted(step, outcome)
                if (gain := self._too_little(known, before, outcome.deltas)) is not None:
                    found[step.site.node] = not_worth_it(*gain)
                elif step.action == "reduce" and (lower := _gained(known, before, outcome.deltas))[2] < WORTH:
                    found[step.site.node] = not_worth_it(*lower[:2])
                elif (gain := self._too_little(shifted, before, outcome.deltas)) is not None:
                    norm = min(shifted, key=lambda name: nearness(outcome.deltas[name]))
                    found[step.site.node] = held_by_others(shifted[norm], *gain)
                elif worse:
                    found[step.site.node] = not_worth_it(*worst)
            if not found:
                break
            too_little |= found
            outcome = self._less(outcome, set(found))
        return outcome, too_little

    def _lowered_for_nothing(self, outcome: Outcome) -> dict[fx.Node, str]:
        """Ratios that are lowered though the other steps bring the norms in question to the threshold."""
        lowered = [step for step in outcome.steps if step.action == "reduce"]
        if not lowered or len(lowered) == len(outcome.steps):
            return {}
        without = self.trials.deltas([step for step in outcome.steps if step.action != "reduce"])
        found = {}
        for step in lowered:
            known = self._known(step, without, outcome.deltas)
            old, new, _ = _gained(known, without, outcome.deltas)
            if known and nearness(old) >= self.threshold:
                found[step.site.node] = not_worth_it(old, new)
        return found

    def _too_little(
        self, names: Iterable[str], before: Mapping[str, float], after: Mapping[str, float]
    ) -> tuple[float, float] | None:
        """The worst Δ of some norms before and after, where it counts and does not come nearer by enough."""
        old, new, _ = _gained(names, before, after)
        return (old, new) if nearness(old) < self.threshold and self._stays(old, new) else None

    def _shifted(self, step: Step, outcome: Outcome) -> dict[str, str]:
        """The norms, by node, that a dropout alone shifts beyond the threshold now, or that it shifts further
        after the steps than now.
        """
        before, node = self.trials.deltas(()), step.site.node
        now: Mapping[str, float] = self.trials.alone(()).get(node, {})
        then: Mapping[str, float] = {}
        if any(self._stays(before.get(name, 1.0), delta) for name, delta in outcome.deltas.items()):
            then = self.trials.alone(outcome.steps).get(node, {})
        found = {}
        for shift in self.before.prediction.norms:
            part, after = (nearness(deltas.get(shift.node, 1.0)) for deltas in (now, then))
            known = shift.node in before and shift.node in outcome.deltas
            if known and (part < self.threshold or after < part - FURTHER):
                found[shift.node] = shift.norm
        return found

    def _stays(self, old: float, new: float) -> bool:
        """Whether a norm is shifted by steps, or comes no nearer by them."""
        return nearness(new) < min(nearness(old) + WORTH, self.threshold)

    def _known(self, step: Step, *deltas: Mapping[str, float]) -> list[str]:
        """The norms that the findings about a dropout speak of and that have a Δ, before and after."""
        places = self.cases[step.site.node].places
        names = dict.fromkeys(item.norm.node.name for item in places if item.norm is not None)
        return [name for name in names if all(name in known for known in deltas)]

    def _and_again(self, outcome: Outcome) -> Outcome:
        """With what a fix of the model that the steps lead to would do about what they leave."""
        open_ones = self._open(outcome.steps)
        if not outcome.steps or not open_ones:
            return outcome
        trials, composed = self.trials.beyond(outcome.steps)
        findings = [
            finding
            for finding in trials.before.findings
            if isinstance(finding.dropout, DropoutSite)
            and (composed.origin[finding.dropout.node], finding.rule.code) in open_ones
        ]
        names = {node.name: composed.origin[node].name for node in trials.flow.dropouts}
        barred = Barred()
        for now, then in names.items():
            barred.actions |= {(now, action) for name, action in self.ladder.barred.actions if name == then}
            if then in self.ladder.barred.places:
                barred.actions.add((now, "move"))
        planner = Planner(
            trials, findings, beta=self.beta, barred=barred, compare=False, uout="uout" in self.ladder.rungs
        )
        further = planner.plan().steps
        if not further:
            return outcome
        both = self._outcome(composed.steps(further))
        return both if sum(self._open(both.steps).values()) < sum(open_ones.values()) else outcome

    def _open(self, steps: Sequence[Step]) -> dict[tuple[fx.Node, str], int]:
        """What fails a run after some steps, by call and rule, and how severe it is: of the dropouts that
        something was found about, and what others alone had hidden.

        What is left of a dropout that was repaired is a finding of its own, for a person to judge first.
        """
        closed = {step.site.node for step in steps if step.action == "repair" or "DL401" in step.codes}
        severities = [finding.severity for case in self.cases.values() for finding in case.findings]
        mildest = max(SEVERITIES.index(severity) for severity in (*severities, "error"))
        found = {}
        for item in self.trials.remaining(steps):
            known = item.node in self.cases
            new = not known and (item.node, item.code) not in self.known
            asked = known or (new and SEVERITIES.index(item.severity) <= mildest)
            if asked and item.node not in closed and item.severity != "info":
                found[item.node, item.code] = len(SEVERITIES) - SEVERITIES.index(item.severity)
        return found

    def _less(self, outcome: Outcome, nodes: set[fx.Node]) -> Outcome:
        """An outcome without the steps of some dropouts, the merges into them and the moves past them."""
        steps = tuple(
            step
            for step in outcome.steps
            if step.site.node not in nodes and (step.into is None or step.into.node not in nodes)
        )
        passing = self.crowd.passing(steps) if self.strategy == "auto" else set()
        rest = self._outcome(steps)
        return self._less(rest, passing) if passing else rest

    def _left_over(
        self, outcome: Outcome, too_little: Mapping[fx.Node, str], others: Mapping[Action, Outcome]
    ) -> list[Skipped]:
        """What no step answers, and what a milder rule says of a dropout that is better off where it goes."""
        steps = {step.site.node: step for step in outcome.steps}
        still = {item.node for item in outcome.left}
        left: list[tuple[Case, tuple[str, ...], str | None]] = []
        for node, case in self.cases.items():
            step = steps.get(node)
            codes = tuple(code for code in case.codes if step is None or code not in step.codes)
            reason = too_little.get(node) or self.crowd.why.get(node)
            if step is not None and step.settles:
                codes = tuple(code for found, code in self._open(outcome.steps) if found is node)
                reason = BETTER_OFF if reason is None else f"{MILDER}; {reason}"
            elif node not in still:
                continue
            if codes:
                left.append((case, codes, reason))
        told = others if left else {}
        in_graph = {option for option, one in told.items() if one.steps and not self.writable(one.steps)}
        return [self._skipped(*item, others, in_graph) for item in left]

    def _skipped(
        self,
        case: Case,
        codes: tuple[str, ...],
        reason: str | None,
        others: Mapping[Action, Outcome],
        in_graph: Collection[Action],
    ) -> Skipped:
        first = next((item for item in case.findings if item.rule.code == codes[0]), case.findings[0])
        unanswered, advice = advice_for(first, self.strategy)
        if others and case.places:
            useful = self._useful(case.site.node, others)
            now = None if first.facts is None else first.facts.delta
            advice = what_would(useful, in_graph, now=now) if useful else nothing_would(codes)
        return Skipped(case.site.name, codes, reason or unanswered, advice)

    def _useful(self, node: fx.Node, others: Mapping[Action, Outcome]) -> dict[Action, float]:
        """The strategies that `auto` leaves to people and that answer what was found, with their worst Δ."""
        least = nearness(_worst(self.trials.deltas(()).values())) - WORTH
        worst = {option: _worst(one.deltas.values()) for option, one in others.items()}
        return {
            option: worst[option]
            for option, one in others.items()
            if (option != "move" or node in self.crowd.why)
            and nearness(worst[option]) >= least
            and all(item.node is not node for item in one.left)
        }

    # one strategy

    def _carry_out(self, strategy: Action, ladder: bool) -> Outcome:
        """Steps for one strategy; a dropout that is still found goes on to its next place or strategy."""
        for case in self.cases.values():
            self.ladder.begin(case, strategy, ladder)
        tried: list[tuple[tuple[int, int], Outcome]] = []
        for _ in range(ROUNDS):
            outcome = self._outcome(self._steps(ladder))
            outcome = self._less(outcome, set()) if ladder else outcome
            tried.append(((len(outcome.left), len(self.crowd.why)), outcome))
            freed = self.crowd.freed(outcome.steps) if ladder else set()
            for node in freed:
                self.ladder.begin(self.cases[node], strategy, ladder)
            left = [self.cases[item.node] for item in outcome.left if item.node in self.cases.keys() - freed]
            advanced = [self.ladder.advance(case, ladder) for case in left]
            if not freed and not any(advanced):
                break
        least = min(open_ones for open_ones, _ in tried)
        best = [outcome for open_ones, outcome in tried if open_ones == least]
        if not ladder or len(best) == 1:
            return best[0]
        return min(best, key=lambda one: len(self._without_what_does_not_help(one).left))

    def _steps(self, ladder: bool) -> tuple[Step, ...]:
        steps: list[Step] = []
        moves: list[Step] = []
        for case in self.cases.values():
            step: Step | None = None
            match case.action:
                case "move" if case.anchors:
                    moves.append(Step(case.site, "move", case.anchors[case.tried], codes=case.codes))
                case "remove":
                    step = Step(case.site, "remove", codes=case.codes)
                case "repair":
                    step = case.repair()
                case _:
                    pass
            if step is not None:
                steps.append(step)
        crowded = self.crowd.giving_way(moves) if ladder else set()
        if crowded:
            for node in crowded:
                self.ladder.give_way(self.cases[node])
            return self._steps(ladder)
        steps += self._moves(moves)
        steps += self.amounts.uouts(self._doing("uout"), steps, self.beta)
        lowered = self._doing("reduce")
        reductions = self.amounts.reductions(lowered, steps, least=HALF if ladder else 0.0)
        if ladder and lowered and not reductions:  # even the least ratio is too much: on to what comes next
            for case in lowered:
                self.ladder.advance(case, ladder)
            return self._steps(ladder)
        return (*steps, *reductions)

    def _doing(self, action: Action) -> list[Case]:
        return [case for case in self.cases.values() if case.action == action]

    def _moves(self, moves: Sequence[Step]) -> list[Step]:
        """Moves, as one where several go to one place, each with the class that is made for its place."""
        anchors: dict[tuple[str, ...], Anchor] = {}
        places: dict[Anchor, dict[fx.Node, Step]] = {}
        for move in moves:
            assert move.anchor is not None
            anchor = anchors.setdefault(move.anchor.key, move.anchor)
            places.setdefault(anchor, {})[move.site.node] = move
        leaving = {case.site.node for case in self.cases.values() if case.action in ("move", "remove")}
        for anchor, group in places.items():  # of several at one place, those that stand there already stay
            if len(group) > 1:
                leaving -= {site.node for site in at_place(self.flow, anchor) if site.node in group}
        steps: list[Step] = []
        for anchor, group in places.items():
            there = [
                site for site in at_place(self.flow, anchor) if site.node in group or site.node not in leaving
            ]
            rank = len(shape_of(anchor.producer) or ()) or None
            for step in merge(self.flow, group, there):
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


def _gained(
    names: Iterable[str], before: Mapping[str, float], after: Mapping[str, float]
) -> tuple[float, float, float]:
    """The worst Δ of some norms before and after, and how much nearer to 1 it comes."""
    names = list(names)
    old, new = (_worst(deltas[name] for name in names) for deltas in (before, after))
    return old, new, nearness(new) - nearness(old)


def _worst(deltas: Iterable[float]) -> float:
    """The Δ that is farthest from 1; 1 where there is none."""
    found = worst_of(deltas)
    return 1.0 if found is None else found
