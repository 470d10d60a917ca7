"""A table for a pull request or a job summary, in GitHub's Markdown."""

from __future__ import annotations

from dropout_lint.report.context import Context
from dropout_lint.report.group import Group, grouped
from dropout_lint.report.locations import plain_spot, primary
from dropout_lint.report.schema import Report, TargetInfo
from dropout_lint.report.words import counts, delta_range, opening, set_aside
from dropout_lint.words import count, numbered, severity_of_shift, shorten_path


def render(report: Report, context: Context) -> str:
    """A heading with the counts, a table for each target that has findings, the rules folded below."""
    found = counts(report.summary)
    failed = [target for target in report.targets if target.status == "error"]
    verdict = found or (
        "nothing could be linted" if len(failed) == len(report.targets) else "no misplaced dropout"
    )
    lines = [f"### dropout-lint: {verdict}", ""]
    codes: dict[str, None] = {}
    for target in report.targets:
        lines += section(target, context)
        codes.update(dict.fromkeys(finding.code for finding in target.findings))
    for ignore in (entry for target in report.targets for entry in target.unused_ignores):
        lines.append(f"- {cell(ignore.told)} at {code(plain_spot(ignore.place))}")
    for entry in report.stale_baseline:
        name = code(entry.dropout or entry.norm or "")
        lines.append(f"- stale baseline entry: {code(entry.target)} {entry.code} {name}")
    if lines[-1].startswith("- "):
        lines.append("")
    for rule in codes:
        why = opening(context.section(rule, "Why it hurts"), 600)
        if why:
            advice = opening(context.section(rule, "Use instead"), 600)
            name = context.rules[rule].name
            lines += [f"<details><summary>{rule} {name}</summary>", "", why, "", advice, "", "</details>", ""]
    if set_aside(report.summary):
        lines += [f"{set_aside(report.summary)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def section(target: TargetInfo, context: Context) -> list[str]:
    """One target: what could not be seen, and its table; nothing where there is nothing to say."""
    if target.status == "error":
        hint = f" ({cell(target.help)})" if target.help else ""
        return [f"**{code(target.target)}** could not be linted: {cell(target.error or '')}{hint}", ""]
    if target.skipped is not None:
        return [f"**{code(target.target)}** was skipped, it is optional: {cell(target.skipped)}", ""]
    lines = []
    if target.trace and target.trace.opaque:
        lines += [
            f"**{code(target.target)}** is partly traced: nothing is known about "
            f"{cell(numbered(target.trace.opaque))}.",
            "",
        ]
    if not target.findings:
        return lines
    lines += [
        f"**{code(target.target)}**",
        "",
        "| | rule | where | path | Δ | fix |",
        "|---|---|---|---|---|---|",
    ]
    lines += [row(group, context) for group in grouped(target.findings)]
    return [*lines, ""]


def row(group: Group, context: Context) -> str:
    """One group of findings as a row."""
    finding = group.first
    place = primary(finding)
    many = f" ({len(group.findings)} times)" if len(group.findings) > 1 else ""
    if len(finding.norms) > 1:
        many = f" and {count(len(finding.norms) - 1, 'more norm')}"
    where = (code(plain_spot(place)) if place else code(", ".join(group.names[:1]))) + many
    delta = delta_range(group.findings)
    word = f" {severity_of_shift(finding.delta, context.threshold)}" if delta else ""
    path = " → ".join(code(name) for name in shorten_path(finding.path))
    fix = cell(finding.fix.title) if finding.fix.applicability != "none" else ""
    return (
        f"| {finding.severity} | {finding.code} {finding.name} | {where} | {path} | {delta}{word} | {fix} |"
    )


def code(text: str) -> str:
    """`text` as code that cannot end its table cell."""
    return "`" + cell(text.replace("`", "'")) + "`" if text else ""


def cell(text: str) -> str:
    """`text` on one line, its bars and angle brackets escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
