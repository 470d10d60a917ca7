"""The page of the results."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence

import torch

from .judged import BOUND, Row
from .models import entries
from .packages import PACKAGES

_COUNTS = ("shifted", "found", "silent", "unknown", "false")

_HEAD = f"""Models of public packages, built small and with dropout switched on, untrained, each linted as it
is. Δ is measured by brute force (`benchmarks/third_party/measured.py`) and divided by what small batches do.

- **shifted**: |1 - Δ| measured is above {BOUND} by more than two standard errors;
- **found**: of these, the ones whose figure tells of a shift in that direction;
- **silent**: of these, the ones shown as harmless without a word, or not shown;
- **unknown**: norms of which the report says that it does not know;
- **false**: predicted off by more than {BOUND}, measured within half of that;
- **error**: mean of |predicted - measured| over all norms with a figure.
"""


def mean(errors: Sequence[float]) -> str:
    """A mean error, or a dash."""
    return f"{statistics.fmean(errors):.3f}" if errors else "–"


def line_of(row: Row) -> str:
    """The row on one line, for the terminal."""
    if row.trouble:
        return f"{row.model:40s} {'refused' if row.refused else 'CRASH'}: {row.trouble}"
    counts = "  ".join(f"{what} {row.count(what):3d}" for what in _COUNTS)
    return (
        f"{row.model:40s} norms {len(row.norms):3d}  {counts}  error {mean(row.errors)}  {row.seconds:5.1f} s"
    )


def summary(rows: Sequence[Row]) -> str:
    """All models together, beside what is aimed at."""
    norms = sum(len(row.norms) for row in rows)
    counts = {what: sum(row.count(what) for row in rows) for what in _COUNTS}
    errors = [error for row in rows for error in row.errors]
    crashes = sum(bool(row.trouble) and not row.refused for row in rows)
    packages = len({row.model.split("/")[0] for row in rows})
    share = counts["found"] / max(counts["shifted"], 1)
    return "\n".join(
        [
            "| | reached | aim |",
            "|---|---|---|",
            f"| models, of packages | {len(rows)} of the {len(entries())}, of {packages} | 40, of 15 |",
            f"| crashes | {crashes} | 0 |",
            f"| refused in the tool's own words | {sum(row.refused for row in rows)} | – |",
            f"| norms, truly shifted | {norms}, {counts['shifted']} | – |",
            f"| found | {counts['found']} ({share:.1%}) | 99 % |",
            f"| shown harmless without a word | {counts['silent']} | 0 |",
            f"| unknown | {counts['unknown']} ({counts['unknown'] / max(norms, 1):.1%}) | 3 % |",
            f"| false | {counts['false']} | 0 |",
            f"| mean error | {mean(errors)} | 0.03 |",
        ]
    )


def table(rows: Sequence[Row]) -> list[str]:
    """One line for each model."""
    lines = [
        "| model | norms | shifted | found | silent | unknown | false | error | lint, s | findings |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.trouble:
            lines.append(
                f"| {row.model} | {'refused' if row.refused else 'crash'}: {row.trouble} " + "| " * 9 + "|"
            )
            continue
        cells = [str(row.count(what)) for what in _COUNTS]
        codes = ", ".join(f"{count} {code}" for code, count in sorted(row.findings.items()))
        lines.append(
            f"| {row.model} | {len(row.norms)} | {' | '.join(cells)} | {mean(row.errors)} "
            f"| {row.seconds:.1f} | {codes} |"
        )
    return lines


def faults(rows: Sequence[Row]) -> list[str]:
    """Norms that are silent or false, and those furthest off."""
    lines = []
    for row in rows:
        for norm in row.norms:
            kind = "silent" if norm.silent else "false" if norm.false else ""
            off = norm.predicted is not None and abs(norm.predicted - norm.measured) > 0.15
            if kind or off:
                shown = "not shown" if norm.predicted is None else f"{norm.predicted:.2f}"
                lines.append(
                    f"| {row.model} | {norm.norm} | {shown} | {norm.measured:.2f} | {kind or 'far off'} |"
                )
    if not lines:
        return ["None."]
    return ["| model | norm | predicted | measured | |", "|---|---|---|---|---|", *lines]


def report(rows: Sequence[Row], command: str) -> str:
    """The page."""
    return "\n".join(
        [
            "# Models of other people",
            "",
            f"`{command}`, torch {torch.__version__}, Python {platform.python_version()}. Packages:",
            " ".join(f"`{package}`" for package in PACKAGES) + ".",
            "",
            _HEAD,
            summary(rows),
            "",
            "## Silent, false, or off by more than 0.15",
            "",
            *faults(rows),
            "",
            "## By model",
            "",
            *table(rows),
            "",
        ]
    )
