"""One target repaired: its findings, less the ignored ones, and the proven fix of them in the source."""

from __future__ import annotations

from dataclasses import replace

from dropout_lint.config import Settings
from dropout_lint.fixes.plan.info import asked
from dropout_lint.fixes.source.engine import SourceFix, fix_source
from dropout_lint.inputs.example import Built
from dropout_lint.rules import RuleSet
from dropout_lint.rules.findings import Finding
from dropout_lint.runs.linting import analyse_built, is_ignored, options_of
from dropout_lint.terms import Strategy


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
    vendor_uout: bool = False,
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
        compare, vendor_uout: see `fix_source`.

    Raises:
        TraceError: nothing of the model could be traced.
        FixError: no edit of the source could be proven harmless.
    """
    analysis = analyse_built(built, options_of(settings, rules))
    wanted = asked(analysis.findings, settings.fail_on, settings.select)
    findings = [finding for finding in wanted if not is_ignored(finding)]
    result = fix_source(
        built,
        analysis,
        findings,
        resolve=typed,
        strategy=strategy,
        beta=beta,
        compare=compare,
        vendor_uout=vendor_uout,
        texts=settings.input,
        batches=batches,
    )
    left = tuple(finding for finding in result.left if not is_ignored(finding))
    return replace(result, left=left), findings
