"""A run over targets: what each gave, less what ignore comments and the baseline name, as one report.

Nothing here prints, and torch is imported when the first model is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from dropout_lint import __version__
from dropout_lint.config import Settings
from dropout_lint.errors import DropoutLintError
from dropout_lint.guard.lasting import for_good
from dropout_lint.report.convert import report_of
from dropout_lint.report.drawing import Drawing
from dropout_lint.report.installed import in_installed
from dropout_lint.report.norms import told_once
from dropout_lint.report.outcome import Outcome
from dropout_lint.report.schema import Place, Report, StaleInfo, TargetInfo
from dropout_lint.rules import RuleSet, load_rules
from dropout_lint.suppress import baseline, ignores
from dropout_lint.terms import at_least
from dropout_lint.words import count

Lint = Callable[[str, Settings, RuleSet], list[Outcome]]
# the codes of the rules that run for a target
Active = Callable[[str], Sequence[str]]


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


def rules_of(settings: Settings) -> RuleSet:
    """The rules that the settings name, built-in and own; the selection has been checked.

    Raises:
        RuleError: a rule file is malformed, or `select` or `ignore` name an unknown code.
    """
    rules = load_rules(settings.rules)
    rules.selected(settings.select or None, settings.ignore)
    return rules


def lint_target(target: str, settings: Settings, rules: RuleSet) -> list[Outcome]:
    """`linting.lint_target`, which imports torch: a run whose results are all kept never comes here."""
    with for_good():
        from dropout_lint.runs import linting

    return linting.lint_target(target, settings, rules)


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
    return assemble(
        outcomes,
        active,
        known,
        write_baseline=write_baseline,
        words=words_of(rules),
        own_code=settings.own_code,
    )


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
    own_code: bool = False,
) -> Run:
    """The report of some outcomes: ignore comments and baseline applied, the unused and the stale named.

    With `own_code` without what was found in installed packages.
    """
    outcomes = tuple(outcomes)
    targets: list[TargetInfo] = []
    used: set[tuple[str, int, str]] = set()
    for outcome in outcomes:
        info, hits = ignores.apply(own_findings(outcome.info) if own_code else outcome.info)
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
    targets = [told_once(info) for info in targets]
    report = msgspec.structs.replace(report_of(targets, __version__), stale_baseline=stale)
    drawings = {outcome.info.target: outcome.drawing for outcome in outcomes if outcome.drawing is not None}
    return Run(report, outcomes, drawings, known)


def own_findings(info: TargetInfo) -> TargetInfo:
    """A target without the findings in installed packages, and a note where there were some."""
    kept = [finding for finding in info.findings if not in_installed(finding)]
    left = len(info.findings) - len(kept)
    if not left:
        return info
    note = f"{count(left, 'finding')} in installed packages left out (--own-code)"
    return msgspec.structs.replace(info, findings=kept, notes=[*info.notes, note])


def exit_status(run: Run, settings: Settings) -> int:
    """0 nothing at or above `fail_on`, 1 findings, 2 a target could not be linted (which wins).

    With `strict` a partly traced target, an unused ignore and a part of a file or folder that could not be
    looked at count as findings do. A stale baseline entry always does, since it would let a new finding of
    the same name pass.
    """
    report = run.report
    if any(target.status == "error" for target in report.targets):
        return 2
    if not report.targets and not settings.allow_empty:
        return 2
    if settings.exit_zero:
        return 0
    for target in report.targets:
        own = settings.for_target(target.target)
        if any(at_least(finding.severity, own.fail_on) for finding in target.findings):
            return 1
        partial = target.status == "partial" and target.skipped is None
        if own.strict and (partial or target.unused_ignores):
            return 1
    return 1 if report.stale_baseline or unseen(run, settings) else 0


def unseen(run: Run, settings: Settings) -> list[str]:
    """What could not be looked at in the files and folders of the strict targets, one sentence each."""
    strict = (outcome for outcome in run.outcomes if settings.for_target(outcome.info.target).strict)
    return list(dict.fromkeys(note for outcome in strict for note in outcome.unseen))
