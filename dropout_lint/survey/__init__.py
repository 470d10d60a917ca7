"""The survey: facts about each dropout and each way from a dropout to a norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropout_lint.survey.surveyor import survey as survey
    from dropout_lint.survey.types import Placement as Placement
    from dropout_lint.survey.types import Survey as Survey

from dropout_lint.survey.facts import Facts

__all__ = ["Facts", "Placement", "Survey", "survey"]


def __getattr__(name: str) -> Any:
    # rule files are checked against `Facts` without importing torch
    if name == "survey":
        from dropout_lint.survey.surveyor import survey

        return survey
    if name in ("Placement", "Survey"):
        from dropout_lint.survey import types

        return getattr(types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
