"""One line for a line of source, `file:line:col: severity CODE message`, as editors and grep like it."""

from __future__ import annotations

from dropout_lint.report.context import Context
from dropout_lint.report.locations import spot
from dropout_lint.report.merged import merged
from dropout_lint.report.schema import Report


def render(report: Report, context: Context) -> str:
    """The lines, in the order of the targets and findings; those in installed packages as one."""
    lines = []
    for item in merged(report):
        finding = item.group.first
        where = spot(item.place) or f"{item.targets[0]}:"
        text = f"{finding.severity} {finding.code} {finding.message} ({item.where})"
        lines.append(f"{where}: {text}{f', {item.rest}' if item.rest else ''}")
    for target in report.targets:
        for ignore in target.unused_ignores:
            lines.append(f"{spot(ignore.place)}: {ignore.told}")
    for stale in report.stale_baseline:
        lines.append(
            f"{stale.target}:: stale baseline entry {stale.code} {stale.dropout or stale.norm or ''}".rstrip()
        )
    return "".join(line + "\n" for line in lines)
