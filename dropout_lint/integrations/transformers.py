"""A Hugging Face Trainer callback: lints before the first step, re-estimates norms after the last.

Trainer(model, args, callbacks=[DropoutLint()], …)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

# optional and absent where types are checked
from transformers import TrainerCallback  # type: ignore[import-not-found, unused-ignore]  # see above

from dropout_lint.integrations import OnFindings, Start, recalibrated

if TYPE_CHECKING:
    from dropout_lint.api import LintReport


class DropoutLint(TrainerCallback):  # type: ignore[misc, unused-ignore]  # Any where it is absent
    """Lint the model when training starts.

    Args:
        inputs: example inputs of `forward`, such as a dict of tensors; guessed where none are given.
        on_findings: `warn`, `raise` (MisplacedDropout, before the first step) or `ignore`.
        recalibrate: at the end give every norm the statistics of test mode, from the training data.
        recalibrate_options: options of `dropout_lint.recalibrate`.
        options: further options of `dropout_lint.lint`, such as `fail_on` and `ignore`.

    Attributes:
        report: what was found, None before training starts.
        recalibration: what was re-estimated, None without `recalibrate`.
    """

    def __init__(
        self,
        inputs: Any = None,
        *,
        on_findings: OnFindings = "warn",
        recalibrate: bool = False,
        recalibrate_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.start = Start(inputs, on_findings, options)
        self.recalibrate = recalibrate
        self.recalibrate_options = dict(recalibrate_options or {})
        self.report: LintReport | None = None
        self.recalibration: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Lint, on the first process alone."""
        if state.is_world_process_zero:
            self.report = self.start.check(kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Re-estimate, on every process with its own data."""
        if self.recalibrate:
            self.recalibration = recalibrated(
                kwargs["model"], kwargs.get("train_dataloader"), self.recalibrate_options
            )
