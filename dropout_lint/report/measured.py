"""A measurement as text for the terminal: plain columns, readable at 80 and without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dropout_lint.report.pilot import fixed_once, pilot_lines
from dropout_lint.report.schema import MeasurementInfo, PilotInfo
from dropout_lint.report.style import Style
from dropout_lint.report.words import prose
from dropout_lint.words import count, severity_of_shift, sparkline

if TYPE_CHECKING:
    from dropout_lint.measurement.shift import Shift
    from dropout_lint.measurement.validate import Validation

STATISTICS = {
    "stored": "test mode normalises by the stored running statistics",
    "measured": "test mode normalises by the statistics that train mode showed",
    "mixed": "test mode normalises by stored statistics where they were trained, else by measured ones",
}


def table(
    result: Validation,
    *,
    pilot: PilotInfo | None = None,
    width: int = 80,
    color: bool = False,
    fancy: bool = True,
) -> str:
    """The norms, worst first, with what was predicted and what a fix changed where that is known.

    Args:
        result: what `validate` returned.
        pilot: what was trained before that.
        width: columns of the terminal.
        color: whether to paint.
        fancy: whether the output can show block characters.
    """
    style = Style(color)
    shift = result.before
    head = f"{count(shift.batches, 'batch', 'batches')}, {count(shift.samples, 'sample')} on {shift.device}"
    if shift.world > 1:
        head += f" in {shift.world} processes"
    lines = [] if pilot is None else [*pilot_lines(pilot, width=width, color=color), ""]
    lines += prose(f"{head}; {STATISTICS[shift.statistics]}.", width)
    fixes = [] if pilot is None else fixed_once(pilot)
    later = fixes[0].strategy or "after" if fixes else "after"
    lines += ["", _trend(shift, result.after, later, width, fancy), "", *_rows(result, pilot, width, style)]
    if shift.gaps:
        lines += ["", "not measured:"]
        for name, reason in shift.gaps.items():
            lines += prose(f"  {name}: {reason}", width)
    if shift.alone:
        lines += ["", *_shares(shift, width)]
    error = result.mean_absolute_error
    if error is not None:
        against = f"the pilot of {count(result.steps, 'step')}" if result.steps else "measurement"
        lines += ["", f"prediction against {against}: mean |error| of Δ {error:.3f}"]
    for note in result.notes:
        lines += prose(f"note: {note}", width)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _trend(shift: Shift, after: Shift | None, later: str, width: int, fancy: bool) -> str:
    """Sparklines on one scale: shift ratio over norm index, before and after."""
    label = "shift ratio"
    room = max(10, width - len(label) - 2)
    worst = shift.worst
    text = f"{label}  {shift.sparkline(room, ascii_only=not fancy)}"
    said = f"{'':{len(label)}}  norms from shallow to deep; worst {worst.shift_ratio:.2f} at {worst.name}"
    if after is None:
        return f"{text}\n{said}"
    ratios = after.shift_ratio
    bars = sparkline(
        [ratios.get(norm.name, 1.0) for norm in shift.norms],
        room,
        ascii_only=not fancy,
        top=worst.shift_ratio,
    )
    fixed = after.worst
    lines = [text, said, f"{later:{len(label)}}  {bars}"]
    return "\n".join([*lines, f"{'':{len(label)}}  worst {fixed.shift_ratio:.2f} at {fixed.name}"])


def _rows(result: Validation, pilot: PilotInfo | None, width: int, style: Style) -> list[str]:
    predicted = any(row.predicted is not None for row in result.rows)
    others = [] if pilot is None else fixed_once(pilot)
    after = result.after is not None and not others
    heads = [f"Δ, {count(result.steps, 'step')}" if result.steps else "Δ measured", "ratio", "mean"]
    if predicted:
        heads.append("expected" if result.steps else "predicted")
    if after:
        heads += ["pred. after"] if any(row.predicted_after is not None for row in result.rows) else []
        heads.append("after")
    heads += [one.strategy or "" for one in others]
    body: list[tuple[str, list[str], str]] = []
    for row in result.rows:
        if row.before is None:
            continue
        norm = result.before[row.norm]
        spread = f" ±{norm.half_width:.3f}" if norm.half_width is not None else ""
        cells = [f"{norm.delta:.3f}{spread}", f"{norm.shift_ratio:.2f}", f"{norm.mean_shift:.2f}"]
        if predicted:
            cells.append(_number(row.predicted))
        if after:
            cells += [_number(row.predicted_after)] if "pred. after" in heads else []
            cells.append(_number(row.after))
        cells += [_number(one.deltas.get(row.norm)) for one in others]
        body.append((row.norm, cells, severity_of_shift(row.before)))
    sizes = [max([len(head), *(len(cells[i]) for _, cells, _ in body)]) for i, head in enumerate(heads)]
    room = max(12, min(max([4, *(len(name) for name, _, _ in body)]), width - sum(sizes) - 2 * len(sizes)))
    lines = [style.strong(_line("norm", heads, room, sizes))]
    for name, cells, word in body:
        lines.append(style.shift(_line(name, cells, room, sizes), word))
    return lines


def _line(name: str, cells: Sequence[str], room: int, sizes: Sequence[int]) -> str:
    shown = name if len(name) <= room else "…" + name[len(name) - room + 1 :]
    return f"{shown:<{room}}" + "".join(f"  {cell:>{size}}" for cell, size in zip(cells, sizes, strict=True))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _shares(shift: Shift, width: int) -> list[str]:
    lines = prose(
        "share of each norm's shortfall 1 - Δ that goes when a dropout alone is switched off:", width
    )
    for norm, shares in shift.shares.items():
        known = sorted(((share, drop) for drop, share in shares.items() if share >= 0.01), reverse=True)
        text = ", ".join(f"{drop} {share:.0%}" for share, drop in known) or "none by a hundredth"
        lines += prose(f"  {norm}: {text}", width)
    return lines


def measurement_infos(result: Validation) -> list[MeasurementInfo]:
    """A measurement as the JSON report holds it, worst norm first, with Δ after a fix if there is one."""
    rows = {row.norm: row for row in result.rows}
    later = result.after.delta if result.after is not None else {}
    return [
        MeasurementInfo(
            norm=norm.name,
            delta=norm.delta,
            shift_ratio=norm.shift_ratio,
            after_fix=later.get(norm.name),
            low=norm.interval[0] if norm.interval else None,
            high=norm.interval[1] if norm.interval else None,
            mean_shift=norm.mean_shift,
            predicted=rows[norm.name].predicted,
            predicted_after=rows[norm.name].predicted_after,
            pilot_steps=result.steps,
        )
        for norm in sorted(result.before.norms, key=lambda norm: -norm.shift_ratio)
    ]
