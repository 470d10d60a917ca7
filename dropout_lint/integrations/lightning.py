"""A Lightning callback: lints before the first step, re-estimates batch-norm statistics after the last.

Trainer(callbacks=[DropoutLint(on_findings="raise", recalibrate=True)])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

# optional and absent where types are checked; either of the two packages has the class
try:
    from lightning.pytorch.callbacks import Callback  # type: ignore[import-not-found, unused-ignore]  # see above
except ImportError:
    from pytorch_lightning.callbacks import (  # type: ignore[import-not-found, no-redef, assignment, unused-ignore]  # see above
        Callback,
    )

from dropout_lint.integrations import OnFindings, Start, recalibrated

if TYPE_CHECKING:
    from dropout_lint.api import LintReport


class DropoutLint(Callback):  # type: ignore[misc, unused-ignore]  # Any where the package is absent
    """Lint the module when fitting starts.

    Args:
        inputs: example inputs of `forward`; the module's `example_input_array` is used where it has one.
        on_findings: `warn`, `raise` (MisplacedDropout, before the first step) or `ignore`.
        recalibrate: at the end give every norm the statistics of test mode, from the training data.
        recalibrate_options: options of `dropout_lint.recalibrate`.
        options: further options of `dropout_lint.lint`, such as `fail_on` and `ignore`.

    Attributes:
        report: what was found, None before fitting starts.
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
        super().__init__()
        self.start = Start(inputs, on_findings, options)
        self.recalibrate = recalibrate
        self.recalibrate_options = dict(recalibrate_options or {})
        self.report: LintReport | None = None
        self.recalibration: Any = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Lint, on the first process alone."""
        if trainer.is_global_zero:
            self.report = self.start.check(pl_module, pl_module.example_input_array)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Re-estimate, on every process with its own data."""
        if self.recalibrate:
            self.recalibration = recalibrated(pl_module, trainer.train_dataloader, self.recalibrate_options)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Let a checkpoint that is saved after that say so."""
        if self.recalibration is not None:
            checkpoint["state_dict"] = self.recalibration.marked(checkpoint["state_dict"])
