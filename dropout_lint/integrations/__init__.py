"""Callbacks for training frameworks; each module needs its framework, this package none."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dropout_lint.errors import DropoutLintError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from dropout_lint.api import LintReport

OnFindings = Literal["warn", "raise", "ignore"]
ON_FINDINGS: tuple[OnFindings, ...] = ("warn", "raise", "ignore")


class DropoutShiftWarning(UserWarning):
    """Training starts with dropout where it shifts a norm."""


class MisplacedDropout(DropoutLintError):
    """Training was stopped before it began: the model has misplaced dropout; its text holds the report."""

    def __str__(self) -> str:
        return f"{self.message}\n\n{self.details}"


@dataclass(frozen=True)
class Start:
    """What a callback does before the first step.

    Attributes:
        inputs: as for `dropout_lint.lint`; None guesses them.
        on_findings: `warn`, `raise` or `ignore`.
        options: further options of `dropout_lint.lint`.

    Raises:
        UsageError: `on_findings` is none of these, or `lint` has no such option.
    """

    inputs: Any
    on_findings: OnFindings
    options: dict[str, Any]

    def __post_init__(self) -> None:
        from dropout_lint.api import lint
        from dropout_lint.guard.arguments import check_choice

        check_choice("on_findings", self.on_findings, ON_FINDINGS)
        known = inspect.signature(lint).parameters.keys() - {"model", "inputs"}
        unknown = sorted(self.options.keys() - known)
        if unknown:
            raise UsageError(
                f"there is no option {', '.join(unknown)}; `lint` has {', '.join(sorted(known))}"
            )

    def check(self, model: nn.Module, inputs: Any = None) -> LintReport | None:
        """Lint `model`; a model that cannot be linted is a warning, since training can go on.

        Raises:
            MisplacedDropout: there are findings and `on_findings` is `raise`.
            UsageError: an option of `lint` has a value that is not allowed.
        """
        import dropout_lint

        given = self.inputs if self.inputs is not None else inputs
        try:
            report: LintReport = dropout_lint.lint(model, given, **self.options)
        except UsageError:
            raise
        except DropoutLintError as problem:
            warnings.warn(
                f"dropout-lint could not look at the model: {problem.message}",
                DropoutShiftWarning,
                stacklevel=3,
            )
            return None
        if not report.ok:
            if self.on_findings == "raise":
                raise MisplacedDropout(
                    f"{type(model).__name__} has misplaced dropout",
                    None,
                    details=report.to_text(),
                )
            if self.on_findings == "warn":
                warnings.warn(f"misplaced dropout\n\n{report.to_text()}", DropoutShiftWarning, stacklevel=3)
        return report


def recalibrated(model: nn.Module, batches: Iterable[Any] | None, options: dict[str, Any]) -> Any:
    """Re-estimate the norms of `model` in place on its training data; what moved, or None without data."""
    if batches is None:
        warnings.warn("no training data to re-estimate the norms on", DropoutShiftWarning, stacklevel=3)
        return None
    import dropout_lint

    return dropout_lint.recalibrate(model, batches, **options)
