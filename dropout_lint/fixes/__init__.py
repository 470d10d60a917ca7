"""The fix room: rewrite the graph or the user's source, and prove that nothing else changed.

`fix_source` and `SourceFix` are loaded on first use: a lint run only asks for `plan` and needs no libcst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropout_lint.fixes.graph import fix_graph
from dropout_lint.fixes.info import plan
from dropout_lint.fixes.judge import Judge, Verdict, judge_with
from dropout_lint.fixes.types import STRATEGIES, Applied, Fixed, Skipped, Strategy, Weighed

if TYPE_CHECKING:
    from dropout_lint.fixes.source.engine import SourceFix, fix_source

__all__ = [
    "STRATEGIES",
    "Applied",
    "Fixed",
    "Judge",
    "Skipped",
    "SourceFix",
    "Strategy",
    "Verdict",
    "Weighed",
    "fix_graph",
    "fix_source",
    "judge_with",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name in ("SourceFix", "fix_source"):
        from dropout_lint.fixes.source import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
