"""`plan`: for every finding, what a fix would do about it: the very plan, made for the report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import fx

from dropout_lint.analysis import Analysis
from dropout_lint.fixes.plan.case import can_be_fixed
from dropout_lint.fixes.plan.planner import Plan, Planner
from dropout_lint.fixes.plan.steps import Promise, Step, Way
from dropout_lint.fixes.plan.trials import Trials
from dropout_lint.fixes.plan.words import advice_for, describe_step
from dropout_lint.rules.findings import Finding
from dropout_lint.terms import Remedy, Severity, at_least
from dropout_lint.trace.traced import DropoutSite

# Above this many nodes nothing is planned in a lint run: it costs further predictions.
PREDICT_LIMIT = 1500
UNPLANNED = "nothing is planned in passing for a model as large: see what `dropout-lint fix` makes of it"

ANSWERED = "nothing has to be done about it: the fixes of the other findings answer it"


def asked(findings: Sequence[Finding], least: Severity, selected: Sequence[str] = ()) -> list[Finding]:
    """What a fix is to answer: what fails a run, and what was selected by its code or name."""
    words = tuple(word.upper() for word in selected)
    return [
        finding
        for finding in findings
        if at_least(finding.severity, least)
        or (words and finding.rule.code.startswith(words))
        or finding.rule.name.upper() in words
    ]


Draft = Callable[[Trials, Sequence[Finding]], Plan]
"""Plans the fix of some findings; what it leaves, it gives reasons for."""


def graph_plan(trials: Trials, findings: Sequence[Finding]) -> Plan:
    """What `dl.fix` does."""
    return Planner(trials, findings, compare=False).plan()


def plan(
    analysis: Analysis,
    *,
    least: Severity = "warning",
    source: Draft | None = None,
    left_out: Callable[[Finding], bool] = lambda _: False,
) -> Mapping[int, Promise]:
    """What a fix does about each finding, by `id(finding)`: the same action, and the same Δ after it.

    Where `dropout-lint fix` does nothing about one in source, `dl.fix` may.

    Args:
        analysis: the model as it was linted.
        least: the least severity that a fix answers.
        source: what `dropout-lint fix` plans; None where there is no target that it could be asked for.
        left_out: whether a finding is none that a fix is asked to answer, though it fails a run.
    """
    findings = analysis.findings
    if not findings:
        return {}
    wanted = [item for item in asked(findings, least, analysis.options.select) if not left_out(item)]
    infos = {id(finding): _by_hand(finding) for finding in findings}
    fixable = [finding for finding in wanted if can_be_fixed(finding)]
    if not fixable:
        return infos
    if len(analysis.trace.graph.nodes) > PREDICT_LIMIT:
        info = Promise(applicability="manual", strategy=None, title=UNPLANNED)
        return infos | {id(finding): info for finding in fixable}
    trials = Trials(analysis)
    gone: set[fx.Node] = set()
    if source is not None:
        drafted = source(trials, wanted)
        infos |= _promised(drafted, wanted, "dropout-lint fix")
        gone = {step.site.node for step in drafted.steps}
    open_ones = [item for item in fixable if infos[id(item)].by is None]
    if open_ones:
        made = _promised(_beside(graph_plan(trials, wanted), gone), wanted, "dl.fix")
        infos |= {
            key: promise
            for key, promise in made.items()
            if infos[key].by is None and (promise.by is not None or source is None)
        }
    return infos


def _beside(plan: Plan, gone: Collection[fx.Node]) -> Plan:
    """A plan without what it does in favour of dropouts that another plan moves or deletes."""
    steps = tuple(step for step in plan.steps if step.into is None or step.into.node not in gone)
    return replace(plan, steps=steps)


def _promised(plan: Plan, wanted: Sequence[Finding], by: Way) -> dict[int, Promise]:
    """What a plan does about each of the findings that it was made for."""
    found: dict[int, Promise] = {}
    deltas = {shift.norm: shift.delta for shift in plan.after.prediction.norms}
    steps = {step.site.node: step for step in plan.steps}
    left = {(item.dropout, code): item for item in plan.skipped for code in item.codes}
    for finding in wanted:
        site = finding.dropout
        if not isinstance(site, DropoutSite):
            continue
        step = steps.get(site.node)
        if step is not None and finding.rule.code in step.codes:
            delta = None if finding.norm is None else deltas.get(finding.norm.name)
            found[id(finding)] = Promise(
                applicability="automatic",
                strategy=strategy_of(step),
                title=title(step),
                delta_after=delta,
                by=by,
            )
        elif (skipped := left.get((site.name, finding.rule.code))) is not None:
            found[id(finding)] = Promise(applicability="manual", strategy=None, title=skipped.advice)
        elif plan.steps:
            delta = None if finding.norm is None else deltas.get(finding.norm.name)
            found[id(finding)] = Promise("automatic", None, ANSWERED, delta_after=delta, by=by)
    return found


def strategy_of(step: Step) -> Remedy:
    """The strategy that a step belongs to: one of several at one place goes with the move."""
    return "move" if step.action == "merge" else step.action


def title(step: Step) -> str:
    """What a step does, without the codes that it answers."""
    return describe_step(step).removesuffix(f" [{', '.join(step.codes)}]")


def _by_hand(finding: Finding) -> Promise:
    """What a person may do about a finding that no fix is asked to answer, or can answer."""
    if can_be_fixed(finding):
        code = finding.rule.code
        words = f"below what fails a run, so `fix` leaves it; `dropout-lint fix --select {code}` answers it"
        return Promise(applicability="manual", strategy=finding.rule.fix, title=words)
    _, advice = advice_for(finding)
    kind: Literal["manual", "none"] = "manual" if finding.rule.code != "DL502" else "none"
    return Promise(applicability=kind, strategy=None, title=advice)
