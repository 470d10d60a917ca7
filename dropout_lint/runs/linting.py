"""One target linted: it is built, analysed, and what was found is put into the report's words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import msgspec

from dropout_lint.analysis import Analysis, Options, analyse, judge_program
from dropout_lint.config import Settings
from dropout_lint.errors import DropoutLintError, NoModelError
from dropout_lint.fixes.plan.info import Draft, plan
from dropout_lint.fixes.plan.planner import Plan
from dropout_lint.fixes.plan.steps import Promise
from dropout_lint.fixes.plan.trials import Trials
from dropout_lint.guard.alone import at_rest
from dropout_lint.guard.lasting import unsearched
from dropout_lint.inputs.example import Built
from dropout_lint.layers import STANDARD, Catalogue, ExtraDropout
from dropout_lint.layers.assumed import idle
from dropout_lint.loading.resolving import Deployed, built_or_deployed
from dropout_lint.report.convert import place, target_info
from dropout_lint.report.deployed import program_info
from dropout_lint.report.outcome import Outcome
from dropout_lint.rules import RuleSet
from dropout_lint.rules.findings import Finding
from dropout_lint.runs.draw import draw
from dropout_lint.runs.failures import empty, failure, is_missing_import, skipped
from dropout_lint.suppress.ignores import read
from dropout_lint.terms import Severity
from dropout_lint.words import numbered


def options_of(settings: Settings, rules: RuleSet) -> Options:
    """What the settings of one target say about its analysis."""
    return Options(
        catalogue=catalogue_of(settings),
        rules=rules,
        select=tuple(settings.select),
        ignore=tuple(settings.ignore),
        threshold=settings.delta_threshold,
    )


def catalogue_of(settings: Settings) -> Catalogue:
    """The dropout and norm classes, with those that the settings name."""
    if not settings.dropouts:
        return STANDARD
    return Catalogue(
        {
            name: ExtraDropout(noise=entry.noise, p=entry.p, keeps=entry.keeps)
            for name, entry in settings.dropouts.items()
        }
    )


def analyse_built(built: Built, options: Options) -> Analysis:
    """Analyse a built target; what Python and torch warn of while its forward is tried out goes nowhere.

    Raises:
        TraceError, InputError: see `analyse`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return analyse(built.model, built.inputs, options, constructed=built.constructed)


def lint_built(
    built: Built, options: Options, least: Severity = "warning", source: Draft | None = None
) -> Outcome:
    """Lint one built model; `least` is the least severity that a fix answers, `source` plans one in source.

    Raises:
        TraceError, InputError: see `analyse`.
    """
    with at_rest(built.model):
        analysis = analyse_built(built, options)
        info = target_info(
            built,
            analysis.trace,
            analysis.prediction,
            analysis.findings,
            planned_fixes(analysis, least, source),
            exempt=analysis.exempt,
        )
    trace = analysis.trace
    locations = [
        *trace.constructed.values(),
        *(site.constructed for site in trace.dropouts),
        *(site.call for site in trace.dropouts),
        *(site.call for site in trace.norms),
    ]
    visited = {found for location in locations if (found := place(location)) is not None}
    return Outcome(
        info=info,
        visited=sorted(visited, key=lambda item: (item.file, item.line, item.column)),
        drawing=draw(trace, analysis.prediction),
        unseen=list(built.unseen),
    )


def lint_program(deployed: Deployed, options: Options) -> Outcome:
    """Judge a program that was read."""
    findings = judge_program(deployed.program, options)
    return Outcome(info=program_info(deployed.target, deployed.program, findings, deployed.notes))


def _at_rate(built: Built, options: Options, own: Settings) -> Outcome:
    """Lint a model with the ratio that the settings assume where its dropouts have none; said in a note."""
    with idle(built.model, options.catalogue, own.assume_p) as found:
        outcome = lint_built(built, options, own.fail_on, _draft)
    told = _of_ratio_0(found.names)
    if own.assume_p is None:
        shifting = any(item.shifts for item in outcome.info.predictions)
        note = f"{told}: `--assume-p 0.2` lints as if it were another"
        return _noted(outcome, [note] if found.names and shifting else [])
    notes = [f"{told}: linted as if it were {own.assume_p:g} (--assume-p)"] if found.names else []
    notes += [f"{_of_ratio_0(found.fixed)} that cannot be set: judged as it is"] if found.fixed else []
    return _noted(outcome, notes or ["no dropout has ratio 0, so that --assume-p changes nothing"])


def _of_ratio_0(names: list[str]) -> str:
    has = "dropout has" if len(names) == 1 else "dropouts have"
    return f"{len(names)} {has} ratio 0 ({numbered(names, 3)})"


def _noted(outcome: Outcome, notes: list[str]) -> Outcome:
    info = msgspec.structs.replace(outcome.info, notes=[*outcome.info.notes, *notes])
    return msgspec.structs.replace(outcome, info=info)


def _draft(trials: Trials, findings: Sequence[Finding]) -> Plan:
    """What `dropout-lint fix` plans; what edits source is loaded only where there is something to fix."""
    with unsearched():
        from dropout_lint.fixes.source.engine import draft_source

    return draft_source(trials, findings)


def planned_fixes(analysis: Analysis, least: Severity, source: Draft | None) -> Mapping[int, Promise]:
    """What a fix would do about each finding, by `id(finding)`."""
    try:
        return plan(analysis, least=least, source=source, left_out=is_ignored)
    except DropoutLintError:  # no plan is no reason to withhold the findings
        return {}


def lint_target(target: str, settings: Settings, rules: RuleSet) -> list[Outcome]:
    """Build and lint one target; a folder gives one outcome for each model in it.

    What goes wrong becomes an outcome of status `error`, so that it does not take other targets along; a
    package that an optional target lacks makes it a skipped one.
    """
    own = settings.for_target(target)
    try:
        models = built_or_deployed(target, inputs=tuple(own.input), checkpoint=own.checkpoint)
    except NoModelError as problem:
        return empty(target, problem) if own.allow_empty else [failure(target, problem)]
    except Exception as problem:
        if settings.is_optional(target) and is_missing_import(problem):
            return [skipped(target, problem)]
        return [failure(target, problem)]
    options = options_of(own, rules)
    outcomes = []
    for built in models:
        try:
            if isinstance(built, Deployed):
                outcomes.append(lint_program(built, options))
            else:
                outcomes.append(_at_rate(built, options, own))
        except Exception as problem:
            unseen = () if isinstance(built, Deployed) else built.unseen
            outcomes.append(failure(built.target, problem, built.notes, unseen))
    return outcomes


def is_ignored(finding: Finding) -> bool:
    """Whether an ignore comment stands on the line of the dropout's construction or call."""
    site = finding.dropout
    if site is None:
        return False
    places = [place for place in (getattr(site, "call", None), site.constructed) if place is not None]
    return any(
        ignore.matching(finding.rule.code, finding.rule.name)
        for place in places
        for ignore in read(place.file).at(place.line)
    )
