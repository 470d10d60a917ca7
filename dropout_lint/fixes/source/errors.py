"""What source cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dropout_lint.fixes.plan.steps import Step


class CannotExpress(Exception):
    """A step that cannot be written into the user's files: why, and what to do by hand."""

    def __init__(self, reason: str, advice: str, step: Step | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice
        self.step = step


@contextmanager
def blamed_on(step: Step) -> Iterator[None]:
    """What source cannot say inside is said of this step, where no other is named."""
    try:
        yield
    except CannotExpress as error:
        error.step = error.step or step
        raise
