"""The fix room: rewrite the graph or the user's source, and prove that nothing else changed."""

from __future__ import annotations

from dropout_lint.fix.graph import fix_graph
from dropout_lint.fix.info import plan
from dropout_lint.fix.judge import Judge, Verdict, judge_with
from dropout_lint.fix.source.engine import SourceFix, fix_source
from dropout_lint.fix.types import STRATEGIES, Applied, Fixed, Skipped, Strategy, Weighed

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
