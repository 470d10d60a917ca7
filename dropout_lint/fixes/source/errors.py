"""What source cannot say."""

from __future__ import annotations

from dropout_lint.fixes.types import Step


class CannotExpress(Exception):
    """A step that cannot be written into the user's files: why, and what to do by hand."""

    def __init__(self, reason: str, advice: str, step: Step | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice
        self.step = step
