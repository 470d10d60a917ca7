"""One self-contained HTML file: findings with code, the model with its noise, the shift profile, the rules.

Works without a network, in light and dark, with the keyboard and with a screen reader: whatever is drawn is
there as text as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from dropout_lint.errors import UsageError
from dropout_lint.report.context import Context
from dropout_lint.report.formats.html.chart import profile
from dropout_lint.report.formats.html.diff import diff_of
from dropout_lint.report.formats.html.lanes import Lanes, lay_out
from dropout_lint.report.formats.html.overview import is_linted, overview, percent
from dropout_lint.report.group import Group, grouped, improves
from dropout_lint.report.locations import frame, plain_spot, primary, secondary, spot
from dropout_lint.report.measured import STATISTICS
from dropout_lint.report.pilot import cells_of, fixed_once, label, said
from dropout_lint.report.schema import EditInfo, FindingInfo, Report, TargetInfo
from dropout_lint.report.words import counts, delta_range, opening, predicted, set_aside
from dropout_lint.words import BASES, count, number, numbered, severity_of_shift, shorten_path, with_interval


def render(report: Report, context: Context) -> str:
    """The document.

    Raises:
        UsageError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise UsageError(
            "the html format needs jinja2", 'install it with pip install "dropout-lint[html]"'
        ) from None
    files = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(files.joinpath("template.html").read_text(encoding="utf-8"))
    told = Told()
    used = sorted({finding.code for target in report.targets for finding in target.findings})
    return template.render(
        report=report,
        headline=headline(report),
        aside=set_aside(report.summary),
        overview=overview(report, context.threshold) if len(report.targets) > 1 else [],
        targets=[view(target, index, context, told) for index, target in enumerate(report.targets)],
        rules=[rule_view(code, context) for code in used if code in context.rules],
        style=files.joinpath("style.css").read_text(encoding="utf-8"),
        script=files.joinpath("script.js").read_text(encoding="utf-8"),
        threshold=context.threshold,
    )


def headline(report: Report) -> str:
    """The verdict in a few words."""
    if report.targets and not any(is_linted(target) for target in report.targets):
        return f"Δ measured in {count(len(report.targets), 'target')}"
    failed = sum(target.status == "error" for target in report.targets)
    found = counts(report.summary)
    looked_at = sum(target.skipped is None for target in report.targets)
    if found:
        return f"{found} in {count(looked_at, 'target')}"
    if failed == looked_at:
        return "nothing could be linted"
    return f"no misplaced dropout in {count(looked_at, 'target')}"


class Told:
    """What the page has said already, and so need not say again."""

    def __init__(self) -> None:
        self.rules: set[str] = set()
        self.edits: dict[tuple[EditInfo, ...], str] = {}

    def edit(self, finding: FindingInfo) -> str:
        """The name of the same edit further up, "" where there is none."""
        edits = tuple(finding.fix.edits)
        if edits in self.edits or not edits:
            return self.edits.get(edits, "")
        self.edits[edits] = f"edit{len(self.edits)}"
        return ""


def view(target: TargetInfo, index: int, context: Context, told: Told) -> dict[str, Any]:
    """One target as the template shows it."""
    drawing = context.drawings.get(target.target)
    lanes = lay_out(drawing, context.threshold) if drawing is not None and drawing.boxes else None
    rows = {row.name: row.index for row in lanes.rows} if lanes else {}
    return {
        "id": f"t{index}",
        "info": target,
        "linted": is_linted(target),
        "measured": measured_view(target, context.threshold),
        "groups": [group_view(group, f"t{index}", rows, context, told) for group in grouped(target.findings)],
        "profile": profile(target, context.threshold),
        "lanes": lanes,
        "lane_data": edges_of(lanes),
        "predictions": [
            {
                "item": item,
                "word": severity_of_shift(item.delta, context.threshold) if item.shifts else "remembers none",
                "delta": predicted(item),
                "initial": "" if item.delta_initial is None else number(item.delta_initial),
                "shares": sorted(item.shares.items(), key=lambda pair: -pair[1]),
            }
            for item in target.predictions
        ],
    }


