"""Annotations of GitHub Actions, which shows ten of a level: the worst come first, the rest are counted.

The syntax is that of "Workflow commands for GitHub Actions", section "Setting an error message".
"""

from __future__ import annotations

from dropout_lint.report.context import Context
from dropout_lint.report.installed import in_installed
from dropout_lint.report.locations import spot
from dropout_lint.report.merged import Merged, merged
from dropout_lint.report.repository import path_in_repository, root_of
from dropout_lint.report.schema import Report
from dropout_lint.report.words import SEVERITY_PLURALS, delta_range
from dropout_lint.terms import SEVERITIES, worst_first
from dropout_lint.words import count, numbered

LIMIT = 10
COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def render(report: Report, context: Context) -> str:
    """The annotations, at most ten of each level."""
    lines: dict[str, list[str]] = {severity: [] for severity in SEVERITIES}
    for target in report.targets:
        if target.status == "error":
            lines["error"].append(command("error", f"{target.target}: {target.error}", title="dropout-lint"))
        elif target.status == "partial" and target.trace:
            text = f"{target.target}: could not trace {numbered(target.trace.opaque)}"
            lines["warning"].append(command("warning", text, title="dropout-lint"))
    found = merged(report)
    found.sort(key=lambda item: worst_first(item.group.first.delta))
    for item in found:
        lines[item.group.first.severity].append(annotation(item))
    for target in report.targets:
        for ignore in target.unused_ignores:
            file = path_in_repository(ignore.place.file)
            line = ignore.place.line if file else None
            lines["warning"].append(
                command("warning", ignore.told, file=file, line=line, title="dropout-lint")
            )
    lines["warning"] += [
        command(
            "warning",
            f"{entry.target}: {entry.code} of the baseline no longer occurs ({entry.dropout or entry.norm})",
            title="dropout-lint",
        )
        for entry in report.stale_baseline
    ]
    shown: list[str] = []
    for severity in SEVERITIES:
        told = lines[severity]
        if len(told) > LIMIT:
            rest = count(len(told) - LIMIT + 1, "more " + severity, "more " + SEVERITY_PLURALS[severity])
            told = [
                *told[: LIMIT - 1],
                command(
                    COMMANDS[severity], f"{rest}: run dropout-lint for all of them", title="dropout-lint"
                ),
            ]
        shown += told
    return "".join(line + "\n" for line in shown)


def annotation(item: Merged) -> str:
    """The annotation of one line of source."""
    group, place = item.group, item.place
    finding = group.first
    text = f"{finding.severity}: {finding.message}\nin {item.where}"
    if len(group.names) > 1:
        text += f": {numbered(group.names_without_line)}"
    if delta_range(group.findings):
        text += f"\nΔ {delta_range(group.findings)}"
    if finding.fix.title:
        text += f"\nfix: {finding.fix.title}"
    if item.rest:
        text += f"\n{item.rest}"
    file = path_in_repository(place.file, root_of()) if place and not in_installed(finding) else None
    if place and not file:
        text += f"\nat {spot(place)}"
    return command(
        COMMANDS[finding.severity],
        text,
        file=file,
        line=place.line if place and file else None,
        col=place.column if place and file else None,
        title=f"{finding.code} {finding.name}",
    )


def command(name: str, text: str, **properties: object) -> str:
    """One workflow command, its special characters escaped."""
    given = ",".join(
        f"{key}={escape(str(value), ':,')}" for key, value in properties.items() if value is not None
    )
    return f"::{name} {given}::{escape(text)}"


def escape(text: str, further: str = "") -> str:
    """Percent-encode what ends a command or a property."""
    return "".join(f"%{ord(char):02X}" if char in "%\r\n" + further else char for char in text)
