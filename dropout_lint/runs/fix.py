"""Ties the rooms together for a repair: target → trace → findings → the proven fix in the source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dropout_lint.config import Settings

if TYPE_CHECKING:
    from dropout_lint.fixes.plan.steps import Strategy
    from dropout_lint.fixes.source.engine import SourceFix
    from dropout_lint.inputs.example import Built
    from dropout_lint.rules import RuleSet
    from dropout_lint.rules.findings import Finding


def repair(
    built: Built,
    settings: Settings,
    rules: RuleSet,
    *,
    typed: str,
    strategy: Strategy = "auto",
    beta: float | None = None,
    batches: int = 0,
    compare: bool = True,
) -> tuple[SourceFix, list[Finding]]:
    """The proven fix of one model in its source, not yet written, and the findings that it is for.

    Args:
        built: the model.
        settings: its own settings.
        rules: the rules that may run.
        typed: the target as it was typed, for the proof to resolve again.
        strategy: see `fix_graph`.
        beta: β for Uout, None to take it from the dropout's noise.
        batches: random batches to measure Δ with, before and after.
        compare: see `fix_source`.

    Raises:
        TraceError: nothing of the model could be traced.
        FixError: no edit of the source could be proven harmless.
    """
    from dropout_lint.fixes.plan.judge import judge_with
    from dropout_lint.fixes.source.engine import fix_source
    from dropout_lint.runs.check import catalogue_of
    from dropout_lint.trace import trace

    catalogue = catalogue_of(settings)
    traced = trace(built.model, built.inputs, catalogue=catalogue, constructed=built.constructed)
    judge = judge_with(
        rules, select=settings.select or None, ignore=settings.ignore, threshold=settings.delta_threshold
    )
    before = judge(traced)
    findings = [finding for finding in before.findings if not is_ignored(finding)]
    result = fix_source(
        built,
        traced,
        findings,
        resolve=typed,
        strategy=strategy,
        threshold=settings.delta_threshold,
        beta=beta,
        judge=judge,
        before=before,
        compare=compare,
        texts=settings.input,
        rules=settings.rules,
        select=settings.select or None,
        ignore=settings.ignore,
        dropouts=catalogue.extra_dropouts,
        batches=batches,
    )
    left = tuple(finding for finding in result.left if not is_ignored(finding))
    return replace(result, left=left), findings


def is_ignored(finding: Finding) -> bool:
    """Whether an ignore comment stands on the line of the dropout's construction or call."""
    from dropout_lint.suppress.ignores import read

    site = finding.dropout
    if site is None:
        return False
    places = [place for place in (getattr(site, "call", None), site.constructed) if place is not None]
    return any(
        ignore.matching(finding.rule.code, finding.rule.name)
        for place in places
        for ignore in read(place.file).at(place.line)
    )
