"""The report for people at a terminal: code frame, path to the norm, Δ, why, and what to do."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from dropout_lint.report.context import Context
from dropout_lint.report.group import Group, grouped, improves
from dropout_lint.report.locations import Frame, frame, plain_spot, primary, secondary, spot
from dropout_lint.report.schema import READ, FindingInfo, Report, TargetInfo
from dropout_lint.report.style import Style
from dropout_lint.report.tables import measurement_rows, prediction_rows
from dropout_lint.report.words import counts, delta_range, opening, set_aside
from dropout_lint.terms import nearness, worst_first
from dropout_lint.words import (
    BASES,
    count,
    listed,
    number,
    numbered,
    severity_of_shift,
    shorten_path,
    with_interval,
)

INDENT = "  "
LABEL = 7
BAR = 20
NORMS = 12  # rows of a table of norms, without -v


def render(report: Report, context: Context) -> str:
    """The whole report; with `context.quiet` one line a group of findings and nothing else."""
    writer = Writer(context)
    for target in report.targets:
        writer.target(target)
    writer.stale(report)
    if not context.quiet:
        writer.summary(report)
    return "\n".join(writer.lines) + "\n" if writer.lines else ""


class Writer:
    """Collects the lines of one report."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.style = Style(context.color)
        self.lines: list[str] = []
        self.explained: set[str] = set()

    def target(self, target: TargetInfo) -> None:
        """One target: a heading, what has to be said aloud, its findings, its predictions."""
        groups = grouped(target.findings)
        if self.context.quiet:
            for group in groups:
                self.lines.append(self.headline(group))
            return
        if target.status == "error":
            if self.context.errors_told and not target.notes:
                return
            self.wrap(f"{target.target}: could not be linted: {target.error}", "", self.style.error)
            self.notes(target)
            self.lines.append("")
            return
        self.heading(target)
        for group in groups:
            self.lines.append("")
            self.group(group)
        for ignore in target.unused_ignores:
            self.lines.append("")
            told = ignore.why or f"{', '.join(ignore.codes)} does not occur here: remove it"
            self.lines.append(f"{spot(ignore.place)}  {self.style.warning('unused ignore')}  {told}")
        self.tables(target)
        self.lines.append("")

    def heading(self, target: TargetInfo) -> None:
        """What was linted, with what inputs, and how much of it could be seen."""
        self.lines.append(self.style.strong(target.target))
        if target.skipped is not None:
            self.wrap(f"Skipped, it is optional: {target.skipped}", INDENT, self.style.dim)
        if target.trace is None:
            self.notes(target)
            return
        origin = target.inputs_origin or "guessed"
        guess = f" ({origin})" if target.inputs_guessed else ""
        shown = f"input {', '.join(target.inputs)}{guess}" if target.inputs else "no input"
        size = count(target.trace.nodes, "operation")
        read = target.trace.method == READ
        told = f"{size} read" if read else f"{shown}, {size} traced ({target.trace.method})"
        self.wrap(f"{target.model}, {told}", INDENT, self.style.dim)
        if target.inputs_guessed and target.inputs:
            self.wrap("The input is a guess: give --input if it is not like yours.", INDENT, self.style.dim)
        if target.trace.opaque:
            parts = [
                f"{name} ({target.trace.reasons[name]})" if name in target.trace.reasons else name
                for name in target.trace.opaque
            ]
            shown_parts = parts if self.context.verbose else parts[:5]
            more = f" and {len(parts) - len(shown_parts)} more" if len(parts) > len(shown_parts) else ""
            self.wrap(
                f"Partly traced: nothing is known about {listed(shown_parts)}{more}.",
                INDENT,
                self.style.warning,
            )
        self.notes(target)

    def notes(self, target: TargetInfo) -> None:
        """What has to be said aloud, a note each."""
        for note in target.notes:
            self.wrap(f"Note: {note}", INDENT, self.style.dim)

    def headline(self, group: Group) -> str:
        """Place, code, severity, message on one line."""
        first = group.first
        many = f" ({len(group.findings)} times)" if len(group.findings) > 1 else ""
        if len(first.norms) > 1:
            many = f" (and {count(len(first.norms) - 1, 'more norm')})"
        severity = self.style.severity(first.severity, first.severity)
        where = spot(primary(first))
        start = f"{where}  " if where else ""
        return f"{start}{self.style.strong(first.code)} {severity}: {first.message}{many}"

    def group(self, group: Group) -> None:
        """One group of findings in full."""
        first = group.first
        severity = self.style.severity(f"{first.severity}[{first.code}]", first.severity)
        self.wrap(
            first.message, "", lead=f"{severity}: ", lead_width=len(f"{first.severity}[{first.code}]: ")
        )
        place = primary(first)
        name = first.dropout.name if first.dropout else None
        if place:
            self.lines.append(f"{INDENT}{self.style.dim('-->')} {spot(place)}")
            shown = frame(place, name)
            if shown:
                self.frame(shown, first)
        if len(first.norms) > 1:
            self.norms(first)
        elif len(group.findings) > 1 or (place is None and name):
            names = group.names_without_line
            text = numbered(names, len(names) if self.context.verbose else 6)
            times = f"{len(group.findings)} times{' on this line' if place else ''}"
            ratios = f" ({group.ratios})" if group.ratios else ""
            self.entry("where", f"{times}{ratios}: {text}" if len(group.findings) > 1 else text)
        if len(first.path) > 1:
            self.entry("path", " → ".join(shorten_path(first.path)), pattern=r"(?<=→) ")
        self.delta(group)
        explained = first.code in self.explained
        self.explained.add(first.code)
        why = opening(self.context.section(first.code, "Why it hurts"))
        if why and not explained:
            self.entry("why", why)
        advice = opening(self.context.section(first.code, "Use instead"))
        if advice and not explained:
            self.entry("do", advice)
        self.fix(group)
        other = secondary(first)
        if other is not None:
            where, word = other
            self.lines.append(f"{INDENT}{self.label(word)}{plain_spot(where)}")
        self.entry("more", f"dropout-lint rule {first.code}" + (f" · {first.source}" if first.source else ""))

    def frame(self, shown: Frame, finding: FindingInfo) -> None:
        """The code frame, common indentation taken away, the call underlined."""
        gutter = len(str(shown.first + len(shown.lines) - 1))
        room = self.context.width - gutter - 6
        indents = [len(line) - len(line.lstrip()) for line in shown.lines if line.strip()]
        cut = max(0, min(indents, default=0))
        bar = self.style.dim("│")
        self.lines.append(f"{INDENT}{' ' * gutter} {bar}")
        for number_, line in enumerate(shown.lines, start=shown.first):
            body = line[cut:]
            if len(body) > room:
                body = body[: room - 1] + "…"
            digits = str(number_).rjust(gutter)
            mark = number_ == shown.line
            shown_digits = self.style.strong(digits) if mark else self.style.dim(digits)
            self.lines.append(f"{INDENT}{shown_digits} {bar} {body}".rstrip())
            if mark:
                start = min(shown.start - cut, room - 2)
                width = max(1, min(shown.end - cut, room) - start)
                carets = self.style.severity("^" * width, finding.severity)
                label = caret_label(finding)
                fits = start + width + 1 + len(label) <= room
                self.lines.append(
                    f"{INDENT}{' ' * gutter} {bar} {' ' * start}{carets}"
                    + (f" {self.style.severity(label, finding.severity)}" if fits and label else "")
                )
        self.lines.append(f"{INDENT}{' ' * gutter} {bar}")

    def norms(self, finding: FindingInfo) -> None:
        """The norms of a finding, each with its Δ, the lowest first."""
        found = finding.norms
        names = [norm.name for norm in found]
        if not self.about_delta(finding):
            every = numbered(names, len(found) if self.context.verbose else 6)
            self.entry("norms", f"{len(found)} of this model: {every}")
            return
        shown = found if self.context.verbose else found[:NORMS]
        width = max(len(norm.name) for norm in shown)
        self.entry("norms", f"{len(found)} of this model")
        for norm in shown:
            delta = with_interval(norm.delta, norm.interval)
            self.lines.append(f"{INDENT}{' ' * LABEL}{norm.name.ljust(width)}  Δ {delta}")
        if len(shown) < len(found):
            self.lines.append(f"{INDENT}{' ' * LABEL}and {len(found) - len(shown)} more (-v shows them)")

    def about_delta(self, finding: FindingInfo) -> bool:
        """Whether Δ matters: a norm alone may have another fault, and a deployed program has no Δ."""
        rule = self.context.rules.get(finding.code)
        if rule is not None and rule.match.get("subject") == "program":
            return False
        return finding.dropout is not None or rule is None or "delta" in rule.match

    def delta(self, group: Group) -> None:
        """Δ with a word and a bar."""
        first = group.first
        if not self.about_delta(first):
            return
        if first.delta is None:
            if first.norm:
                self.entry("Δ", f"unknown at {first.norm.name}")
            return
        word = severity_of_shift(first.delta, self.context.threshold)
        filled = max(0, min(BAR, round(nearness(first.delta) * BAR)))
        bar = self.style.shift("█" * filled, word) + self.style.dim("░" * (BAR - filled))
        basis = f", {BASES[first.basis]}" if first.basis else ""
        norm = f" at {first.norm.name}" if first.norm else ""
        text = f"{delta_range(group.findings)} {self.style.shift(word, word)} {bar}"
        self.lines.append(f"{INDENT}{self.label('Δ')}{text}")
        self.wrap(
            f"test variance ÷ remembered training variance{norm}{basis}",
            INDENT + " " * LABEL,
            self.style.dim,
        )

    def fix(self, group: Group) -> None:
        """What the fix does and how much better Δ gets; whether it is proven, a try (--fixes) tells."""
        finding = group.first
        fix = finding.fix
        if fix.applicability == "none" and not fix.title:
            return
        after = ""
        if improves(finding):
            assert finding.delta is not None and fix.delta_after is not None
            after = f" (Δ {number(finding.delta)} → {number(fix.delta_after)})"
        automatic = {"dropout-lint fix": "`dropout-lint fix`", "dl.fix": "dl.fix"}
        either = automatic.get(fix.by or "", "`dropout-lint fix` or dl.fix")
        how = {"automatic": either, "manual": "by hand", "none": "none"}[fix.applicability]
        if fix.edits:
            how = "source fix, proven"
        others = count(len(group.findings) - 1, "other")
        also = f"; likewise the {others}" if len(group.findings) > 1 else ""
        source = "; dropout-lint fix --write applies it" if fix.edits else ""
        title = f": {fix.title}" if fix.title else ""
        self.entry("fix", f"{how}{title}{after}{also}{source}")

    def tables(self, target: TargetInfo) -> None:
        """Δ at every norm, predicted where it is asked for, measured where it was."""
        width = self.context.width - len(INDENT * 2)
        if self.context.show_predictions and target.predictions:
            threshold = self.context.threshold
            self.lines.append("")
            ran = any(shift.probed for shift in target.predictions)
            how = ", by a run on inputs recovered from the checkpoint's statistics" if ran else ""
            told = f"Predicted Δ at every norm (below {threshold:g} counts){how}"
            self.wrap(told, INDENT, self.style.strong)
            rows = prediction_rows(target.predictions, self.context, width)
            self.lines += [INDENT * 2 + row for row in rows]
        if target.measurements:
            self.lines.append("")
            self.wrap("Measured Δ", INDENT, self.style.strong)
            rows = measurement_rows(target, self.context, width)
            self.lines += [INDENT * 2 + row for row in rows]

    def stale(self, report: Report) -> None:
        """Baseline entries that no finding matches."""
        if not report.stale_baseline:
            return
        amount = len(report.stale_baseline)
        entries = count(amount, "baseline entry", "baseline entries")
        self.wrap(
            f"{entries} no longer {'occurs' if amount == 1 else 'occur'}; --write-baseline takes them out:",
            "",
            self.style.warning,
        )
        for entry in report.stale_baseline[: None if self.context.verbose else 5]:
            self.wrap(f"{entry.target}: {entry.code} {entry.dropout or entry.norm or ''}", INDENT)
        if amount > 5 and not self.context.verbose:
            self.wrap(f"and {amount - 5} more", INDENT)
        self.lines.append("")

    def summary(self, report: Report) -> None:
        """The last line."""
        if not report.targets:
            self.lines.append("Nothing to lint.")
            return
        if len(report.targets) == 1 and report.targets[0].status == "error":
            return
        skipped = sum(target.skipped is not None for target in report.targets)
        targets = count(len(report.targets) - skipped, "target")
        failed = sum(target.status == "error" for target in report.targets)
        partial = sum(target.status == "partial" for target in report.targets) - skipped
        found = counts(report.summary)
        shifting = [item for target in report.targets for item in target.predictions if item.shifts]
        parts = []
        if found:
            parts.append(f"Found {found} in {targets}")
        elif failed + skipped < len(report.targets):
            parts.append(f"No misplaced dropout found in {targets}")
        unknown = sum(item.delta is None for item in shifting)
        if unknown:
            parts.append(f"Δ unknown at {count(unknown, 'norm')}")
        if failed:
            parts.append(f"{count(failed, 'target')} could not be linted")
        if partial:
            parts.append(f"{count(partial, 'target')} only partly traced")
        if skipped:
            parts.append(f"{count(skipped, 'optional target')} skipped")
        if set_aside(report.summary):
            parts.append(set_aside(report.summary))
        if found and shifting:
            worst = min(shifting, key=lambda item: worst_first(item.delta))
            if worst.delta is not None and nearness(worst.delta) < self.context.threshold:
                shown = with_interval(worst.delta, worst.interval)
                parts.append(f"worst Δ {shown} at {worst.norm}")
        style = (
            self.style.error
            if failed or report.summary.error
            else (self.style.warning if report.summary.warning or partial else self.style.good)
        )
        text = "; ".join(parts)
        self.wrap(f"{text[:1].upper()}{text[1:]}.", "", style)

    def label(self, text: str) -> str:
        """A label in its column."""
        return self.style.strong(text) + " " * max(1, LABEL - len(text))

    def entry(self, label: str, text: str, style: object = None, pattern: str | None = None) -> None:
        """A labelled text, wrapped under its column; `pattern` is where it may be broken."""
        lead = f"{INDENT}{self.label(label)}"
        width = self.context.width - len(INDENT) - LABEL
        if pattern:
            lines = fill(re.split(pattern, text), width)
        else:
            parts = text.splitlines() or [""]
            lines = [
                line for part in parts for line in textwrap.wrap(part, width, break_on_hyphens=False) or [""]
            ]
        paint = style if callable(style) else str
        for index, line in enumerate(lines):
            self.lines.append((lead if index == 0 else INDENT + " " * LABEL) + paint(line))

    def wrap(
        self, text: str, indent: str, style: object = None, *, lead: str = "", lead_width: int = 0
    ) -> None:
        """A text wrapped to the width, painted line by line."""
        paint = style if callable(style) else str
        lines = textwrap.wrap(
            "\0" * lead_width + text,
            self.context.width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        ) or [""]
        for index, line in enumerate(lines):
            body = line[len(indent) :]
            if index == 0 and lead_width:
                self.lines.append(indent + lead + paint(body[lead_width:]))
            else:
                self.lines.append(indent + paint(body))


def caret_label(finding: FindingInfo) -> str:
    """What stands behind the carets."""
    dropout = finding.dropout
    if dropout is None:
        return ""
    ratio = f", p = {dropout.p:g}" if dropout.p is not None else ""
    return f"{dropout.kind}{ratio}"


def fill(words: Sequence[str], width: int) -> list[str]:
    """Words set line by line, none broken."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