def measured_view(target: TargetInfo, threshold: float) -> dict[str, Any] | None:
    """What was measured as the template shows it, None where nothing was."""
    if not target.measurements:
        return None
    how = target.measured
    pilot = how.pilot if how is not None else None
    steps = target.measurements[0].pilot_steps
    fixed: dict[str, Mapping[str, float | None]]
    fixed = {one.strategy or "": one.deltas for one in (fixed_once(pilot) if pilot is not None else ())}
    if not fixed and any(item.after_fix is not None for item in target.measurements):
        fixed = {"after the fix": {item.norm: item.after_fix for item in target.measurements}}
    return {
        "what": f"measured, pilot-trained for {count(steps, 'step')}" if steps else "measured",
        "expected": "expected after training" if steps else "predicted",
        "how": ""
        if how is None
        else f"{count(how.batches, 'batch', 'batches')}, {count(how.samples, 'sample')} on {how.device};"
        f" {STATISTICS[how.statistics]}.",
        "gaps": {} if how is None else how.gaps,
        "pilot": said(pilot) if pilot is not None else "",
        "skipped": pilot.skipped if pilot is not None else {},
        "candidates": [
            {"item": item, "label": label(item), "cells": cells_of(item)}
            for item in (pilot.candidates if pilot is not None else ())
        ],
        "rows": [
            {
                "item": item,
                "delta": number(item.delta),
                "interval": "" if item.low is None or item.high is None
                else f"{number(item.low)}–{number(item.high)}",
                "word": severity_of_shift(item.delta, threshold),
                "predicted": "" if item.predicted is None else number(item.predicted),
                "after": ["" if (delta := deltas.get(item.norm)) is None else number(delta)
                          for deltas in fixed.values()],
            }
            for item in target.measurements
        ],
        "fixed": list(fixed),
    }  # fmt: skip


def edges_of(lanes: Lanes | None) -> str:
    """The edges as `from,to` pairs, for the script that lights up what a dropout reaches."""
    return ";".join(f"{start},{end}" for start, end in lanes.edges) if lanes else ""


def group_view(
    group: Group, target: str, rows: dict[str, int], context: Context, told: Told
) -> dict[str, Any]:
    """One group of findings as the template shows it."""
    first = group.first
    place = primary(first)
    name = first.dropout.name if first.dropout else first.norm.name if first.norm else ""
    shown = frame(place, name, context=3) if place else None
    other = secondary(first)
    beside = f", {other[1]} at {plain_spot(other[0])}" if other is not None else ""
    code = []
    if shown:
        cut = min((len(line) - len(line.lstrip()) for line in shown.lines if line.strip()), default=0)
        for line_number, line in enumerate(shown.lines, start=shown.first):
            meant = line_number == shown.line
            start, end = (shown.start, shown.end) if meant else (len(line), len(line))
            code.append((line_number, line[cut:start], line[start:end], line[end:], meant))
    after = first.fix.delta_after if improves(first) else None
    why, advice = ("", "") if first.code in told.rules else texts(first.code, context)
    told.rules.add(first.code)
    return {
        "finding": first,
        "count": len(group.findings),
        "norms": ", ".join(
            f"{norm.name} ({with_interval(norm.delta, norm.interval)})" for norm in first.norms
        ),
        "names": numbered(group.names_without_line, 8),
        "place": f"{spot(place)}{beside}" if place else "",
        "code": code,
        "path": shorten_path(first.path),
        "delta": delta_range(group.findings),
        "word": severity_of_shift(first.delta, context.threshold),
        "fill": percent(first.delta),
        "basis": BASES[first.basis] if first.basis else "",
        "after": number(after) if after is not None else "",
        "after_fill": percent(after),
        "after_word": severity_of_shift(after, context.threshold),
        "why": parts(why),
        "advice": parts(advice),
        "fix": parts(first.fix.title),
        "edit": f"edit{len(told.edits)}",
        "edit_as": told.edit(first),
        "diff": diff_of(first.fix.edits),
        "explained": first.code in context.rules,
        "row": f"{target}-r{rows[name]}" if name in rows else "",
    }


def texts(code: str, context: Context) -> tuple[str, str]:
    """Why a rule's finding hurts, and what to do."""
    why, advice = context.section(code, "Why it hurts"), context.section(code, "Use instead")
    return opening(why, 400), opening(advice, 400)


def parts(text: str) -> list[tuple[bool, str]]:
    """A text cut at its backticks: whether each part is code, and the part."""
    return [(bool(index % 2), part) for index, part in enumerate(text.split("`")) if part]


def rule_view(code: str, context: Context) -> dict[str, Any]:
    """A rule with its sections as HTML; raw HTML in them is shown as text."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    rule = context.rules[code]
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    return {
        "rule": rule,
        "sections": [
            # what may scroll has to take the keyboard
            (heading, Markup(markdown.render(text).replace("<pre>", '<pre tabindex="0">')))
            for heading, text in rule.sections.items()
        ],
    }
