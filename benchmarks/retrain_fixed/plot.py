"""Costs against Δ, one point a setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dropout_lint.words import BOUNDS

from .rows import Mean, Row


def draw(rows: Sequence[Row], costs: dict[str, Callable[[Row], Mean]], file: Path) -> None:
    """A panel for each cost and for predicted and measured Δ; a colour for each network."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(costs), 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(costs), sharex=True, sharey=True)
    names = list(dict.fromkeys(row.subject.name for row in rows))
    shifts: dict[str, Callable[[Row], float]] = {
        "predicted": lambda row: row.predicted,
        "measured": lambda row: row.trained,
    }
    for line, (kind, shift) in zip(panels, shifts.items(), strict=True):
        for panel, (title, cost) in zip(line, costs.items(), strict=True):
            panel.axhline(0, color="0.7", linewidth=1)
            for bound in (0.95, *(bound for bound, _ in BOUNDS if bound)):
                panel.axvline(bound, color="0.9", linewidth=1, zorder=0)
            for number, name in enumerate(names):
                found = [(shift(row), cost(row)) for row in rows if row.subject.name == name]
                found = [(delta, one) for delta, one in found if one.seeds]
                panel.errorbar(
                    [delta for delta, _ in found],
                    [one.value for _, one in found],
                    [one.error for _, one in found],
                    fmt="osD^v"[number % 5],
                    color=f"C{number}",
                    markersize=5,
                    label=name,
                )
            panel.set_yscale("symlog", linthresh=2)
            panel.set_title(title, fontsize=10)
            panel.set_xlabel(f"{kind} Δ, farthest norm")
        line[0].set_ylabel("points of test error")
    panels[0][-1].legend(fontsize=7)
    figure.savefig(file, dpi=80)
