"""Figures and Markdown tables of judged norms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from .judged import BASES, Judged, of
from .shares import Verdict

TITLES = {
    "checkpoint": "from a trained checkpoint",
    "shapes": "from shapes alone, of the trained network",
    "weights": "from untrained weights, of the trained network",
    "initial": "from untrained weights, of the untrained network",
}
AIMS = {"checkpoint": (0.02, 0.06), "shapes": (0.06, 0.18), "weights": (0.06, 0.18), "initial": (0.02, 0.06)}
WRONG_SIDE = 0.08
COVERAGE = (0.86, 0.94)
PUBLISHED = 0.03
SHARES = 0.9


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(q * len(ordered)) - 1))] if ordered else math.nan


def mean(values: Iterable[float]) -> float:
    """The mean; NaN of nothing."""
    found = list(values)
    return statistics.fmean(found) if found else math.nan


def figures(rows: Sequence[Judged]) -> dict[str, float]:
    """What the tables show of some norms of one basis, by name."""
    known = [row for row in rows if row.known]
    ranged = [row for row in known if math.isfinite(row.low)]
    return {
        "norms": len(rows),
        "unknown": len(rows) - len(known),
        "mean": mean(row.error for row in known),
        "most": quantile([row.error for row in known], 0.95),
        "bias": mean(row.predicted - row.true for row in known),
        "wrong": mean(row.wrong_side for row in known),
        "covered": mean(row.low <= row.true <= row.high for row in ranged),
        "width": mean(row.high - row.low for row in ranged),
        "closed": mean(abs(row.closed - row.true) for row in rows),
    }


def shown(value: float, form: str) -> str:
    """A figure, or a dash where there is none."""
    return "–" if math.isnan(value) else format(value, form)


def cells(rows: Sequence[Judged]) -> str:
    """A row's figures."""
    f = figures(rows)
    return (
        f"{f['norms']:.0f} | {f['unknown']:.0f} | {shown(f['mean'], '.3f')} | {shown(f['most'], '.3f')} "
        f"| {shown(f['bias'], '+.3f')} | {shown(f['wrong'], '.1%')} | {shown(f['covered'], '.0%')} "
        f"| {shown(f['width'], '.2f')} | {shown(f['closed'], '.3f')}"
    )


HEAD = "norms | unknown | mean error | 95 % | bias | wrong side | in interval | width | closed forms |"


def by(rows: Sequence[Judged], what: str, key: Callable[[Judged], str]) -> list[str]:
    """A table of groups, one line for each group and basis."""
    lines = [f"| basis | {what} | {HEAD}", "|" + "---|" * 11]
    for basis in BASES:
        for name in sorted({key(row) for row in rows}):
            group = [row for row in of(rows, basis) if key(row) == name]
            lines.append(f"| {basis} | {name} | {cells(group)} |")
    return lines


def yes(met: bool) -> str:
    """Whether an aim is met."""
    return "met" if met else "**missed**"


def judged_by_aims(rows: Sequence[Judged]) -> list[str]:
    """The table of aims."""
    lines = ["| figure | norms | reached | aim | |", "|---|---|---|---|---|"]
    for basis in BASES:
        f, (most_mean, most) = figures(of(rows, basis)), AIMS[basis]
        unknown = f", {f['unknown']:.0f} unknown" if f["unknown"] else ""
        lines.append(
            f"| {TITLES[basis]}: mean error / 95 % | {f['norms']:.0f}{unknown} | {f['mean']:.3f} / "
            f"{f['most']:.3f} "
            f"| ≤ {most_mean} / {most} | {yes(f['mean'] <= most_mean and f['most'] <= most)} |"
        )
        if basis in ("shapes", "weights"):
            lines.append(
                f"| – on the wrong side of 0.95 | {f['norms']:.0f} | {f['wrong']:.1%} | ≤ {WRONG_SIDE:.0%} "
                f"| {yes(f['wrong'] <= WRONG_SIDE)} |"
            )
            if not math.isnan(f["covered"]):
                low, high = COVERAGE
                lines.append(
                    f"| – in the interval (its mean width: {f['width']:.2f}) | {f['norms']:.0f} "
                    f"| {f['covered']:.1%} | {low:.0%} to {high:.0%} | {yes(low <= f['covered'] <= high)} |"
                )
    return lines


def share_line(found: Sequence[Verdict]) -> str:
    """A row of the aims' table for the shares."""
    apart = [v for v in found if v.apart]
    right = mean(v.predicted == v.best for v in apart)
    return (
        f"| the largest share is the best removal, two largest shares > 10 % apart | {len(apart)} | "
        f"{right:.1%} "
        f"| ≥ {SHARES:.0%} | {yes(right >= SHARES)} |"
    )


def shares_section(found: Sequence[Verdict]) -> list[str]:
    """Counts, and the misses that lose most."""
    apart = [v for v in found if v.apart]
    lines = ["| | norms | largest share is best removal | lost on average | best removal raises Δ by |"]
    lines.append("|---|---|---|---|---|")
    for label, group in (
        ("all", list(found)),
        ("two largest shares > 10 % apart", apart),
        ("within 10 %", [v for v in found if not v.apart]),
    ):
        right = mean(v.predicted == v.best for v in group)
        raises = mean(v.raised[v.best] for v in group)
        lost = mean(v.loss for v in group)
        lines.append(
            f"| {label} | {len(group)} | {shown(right, '.1%')} | {shown(lost, '.4f')} | "
            f"{shown(raises, '.3f')} |"
        )
    misses = sorted((v for v in apart if v.predicted != v.best), key=lambda v: -v.loss)[:8]
    lines += ["", "What loses most of those over 10 % apart:", ""] if misses else []
    lines += [
        f"- {v.key}, `{v.norm}`: `{v.predicted}` (share {v.shares[v.predicted]:.2f}) raises Δ by "
        f"{v.raised[v.predicted]:+.3f}, `{v.best}` (share {v.shares.get(v.best, 0.0):.2f}) by "
        f"{v.raised[v.best]:+.3f}"
        for v in misses
    ]
    return lines


def worst(rows: Sequence[Judged], count: int = 12) -> list[str]:
    """The norms that miss most, with where they are."""
    lines = ["| basis | setting | norm | measured | predicted | interval |", "|---|---|---|---|---|---|"]
    for basis in BASES:
        known = sorted((row for row in of(rows, basis) if row.known), key=lambda row: -row.error)
        for row in known[:count]:
            interval = "–" if math.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"
            lines.append(
                f"| {basis} | {row.key} | `{row.norm}` | {row.true:.3f} | {row.predicted:.3f} | {interval} |"
            )
    return lines
