"""The table at the top of a page with several targets."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dropout_lint.report.schema import Report, TargetInfo
from dropout_lint.report.words import SEVERITY_PLURALS, SEVERITY_SINGULARS
from dropout_lint.terms import SEVERITIES, nearness, worst_first
from dropout_lint.words import count, severity_of_shift, with_interval

WORDS = {name: (SEVERITY_SINGULARS[name], SEVERITY_PLURALS[name]) for name in SEVERITIES}


def overview(report: Report, threshold: float) -> list[dict[str, Any]]:
    """A row for each target: how many findings of which severity, and the norm that is shifted most."""
    rows = []
    for index, target in enumerate(report.targets):
        found = Counter(finding.severity for finding in target.findings)
        known = [item for item in target.predictions if item.shifts and item.delta is not None]
        worst = min(known, key=lambda item: worst_first(item.delta), default=None)
        rows.append(
            {
                "id": f"t{index}",
                "target": target.target,
                "status": target.status,
                "counts": [(name, count(found[name], *WORDS[name])) for name in SEVERITIES if found[name]],
                "verdict": verdict(target),
                "delta": with_interval(worst.delta, worst.interval) if worst else "",
                "norm": worst.norm if worst else "",
                "fill": percent(worst.delta) if worst else 0.0,
                "word": severity_of_shift(worst.delta, threshold) if worst else "",
            }
        )
    return rows


def verdict(target: TargetInfo) -> str:
    """What came of a target without findings."""
    if target.status == "error":
        return "failed"
    if target.skipped is not None:
        return "skipped"
    return ("partly traced" if target.status == "partial" else "clean") if is_linted(target) else "measured"


def is_linted(target: TargetInfo) -> bool:
    """Whether rules were matched; `measure` matches none."""
    return target.trace is not None or target.measured is None


def percent(delta: float | None) -> float:
    """How near Δ is to 1, as a width in percent."""
    return 0.0 if delta is None else round(100 * max(0.0, nearness(delta)), 1)
