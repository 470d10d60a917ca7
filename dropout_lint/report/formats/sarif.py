"""SARIF 2.1.0 (OASIS Standard), as code scanning services read it: rules, results, fixes, suppressions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from dropout_lint.config.installed import is_installed, short
from dropout_lint.report.context import Context
from dropout_lint.report.group import names_of
from dropout_lint.report.identity import key_of
from dropout_lint.report.locations import home, primary, secondary, span
from dropout_lint.report.repository import path_in_repository, root_of
from dropout_lint.report.schema import FindingInfo, FixInfo, Place, Report, SuppressedInfo, TargetInfo
from dropout_lint.report.words import opening, untraced
from dropout_lint.words import with_interval

if TYPE_CHECKING:
    from dropout_lint.rules.findings import Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "info": "note", "off": "none"}
BASE = "%SRCROOT%"
PACKAGES = "%PACKAGES%"
Json = dict[str, Any]


def render(report: Report, context: Context) -> str:
    """The log with one run."""
    rules = sorted(context.rules.values(), key=lambda rule: rule.code)
    index = {rule.code: number for number, rule in enumerate(rules)}
    root = root_of()
    results = []
    for target in report.targets:
        results += [result(finding, target, index, root) for finding in target.findings]
        results += [suppressed(entry, target, index, root) for entry in target.suppressed]
    log: Json = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": report.tool.name,
                        "version": report.tool.version,
                        "semanticVersion": report.tool.version,
                        "rules": [descriptor(rule) for rule in rules],
                    }
                },
                "invocations": [invocation(report)],
                "originalUriBaseIds": {
                    BASE: {"description": {"text": "the root of the repository"}},
                    PACKAGES: {"description": {"text": "where Python packages are installed"}},
                },
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }
    return msgspec.json.format(msgspec.json.encode(log), indent=2).decode() + "\n"


def descriptor(rule: Rule) -> Json:
    """A rule's metadata, from its file."""
    text = "\n\n".join(f"## {heading}\n\n{body.strip()}" for heading, body in rule.sections.items())
    what = opening(rule.sections.get("What it does", "")) or rule.name.replace("-", " ")
    return {
        "id": rule.code,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": rule.name.replace("-", " ")},
        "fullDescription": {"text": what},
        "help": {
            "text": f"{what} More: dropout-lint rule {rule.code}",
            "markdown": f"# {rule.code} {rule.name}\n\n{text}",
        },
        "defaultConfiguration": {"level": LEVELS[rule.severity], "enabled": rule.severity != "off"},
        "properties": {"tags": ["pytorch", "dropout"], "source": rule.source},
    }


def result(
    finding: FindingInfo, target: TargetInfo, index: Mapping[str, int], root: Path, aside: str = ""
) -> Json:
    """One finding; `aside` says what takes it aside."""
    names = names_of(finding)
    name = names[0] if names else ""
    entry: Json = {
        "ruleId": finding.code,
        "level": LEVELS[finding.severity],
        "message": {"text": text_of(finding, names)},
        "partialFingerprints": {"dropoutLint/v1": fingerprint(finding, target, aside)},
        "properties": {
            "target": target.target,
            "path": finding.path,
            "delta": finding.delta,
            "interval": finding.interval,
            "basis": finding.basis,
            "position": finding.position,
        },
    }
    if finding.norms:
        entry["properties"]["norms"] = finding.norms
    if finding.code in index:
        entry["ruleIndex"] = index[finding.code]
    place = primary(finding) or home(target.target)
    logical = [{"fullyQualifiedName": name, "kind": "object"} for name in names]
    location: Json = {}
    if place:
        location["physicalLocation"] = physical(place, root, name)
    if logical:
        location["logicalLocations"] = logical
    if location:
        entry["locations"] = [location]
    other = secondary(finding)
    if other is not None:
        where, word = other
        entry["relatedLocations"] = [
            {"id": 1, "physicalLocation": physical(where, root, name), "message": {"text": f"{word} here"}}
        ]
    fixes = changes(finding.fix, root)
    if fixes:
        entry["fixes"] = [fixes]
    return entry


def text_of(finding: FindingInfo, names: Sequence[str]) -> str:
    """The message, with the names that it is about where it does not say them."""
    if len(finding.norms) > 1:
        shifts = [f"{norm.name} ({with_interval(norm.delta, norm.interval)})" for norm in finding.norms]
        return f"{finding.message}; Δ at {len(shifts)} norms: {', '.join(shifts)}"
    untold = [name for name in names if name not in finding.message]
    return f"{finding.message} ({untold[0]})" if untold else finding.message


def suppressed(entry: SuppressedInfo, target: TargetInfo, index: Mapping[str, int], root: Path) -> Json:
    """A finding that an ignore comment or the baseline takes aside."""
    suppression: Json = {"kind": "inSource" if entry.by == "source" else "external"}
    if entry.reason:
        suppression["justification"] = entry.reason
    told = result(entry.finding, target, index, root, entry.by if entry.finding.norms else "")
    return {**told, "suppressions": [suppression]}


def fingerprint(finding: FindingInfo, target: TargetInfo, aside: str = "") -> str:
    """A hash of target, code and qualified names, the same when lines move.

    One about the model's norms goes by its code alone, and by what takes it aside where something does: which
    norm is the worst may change.
    """
    key = (finding.code, "", aside) if finding.norms else key_of(finding)
    text = "\0".join((target.target, *key))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def physical(place: Place, root: Path, name: str | None = None) -> Json:
    """A place, relative to the repository where it lies in it, with where the code of dropout `name` ends."""
    region: Json = {"startLine": place.line, "startColumn": place.column}
    columns = span(place, name)
    if columns is not None:
        start, end = columns
        region = {"startLine": place.line, "startColumn": start, "endLine": place.line, "endColumn": end}
    return {"artifactLocation": artifact(place.file, root), "region": region}


def artifact(file: str, root: Path) -> Json:
    """A file, relative to the repository, or to where packages are installed if it lies there."""
    inside = path_in_repository(file, root)
    if inside is None and is_installed(file):
        return {"uri": quote(short(file)), "uriBaseId": PACKAGES}
    if inside is None:
        inside = os.path.relpath(Path(file).absolute(), root)
    return {"uri": Path("/", inside).as_uri().removeprefix("file:///"), "uriBaseId": BASE}


def changes(fix: FixInfo, root: Path) -> Json | None:
    """A fix as replacements of whole lines, None where it has no edits of files."""
    if not fix.edits:
        return None
    files: dict[str, list[Json]] = {}
    for edit in fix.edits:
        files.setdefault(edit.file, []).append(
            {
                "deletedRegion": {
                    "startLine": edit.first,
                    "startColumn": 1,
                    "endLine": edit.last + 1,
                    "endColumn": 1,
                },
                "insertedContent": {
                    "text": edit.text if edit.text.endswith("\n") or not edit.text else edit.text + "\n"
                },
            }
        )
    return {
        "description": {"text": fix.title or "apply the fix"},
        "artifactChanges": [
            {"artifactLocation": artifact(file, root), "replacements": replacements}
            for file, replacements in files.items()
        ],
    }


def invocation(report: Report) -> Json:
    """Whether the tool could do its job, and what it could not."""
    notes = [
        {"level": "error", "message": {"text": f"{target.target}: {target.error}"}}
        for target in report.targets
        if target.status == "error"
    ]
    notes += [
        {"level": "warning", "message": {"text": text}} for text in map(untraced, report.targets) if text
    ]
    entry: Json = {"executionSuccessful": all(target.status != "error" for target in report.targets)}
    if notes:
        entry["toolExecutionNotifications"] = notes
    return entry
