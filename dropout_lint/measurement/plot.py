"""Shift ratio by norm index, as Li et al. 2019 draw it in Fig. 4: to a file, and small in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropout_lint.errors import MeasureError
from dropout_lint.measurement.predicted import predicted_deltas
from dropout_lint.terms import shift_ratio

if TYPE_CHECKING:
    from dropout_lint.measurement.shift import Shift
    from dropout_lint.prediction.shifts import Prediction


def plot(
    shift: Shift,
    path: Path,
    *,
    after: Shift | None = None,
    predicted: Prediction | Mapping[str, float] | None = None,
    title: str | None = None,
) -> None:
    """Draw `shift` to `path`; see `Shift.plot`.

    Raises:
        MeasureError: matplotlib is missing, or the file cannot be written in the format of its suffix.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MeasureError(
            "the plot needs matplotlib", "install it with the extra: pip install 'dropout-lint[html]'"
        ) from error
    names = [norm.name for norm in shift.norms]
    places = range(1, len(names) + 1)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    ratios = [norm.shift_ratio for norm in shift.norms]
    few = len(names) <= 60
    axes.plot(places, ratios, color="#c0392b", marker="o" if few else "", markersize=3.5, label="measured")
    if all(norm.interval is not None for norm in shift.norms):
        lows, highs = zip(*(_ratio_bounds(norm.interval) for norm in shift.norms), strict=True)
        axes.fill_between(
            places, lows, highs, color="#c0392b", alpha=0.18, linewidth=0, label="95 % interval"
        )
    if after is not None:
        later = {norm.name: norm.shift_ratio for norm in after.norms}
        pairs = [(place, later[name]) for place, name in zip(places, names, strict=True) if name in later]
        _line(
            axes,
            pairs,
            color="#1f77b4",
            marker="s" if few else "",
            markersize=3,
            label="measured after the fix",
        )
    deltas = predicted_deltas(predicted)
    pairs = [
        (place, shift_ratio(deltas[name]))
        for place, name in zip(places, names, strict=True)
        if deltas.get(name, 0) > 0
    ]
    _line(axes, pairs, color="#2c3e50", linestyle="--", linewidth=1.2, label="predicted")
    axes.axhline(1, color="#999999", linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("norm index, shallow to deep")
    axes.set_ylabel("shift ratio  max(Δ, 1/Δ)")
    axes.set_title(title or "Variance shift between train and test mode", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not path.parent.is_dir():
        raise MeasureError(
            f"the plot cannot be written to {path}: there is no folder {path.parent}", "make the folder first"
        )
    try:
        figure.savefig(path, dpi=160)
    except (OSError, ValueError) as error:
        raise MeasureError(
            f"the plot cannot be written to {path}: {error}", "use a .png or .svg file name"
        ) from error


def _line(axes: Any, pairs: Sequence[tuple[int, float]], **style: object) -> None:
    if pairs:
        axes.plot(*zip(*pairs, strict=True), **style)


def _ratio_bounds(interval: tuple[float, float] | None) -> tuple[float, float]:
    """The range of max(Δ, 1/Δ) while Δ runs over the interval."""
    low, high = interval or (1.0, 1.0)
    ends = [shift_ratio(max(end, 1e-6)) for end in (low, high)]
    return (1.0 if low <= 1 <= high else min(ends)), max(ends)
