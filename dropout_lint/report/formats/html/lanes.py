"""Lays a model out as a list with lanes beside it, as `git log --graph` draws a history.

One row an operation in the order of the data; what feeds a later row than the next runs in a lane of its own,
one lane for each source. A thousand rows stay readable, and the list is text that can be read aloud.
"""

from __future__ import annotations

from dataclasses import dataclass

from dropout_lint.report.drawing import Drawing
from dropout_lint.terms import nearness
from dropout_lint.words import in_order, number, severity_of_shift

ROW = 24
LANE = 11
MOST_LANES = 28
LONGEST_NAME = 44


@dataclass(frozen=True)
class Row:
    """One operation; `word` is how bad its Δ is, or where its noise leads."""

    index: int
    name: str
    label: str
    kind: str
    shape: str
    delta: str
    word: str
    noisy: bool


@dataclass(frozen=True)
class Line:
    """One connection as an SVG path; `word` is "" where it carries no noise."""

    path: str
    word: str
    source: int


@dataclass(frozen=True)
class Lanes:
    """The drawing.

    Attributes:
        rows: the operations.
        lines: the connections, those with noise last, so that they lie on top.
        edges: the connections as pairs of rows.
        width, height: of the lanes, in pixels.
        x: where the rows' dots are.
        longest: characters that nearly all names fit into.
        words: what the colours mean, as far as they occur.
    """

    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    edges: tuple[tuple[int, int], ...]
    width: int
    height: int
    x: int
    longest: int
    words: tuple[str, ...]


def lay_out(drawing: Drawing, threshold: float) -> Lanes:
    """Rows and lanes of a drawing."""
    ahead = worst_ahead(drawing)
    targets: dict[int, list[int]] = {}
    for start, end in drawing.edges:
        targets.setdefault(start, []).append(end)
    lane_of = assign_lanes({start: max(ends) for start, ends in targets.items() if max(ends) > start + 1})
    lanes = max(lane_of.values(), default=-1) + 1
    x = (lanes + 1) * LANE
    lines = []
    for start, ends in targets.items():
        word = severity_of_shift(ahead[start], threshold) if drawing.boxes[start].noisy else ""
        for end in ends:
            lines.append(Line(connection(start, end, x, lane_of.get(start)), word, start))
    rows = []
    for index, box in enumerate(drawing.boxes):
        word = ""
        if box.kind == "norm" and box.delta is not None:
            word = severity_of_shift(box.delta, threshold)
        elif box.noisy:
            word = severity_of_shift(ahead[index], threshold)
        shown = number(box.delta) if box.delta is not None else ""
        rows.append(Row(index, box.name, box.label, box.kind, box.shape, shown, word, box.noisy))
    return Lanes(
        rows=tuple(rows),
        lines=tuple(sorted(lines, key=lambda line: bool(line.word))),
        edges=tuple(drawing.edges),
        width=x + LANE,
        height=len(rows) * ROW,
        x=x,
        longest=min(LONGEST_NAME, max(len(row.name) for row in rows)),
        words=in_order([*(row.word for row in rows), *(line.word for line in lines)]),
    )


def worst_ahead(drawing: Drawing) -> list[float]:
    """For each box the worst Δ among the norms that its output reaches first; 1 where it reaches none."""
    ahead = [1.0] * len(drawing.boxes)
    following: dict[int, list[int]] = {}
    for start, end in drawing.edges:
        following.setdefault(start, []).append(end)
    for index in range(len(drawing.boxes) - 1, -1, -1):
        for after in following.get(index, ()):
            delta = drawing.boxes[after].delta
            ahead[index] = min(ahead[index], ahead[after] if delta is None else delta, key=nearness)
    return ahead


def assign_lanes(spans: dict[int, int]) -> dict[int, int]:
    """A lane for each source whose output is used later than in the next row; no two overlap in one lane.

    Beyond `MOST_LANES` lanes the outermost is shared.
    """
    free_from: list[int] = []
    lane_of = {}
    for start, end in sorted(spans.items()):
        lane = next((number_ for number_, free in enumerate(free_from) if free <= start), len(free_from))
        if lane == len(free_from) and lane < MOST_LANES:
            free_from.append(end)
        lane = min(lane, MOST_LANES - 1)
        free_from[lane] = max(free_from[lane], end)
        lane_of[start] = lane
    return lane_of


def connection(start: int, end: int, x: int, lane: int | None) -> str:
    """The SVG path from one row to another, straight to the next row and through the lane to a later one."""
    top, bottom = start * ROW + ROW // 2, end * ROW + ROW // 2
    if end == start + 1 or lane is None:
        return f"M{x} {top}V{bottom}"
    side = x - (lane + 1) * LANE
    bend = ROW // 2
    return f"M{x} {top}Q{side} {top} {side} {top + bend}V{bottom - bend}Q{side} {bottom} {x} {bottom}"
