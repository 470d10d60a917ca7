"""The tables of the text report: predicted and measured Δ at every norm."""

from __future__ import annotations

from collections.abc import Sequence

from dropout_lint.report.context import Context
from dropout_lint.report.schema import MeasurementInfo, PredictionInfo, TargetInfo
from dropout_lint.report.style import Style
from dropout_lint.report.words import predicted
from dropout_lint.words import number, severity_of_shift, with_interval

INITIALLY = "initially"
"""Heads the column of Δ with the weights of the start."""


def prediction_rows(predictions: Sequence[PredictionInfo], context: Context, width: int) -> list[str]:
    """A row for each norm: name, Δ with its interval, Δ at initialisation where it is known, a word, and the
    dropout with the greatest share.
    """
    style = Style(context.color)
    words = [
        severity_of_shift(item.delta, context.threshold) if item.shifts else "remembers none"
        for item in predictions
    ]
    column = max(len(word) for word in words)
    trained = [predicted(item) for item in predictions]
    longest = max(len(text) for text in trained)
    untrained = any(item.delta_initial is not None for item in predictions)
    initial = len(INITIALLY) if untrained else 0
    names = column_of([item.norm for item in predictions], width // 2 - 8 - initial // 2)
    rows = []
    if untrained:
        rows.append(style.dim(f"{' ' * len(names[0])}  {'trained':<{longest}}  {INITIALLY}"))
    for item, name, delta, word in zip(predictions, names, trained, words, strict=True):
        shares = sorted(item.shares.items(), key=lambda pair: -pair[1])
        main = f"{shares[0][1]:.0%} {shares[0][0]}" if shares else ""
        if len(shares) > 1:
            main += f" +{len(shares) - 1}"
        body = f"{name}  {delta:<{longest}}  "
        if untrained:
            body += f"{with_interval(item.delta_initial, None):>{initial}}  "
        rest = width - len(body) - column - 2
        main = main if len(main) <= rest else main[: max(0, rest - 1)] + "…"
        shown = style.shift(word, word) + " " * (column - len(word))
        rows.append(f"{body}{shown}  {style.dim(main)}".rstrip())
    return rows


def measurement_rows(target: TargetInfo, context: Context, width: int) -> list[str]:
    """A row for each measured norm: name, predicted and measured Δ, and after the fix where there is one."""
    style = Style(context.color)
    names = column_of([item.norm for item in target.measurements], width - 38)
    fixed = any(item.after_fix is not None for item in target.measurements)
    head = f"{' ' * len(names[0])}  predicted  measured" + ("  after the fix" if fixed else "")
    rows = [style.dim(head)]
    for item, name in zip(target.measurements, names, strict=True):
        rows.append(f"{name}  {measured_cells(item, item.predicted, style, context, fixed)}")
    return rows


def measured_cells(
    item: MeasurementInfo, predicted: float | None, style: Style, context: Context, fixed: bool
) -> str:
    """The numbers of one measured norm, right-aligned below their headings."""
    expected = number(predicted) if predicted is not None else "-"
    measured = style.shift(f"{number(item.delta):>8}", severity_of_shift(item.delta, context.threshold))
    cells = f"{expected:>9}  {measured}"
    if fixed:
        cells += f"  {number(item.after_fix) if item.after_fix is not None else '-':>13}"
    return cells


def column_of(names: Sequence[str], room: int) -> list[str]:
    """Names cut from the left to `room` and padded to one width."""
    width = min(max(len(name) for name in names), room)
    return [(name if len(name) <= width else "…" + name[-(width - 1) :]).ljust(width) for name in names]
