"""What Δ has to do with what dropout costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scipy.stats import spearmanr

from dropout_lint.words import in_order, severity_of_shift

from ..remedy_tables import table
from .rows import Mean, Row

THRESHOLDS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)


def lost(row: Row) -> Mean:
    """What dropout costs as it is written."""
    return row.between("written", "none")


def healed(row: Row) -> Mean:
    """What of it the statistics alone cost: the weights are the same."""
    return row.between("written", "recalibrated")


def regained(row: Row) -> Mean:
    """What the fix takes back."""
    return row.between("written", row.by_fix)


COSTS: dict[str, Callable[[Row], Mean]] = {
    "as written − no dropout": lost,
    "as written − recalibrated": healed,
    "as written − fixed": regained,
}


def correlations(rows: Sequence[Row]) -> str:
    """Spearman's ρ of 1 − Δ with each cost, over settings."""
    figures = {
        "predicted": lambda row: 1 - row.predicted,
        "measured": lambda row: 1 - row.trained,
        "p alone": lambda row: row.p,
    }
    lines = []
    for name, figure in figures.items():
        cells = []
        for cost in COSTS.values():
            pairs = [(figure(row), cost(row).value) for row in rows if cost(row).seeds]
            rho, chance = spearmanr(*zip(*pairs, strict=True)) if len(pairs) > 2 else (float("nan"),) * 2
            cells.append(f"{rho:.2f} (n = {len(pairs)}, {_chance(chance)})")
        lines.append((name, *cells))
    return table(("1 − Δ, farthest norm", *COSTS), lines)


def _chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def by_word(rows: Sequence[Row], shift: Callable[[Row], float]) -> str:
    """What each word for a Δ cost, and in how many settings clearly."""

    def word(row: Row) -> str:
        return severity_of_shift(shift(row))

    lines = []
    for name in in_order(map(word, rows)):
        chosen = [row for row in rows if word(row) == name]
        spreads = [_spread(chosen, cost) for cost in COSTS.values()]
        lines.append((name, len(chosen), *spreads, *_verdicts(chosen)))
    return table(("word", "settings", *COSTS, *VERDICTS), lines)


def _spread(rows: Sequence[Row], cost: Callable[[Row], Mean]) -> str:
    found = sorted(cost(row).value for row in rows if cost(row).seeds)
    if not found:
        return "–"
    middle = (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2
    return f"{sum(found) / len(found):+.1f}; {middle:+.1f} ({found[0]:+.1f} to {found[-1]:+.1f})"


def by_threshold(rows: Sequence[Row]) -> str:
    """Which settings a threshold would pass, which it would tell of, and what becomes of them."""
    lines = []
    for threshold in THRESHOLDS:
        passed = [row for row in rows if row.predicted >= threshold]
        told = [row for row in rows if row.predicted < threshold]
        lines.append((f"{threshold:.2f}", len(passed), *_verdicts(passed), len(told), *_verdicts(told)))
    return table(("threshold", "passed", *VERDICTS, "told of", *VERDICTS), lines)


VERDICTS = ("worse than no dropout", "better", "`recalibrate` helps")
"""By more than two standard errors."""


def _verdicts(rows: Sequence[Row]) -> tuple[int, int, int]:
    """How many settings each of `VERDICTS` is true of."""
    clear = [lost(row).value for row in rows if lost(row).clear]
    worse = sum(value > 0 for value in clear)
    return worse, len(clear) - worse, sum(healed(row).clear and healed(row).value > 0 for row in rows)
