"""The shift profile: Δ at every norm in the order of the data, predicted and, where known, measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dropout_lint.report.schema import TargetInfo
from dropout_lint.report.words import predicted
from dropout_lint.terms import nearness, worst_first
from dropout_lint.words import in_order, number, severity_of_shift, with_interval

HEIGHT = 160
LEFT = 40
# the norms share this width; where they are many their names take more, and the chart scrolls
WIDTH = 660
NARROWEST, WIDEST = 13.0, 64.0
NUMBERED = 34.0
LONGEST_NAME = 26
LETTER = 6.0
DOTS = {"measured": "measured", "after": "measured after the fix"}


@dataclass(frozen=True)
class Bar:
    """One norm in the chart, in pixels from above; `number` is "" where there is no room for it."""

    x: float
    top: float
    width: float
    height: float
    word: str
    title: str
    name: str
    number: str


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
        width, height: in pixels, without the names below.
        foot: pixels for the names, which run down to the right by `angle` degrees.
        words: what the bars' colours mean, as far as they occur.
        kinds: the dots that occur, with what they mean.
        highest: the Δ at the upper end, 1 or the highest above it.
        threshold: height of the threshold's line.
        ticks: heights of the labelled lines.
        bars: predicted Δ.
        dots: measured Δ, before and after a fix.
        summary: the chart in words.
    """

    width: int
    height: int
    foot: int
    angle: int
    words: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...]
    highest: float
    threshold: float
    ticks: tuple[tuple[float, str], ...]
    bars: tuple[Bar, ...]
    dots: tuple[Dot, ...]
    summary: str


def profile(target: TargetInfo, threshold: float) -> Profile | None:
    """The chart of the norms that remember a variance, None where there are none."""
    shown = [item for item in target.predictions if item.shifts]
    if not any(item.delta is not None for item in shown):
        return None
    measured = {item.norm: item for item in target.measurements}
    known = [item.delta for item in shown if item.delta is not None]
    values = [*known, *(item.delta for item in target.measurements)]
    highest = max(1.0, min(2.0, max(values)))

    def height_of(delta: float) -> float:
        return round(HEIGHT * (1 - max(0.0, min(highest, delta)) / highest), 1)

    step = max(NARROWEST, min(WIDEST, WIDTH / len(shown)))
    wide = round(step * 0.72, 1)
    bars = []
    dots = []
    for index, item in enumerate(shown):
        x = round(LEFT + index * step, 1)
        top = height_of(0.0 if item.delta is None else item.delta)
        word = severity_of_shift(item.delta, threshold)
        delta = predicted(item)
        bars.append(
            Bar(
                x, top, wide, round(HEIGHT - top, 1), word, f"{item.norm}: Δ {delta}, {word}",
                name=tail(item.norm),
                number=with_interval(item.delta, None) if step >= NUMBERED else "",
            )
        )  # fmt: skip
        found = measured.get(item.norm)
        if found:
            middle = round(x + wide / 2, 1)
            title = f"{item.norm}: measured Δ {number(found.delta)}"
            dots.append(Dot(middle, height_of(found.delta), "measured", title))
            if found.after_fix is not None:
                title = f"{item.norm}: measured Δ after the fix {number(found.after_fix)}"
                dots.append(Dot(middle, height_of(found.after_fix), "after", title))
    longest = max(len(bar.name) for bar in bars)
    beyond = [item.delta for item in shown if item.delta is not None and nearness(item.delta) < threshold]
    worst = min(shown, key=lambda item: worst_first(item.delta))
    above = f" or above {1 / threshold:.2f}" if any(delta > 1 for delta in beyond) else ""
    summary = (
        f"{len(beyond)} of {len(shown)} norms have a predicted Δ below {threshold:g}{above}; "
        f"the worst is {with_interval(worst.delta, worst.interval)} at {worst.norm}."
    )
    angle = 40 if step >= NUMBERED else 60  # the nearer the names, the steeper
    slope = math.radians(angle)
    return Profile(
        width=round(LEFT + len(shown) * step + 10 + LETTER * longest * math.cos(slope)),
        height=HEIGHT,
        foot=round(20 + LETTER * longest * math.sin(slope)),
        angle=angle,
        words=in_order(bar.word for bar in bars),
        kinds=tuple((kind, text) for kind, text in DOTS.items() if kind in {dot.kind for dot in dots}),
        highest=highest,
        threshold=height_of(threshold),
        ticks=tuple((height_of(value), f"{value:g}") for value in (0.0, 0.5, 1.0)),
        bars=tuple(bars),
        dots=tuple(dots),
        summary=summary,
    )


def tail(name: str) -> str:
    """The end of a long name, which tells more than its beginning."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
