"""One line a finding, `file:line:col: CODE message`, as editors and grep like it."""

from __future__ import annotations

from dropout_lint.report.context import Context
from dropout_lint.report.locations import primary, spot
from dropout_lint.report.schema import Report


def render(report: Report, context: Context) -> str:
    """The lines, in the order of the targets and findings."""
    lines = []
    for target in report.targets:
        for finding in target.findings:
            name = f" ({finding.dropout.name})" if finding.dropout else ""
            where = spot(primary(finding)) or f"{target.target}:"
            lines.append(f"{where}: {finding.code} {finding.message}{name}")
        for ignore in target.unused_ignores:
            lines.append(f"{spot(ignore.place)}: {ignore.told}")
    for stale in report.stale_baseline:
        lines.append(
            f"{stale.target}:: stale baseline entry {stale.code} {stale.dropout or stale.norm or ''}".rstrip()
        )
    return "".join(line + "\n" for line in lines)
