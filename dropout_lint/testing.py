"""For a project's own tests: an assertion whose failure reads like the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from dropout_lint.api import LintReport


def assert_no_dropout_shift(
    model: nn.Module,
    inputs: Any = None,
    *,
    fail_on: str = "warning",
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    threshold: float = 0.95,
    rules: Iterable[str | Path] = (),
    allow_partial: bool = False,
) -> LintReport:
    """Assert that no dropout of `model` is placed where it shifts a norm.

    Args:
        model, inputs, select, ignore, threshold, rules: as for `dropout_lint.lint`.
        fail_on: the least severity that fails.
        allow_partial: a model of which some part could not be traced passes if the rest is clean.

    Returns:
        The report, for further assertions.

    Raises:
        AssertionError: there are findings, or the model was traced only partly; its text is the report.
        DropoutLintError: the model could not be linted at all.
    """
    __tracebackhide__ = True
    import dropout_lint

    report: LintReport = dropout_lint.lint(
        model, inputs, select=select, ignore=ignore, threshold=threshold, fail_on=fail_on, rules=rules
    )
    name = type(model).__name__
    if not report.ok:
        raise AssertionError(f"{name} has misplaced dropout\n\n{report.to_text()}")
    if report.target.status == "partial" and not allow_partial:
        raise AssertionError(
            f"{name} could only partly be traced, and nothing is known about the rest "
            f"(allow_partial=True lets it pass)\n\n{report.to_text()}"
        )
    return report
