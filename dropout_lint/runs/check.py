"""Ties the rooms together: target → trace → predict → survey → match → ignores → baseline → report.

Pure functions that return results; nothing here prints. torch is imported when the first model is built.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from dropout_lint import __version__
from dropout_lint.config import Settings
from dropout_lint.errors import DropoutLintError, NoModelError
from dropout_lint.report.convert import error_info, place, report_of, target_info
from dropout_lint.report.drawing import Drawing
from dropout_lint.report.outcome import Outcome
from dropout_lint.report.schema import FixInfo, Place, Report, StaleInfo, TargetInfo
from dropout_lint.suppress import baseline, ignores

if TYPE_CHECKING:
    from dropout_lint.inputs.example import Built
    from dropout_lint.layers import Catalogue
    from dropout_lint.prediction.shifts import Prediction
    from dropout_lint.rules import RuleSet
    from dropout_lint.rules.findings import Finding
    from dropout_lint.survey.placements import Survey
    from dropout_lint.trace.traced import Trace


Lint = Callable[[str, Settings, "RuleSet"], list[Outcome]]
# the codes of the rules that run for a target
Active = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class TargetResult:
    """Everything that linting one built model gave, room by room."""

    built: Built
    trace: Trace
    prediction: Prediction
    survey: Survey
    findings: tuple[Finding, ...]
    info: TargetInfo


@dataclass(frozen=True)
class Run:
    """One run over targets.

    Attributes:
        report: what is reported.
        outcomes: what each model gave, in the order of the report's targets.
        drawings: the models as drawings, by target.
        known: the baseline as it would be written for this run; None where no baseline was asked for.
    """

    report: Report
    outcomes: tuple[Outcome, ...]
    drawings: Mapping[str, Drawing]
    known: baseline.Baseline | None = None


def catalogue_of(settings: Settings) -> Catalogue:
    """The dropout and norm classes, with those that the settings name."""
    from dropout_lint.layers import STANDARD, Catalogue, ExtraDropout, Noise

    if not settings.dropouts:
        return STANDARD
    return Catalogue(
        {
            name: ExtraDropout(noise=Noise(entry.noise), p=entry.p, keeps=entry.keeps)
            for name, entry in settings.dropouts.items()
        }
    )


def rules_of(settings: Settings) -> RuleSet:
    """The rules that the settings name, built-in and own; the selection has been checked.

    Raises:
        RuleError: a rule file is malformed, or `select` or `ignore` name an unknown code.
    """
    from dropout_lint.rules import load_rules

    rules = load_rules(settings.rules)
    rules.selected(settings.select or None, settings.ignore)
    return rules


def lint_built(built: Built, settings: Settings, rules: RuleSet) -> TargetResult:
    """Lint one built model.

    Raises:
        TraceError: nothing of it could be traced.
        InputError: the example inputs do not fit, or none could be guessed.
    """
    from dropout_lint.guard.alone import at_rest
    from dropout_lint.prediction import predict
    from dropout_lint.survey.exempt import exempt_shifts
    from dropout_lint.survey.surveyor import survey
    from dropout_lint.survey.unknown import with_unknowns
    from dropout_lint.trace import trace

    with at_rest(built.model):
        traced = trace(
            built.model, built.inputs, catalogue=catalogue_of(settings), constructed=built.constructed
        )
        prediction = with_unknowns(traced, predict(traced))
        facts = survey(traced, prediction)
        findings = rules.match(
            facts,
            select=settings.select or None,
            ignore=settings.ignore,
            threshold=settings.delta_threshold,
        )
        fixes = planned_fixes(traced, findings, settings, rules)
    exempt = exempt_shifts(facts, findings, settings.delta_threshold)
    info = target_info(built, traced, prediction, findings, fixes, exempt=exempt)
    return TargetResult(built, traced, prediction, facts, tuple(findings), info)


def planned_fixes(
    trace: Trace, findings: Sequence[Finding], settings: Settings, rules: RuleSet
) -> Mapping[int, FixInfo]:
    """What the fix room would do about each finding, by `id(finding)`."""
    if not findings:
        return {}
    try:
        from dropout_lint.fixes.plan.info import plan
        from dropout_lint.fixes.plan.judge import judge_with
    except ImportError:
        return {}
    try:
        judge = judge_with(
            rules, select=settings.select or None, ignore=settings.ignore, threshold=settings.delta_threshold
        )
        plans: Mapping[int, FixInfo] = plan(trace, findings, judge)
    except DropoutLintError:  # no plan is no reason to withhold the findings
        return {}
    return plans


def outcome_of(result: TargetResult) -> Outcome:
    """What of a result is reported, as plain data."""
    from dropout_lint.report.draw import draw

    trace = result.trace
    locations = [
        *trace.constructed.values(),
        *(site.constructed for site in trace.dropouts),
        *(site.call for site in trace.dropouts),
        *(site.call for site in trace.norms),
    ]
    visited = {found for location in locations if (found := place(location)) is not None}
    return Outcome(
        info=result.info,
        visited=sorted(visited, key=lambda item: (item.file, item.line, item.column)),
        drawing=draw(trace, result.prediction),
        unseen=list(result.built.unseen),
    )


def lint_target(target: str, settings: Settings, rules: RuleSet) -> list[Outcome]:
    """Build and lint one target; a folder gives one outcome for each model in it.

    What goes wrong becomes an outcome of status `error`, so that it does not take other targets along.
    """
    from dropout_lint.loading.resolving import resolve

    own = settings.for_target(target)
    try:
        models = resolve(target, inputs=tuple(own.input), checkpoint=own.checkpoint)
    except NoModelError as problem:
        return empty(target, problem) if own.allow_empty else [failure(target, problem)]
    except Exception as problem:
        return [failure(target, problem)]
    outcomes = []
    for built in models:
        try:
            outcomes.append(outcome_of(lint_built(built, own, rules)))
        except Exception as problem:
            outcomes.append(failure(built.target, problem, built))
    return outcomes


def empty(target: str, problem: NoModelError) -> list[Outcome]:
    """What a file or folder that may hold no model gives: nothing, unless a part could not be looked at."""
    if not problem.unseen:
        return []
    info = TargetInfo(target=target, status="partial", notes=list(problem.passed))
    return [Outcome(info=info, unseen=list(problem.unseen))]


def failure(target: str, problem: Exception, built: Built | None = None) -> Outcome:
    """The outcome of a target that could not be linted, with the notes of its model where one was built."""
    notes, unseen = (built.notes, built.unseen) if built else ((), ())
    if isinstance(problem, DropoutLintError):
        hint = problem.hint or "run again with -v for the traceback"
        info = error_info(target, problem.message, hint, notes)
        details = problem.details
    else:
        info = error_info(
            target,
            f"internal error: {type(problem).__name__}: {problem}",
            "this is a bug in dropout-lint; run again with -v for the traceback and report it",
            notes,
        )
        details = None
    trouble = "".join(traceback.format_exception(problem))
    return Outcome(info=info, details=details, trouble=trouble, unseen=list(unseen))


def check(
    targets: Sequence[str],
    settings: Settings | None = None,
    rules: RuleSet | None = None,
    *,
    lint: Lint = lint_target,
    write_baseline: bool = False,
) -> Run:
    """Lint targets and put the report together.

    Args:
        targets: as they are typed.
        lint: how one target is linted (the cache and the worker processes put themselves here).
        write_baseline: accept all findings of this run: `Run.known` is the baseline to write.

    Raises:
        ConfigError: the baseline cannot be read.
        RuleError: a rule file is malformed, or an unknown code is named.
    """
    settings = settings or Settings()
    rules = rules if rules is not None else rules_of(settings)
    known = read_baseline(settings, write_baseline)
    outcomes = [outcome for target in targets for outcome in lint(target, settings, rules)]
    active = active_in(rules, settings)
    return assemble(outcomes, active, known, write_baseline=write_baseline, words=words_of(rules))


def active_codes(rules: RuleSet, settings: Settings) -> tuple[str, ...]:
    """The codes of the rules that run under the settings."""
    chosen = rules.selected(settings.select or None, settings.ignore)
    return tuple(rule.code for rule in chosen)


def active_in(rules: RuleSet, settings: Settings) -> Active:
    """For each target the codes of the rules that run for it: a configured one may have its own selection."""
    return lambda target: active_codes(rules, settings.for_target(target))


def words_of(rules: RuleSet) -> dict[str, str]:
    """What an ignore comment may call a rule, its code or its name in capitals, each with the code."""
    return {word: rule.code for rule in rules for word in (rule.code, rule.name.upper())}


def read_baseline(settings: Settings, write: bool) -> baseline.Baseline | None:
    """The baseline that the settings name; where it is about to be written, what is there or an empty one."""
    if write:
        try:
            return baseline.read(settings.baseline or baseline.DEFAULT_FILE)
        except DropoutLintError:
            return baseline.Baseline()
    return None if settings.baseline is None else baseline.read(settings.baseline)


def assemble(
    outcomes: Iterable[Outcome],
    active: Active,
    known: baseline.Baseline | None,
    *,
    write_baseline: bool = False,
    words: Mapping[str, str] | None = None,
) -> Run:
    """The report of some outcomes: ignore comments and baseline applied, the unused and the stale named."""
    outcomes = tuple(outcomes)
    targets: list[TargetInfo] = []
    used: set[tuple[str, int, str]] = set()
    for outcome in outcomes:
        info, hits = ignores.apply(outcome.info)
        used |= hits
        targets.append(info)
    reported: set[Place] = set()
    for index, outcome in enumerate(outcomes):
        idle = [
            entry
            for entry in ignores.unused(outcome.visited, used, active(outcome.info.target), words)
            if entry.place not in reported
        ]
        reported |= {entry.place for entry in idle}
        targets[index] = msgspec.structs.replace(targets[index], unused_ignores=idle)
    stale: list[StaleInfo] = []
    if known is not None:
        if write_baseline:
            for info in targets:
                known = baseline.updated(known, [info], active(info.target))
        for index, info in enumerate(targets):
            (targets[index],), gone = baseline.apply([info], known, active(info.target))
            stale += gone
    report = msgspec.structs.replace(report_of(targets, __version__), stale_baseline=stale)
    drawings = {outcome.info.target: outcome.drawing for outcome in outcomes if outcome.drawing is not None}
    return Run(report, outcomes, drawings, known)


def exit_status(run: Run, settings: Settings) -> int:
    """0 nothing at or above `fail_on`, 1 findings, 2 a target could not be linted (which wins).

    With `strict` a partly traced target, an unused ignore and a part of a file or folder that could not be
    looked at count as findings do. A stale baseline entry always does, since it would let a new finding of
    the same name pass.
    """
    report = run.report
    order = ("info", "warning", "error")
    if any(target.status == "error" for target in report.targets):
        return 2
    if not report.targets and not settings.allow_empty:
        return 2
    if settings.exit_zero:
        return 0
    for target in report.targets:
        own = settings.for_target(target.target)
        least = order.index(own.fail_on)
        if any(order.index(finding.severity) >= least for finding in target.findings):
            return 1
        if own.strict and (target.status == "partial" or target.unused_ignores):
            return 1
    return 1 if report.stale_baseline or unseen(run, settings) else 0


def unseen(run: Run, settings: Settings) -> list[str]:
    """What could not be looked at in the files and folders of the strict targets, one sentence each."""
    strict = (outcome for outcome in run.outcomes if settings.for_target(outcome.info.target).strict)
    return list(dict.fromkeys(note for outcome in strict for note in outcome.unseen))
