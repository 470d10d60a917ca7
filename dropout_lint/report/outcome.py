"""One linted target as it travels between processes and into the cache: plain data alone."""

from __future__ import annotations

from dropout_lint.report.drawing import Drawing
from dropout_lint.report.schema import Place, Struct, TargetInfo


class Outcome(Struct, frozen=True, kw_only=True):
    """The result of linting one model, before ignore comments and baseline are applied.

    Attributes:
        info: what is reported.
        visited: where its modules were made and its dropouts and norms were called.
        drawing: the model as a drawing, for html.
        details: the user's own exception as text.
        trouble: our own traceback, where the tool itself failed.
        unseen: what of the file or folder could not be looked at, a sentence each; its first model has them.
    """

    info: TargetInfo
    visited: list[Place] = []  # noqa: RUF012 - each has its own: msgspec copies it
    drawing: Drawing | None = None
    details: str | None = None
    trouble: str | None = None
    unseen: list[str] = []  # noqa: RUF012 - each has its own: msgspec copies it
