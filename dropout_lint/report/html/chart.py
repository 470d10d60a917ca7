"""The shift profile: Δ at every norm in the order of the data, predicted and, where known, measured."""

from __future__ import annotations

from dataclasses import dataclass

from dropout_lint.report.schema import TargetInfo
from dropout_lint.report.words import number, severity_of_shift

HEIGHT = 160
STEP = 14
LEFT = 40


@dataclass(frozen=True)
class Bar:
    """One norm in the chart; `top` and `height` are in pixels from above."""

    x: float
    top: float
    height: float
    word: str
    title: str


@dataclass(frozen=True)
class Dot:
    """A measured Δ."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Profile:
    """The chart.

    Attributes:
        width, height: in pixels.
        highest: the Δ at the upper end, 1 or the highest above it.
        threshold: height of the threshold's line.
        ticks: heights of the labelled lines.
        bars: predicted Δ.
        dots: measured Δ, before and after a fix.
        summary: the chart in words.
    """

    width: int
    height: int
    highest: float
    threshold: float
    ticks: tuple[tuple[float, str], ...]
    bars: tuple[Bar, ...]
    dots: tuple[Dot, ...]
    summary: str


def profile(target: TargetInfo, threshold: float) -> Profile | None:
    """The chart of the norms that remember a variance, None where there are none."""
    shown = [item for item in target.predictions if item.shifts]
    if not shown:
        return None
    measured = {item.norm: item for item in target.measurements}
    values = [item.delta for item in shown] + [item.delta for item in target.measurements]
    highest = max(1.0, min(2.0, max(values)))

    def height_of(delta: float) -> float:
        return round(HEIGHT * (1 - max(0.0, min(highest, delta)) / highest), 1)

    bars = []
    dots = []
    for index, item in enumerate(shown):
        x = LEFT + index * STEP
        top = height_of(item.delta)
        word = severity_of_shift(item.delta, threshold)
        bars.append(Bar(x, top, HEIGHT - top, word, f"{item.norm}: Δ {number(item.delta)}, {word}"))
        found = measured.get(item.norm)
        if found:
            title = f"{item.norm}: measured Δ {number(found.delta)}"
            dots.append(Dot(x + STEP / 2 - 1, height_of(found.delta), "measured", title))
            if found.after_fix is not None:
                title = f"{item.norm}: measured Δ after the fix {number(found.after_fix)}"
                dots.append(Dot(x + STEP / 2 - 1, height_of(found.after_fix), "after", title))
    below = [item for item in shown if item.delta < threshold]
    worst = min(shown, key=lambda item: item.delta)
    summary = (
        f"{len(below)} of {len(shown)} norms have a predicted Δ below {threshold:g}; "
        f"the lowest is {number(worst.delta)} at {worst.norm}."
    )
    return Profile(
        width=LEFT + len(shown) * STEP + 10,
        height=HEIGHT,
        highest=highest,
        threshold=height_of(threshold),
        ticks=tuple((height_of(value), f"{value:g}") for value in (0.0, 0.5, 1.0)),
        bars=tuple(bars),
        dots=tuple(dots),
        summary=summary,
    )
