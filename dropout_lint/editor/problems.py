"""What is told of a project, each at its place: findings, targets that fail, settings that are wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dropout_lint.config.settings import holds
from dropout_lint.editor.session import Project
from dropout_lint.errors import DropoutLintError
from dropout_lint.report.installed import in_installed
from dropout_lint.report.locations import home, primary, secondary, source, span, spot
from dropout_lint.report.merged import Merged, merged
from dropout_lint.report.outcome import Outcome
from dropout_lint.report.schema import FindingInfo, Place
from dropout_lint.report.words import untraced
from dropout_lint.rules.findings import Rule
from dropout_lint.terms import Severity

FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+)', re.MULTILINE)
TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")


@dataclass(frozen=True)
class Problem:
    """What is told at one place.

    Attributes:
        place: the line; its file is relative to the current folder where it lies in it.
        columns: from 1, in characters, the last excluded; None for the whole line.
        item: the findings that it tells of, None where it tells of none.
        rule: theirs.
        other: the other line of the dropout, with what happens there.
        needless: what it stands at does nothing.
    """

    place: Place
    severity: Severity
    message: str
    columns: tuple[int, int] | None = None
    item: Merged | None = None
    rule: Rule | None = None
    other: tuple[Place, str] | None = None
    needless: bool = False


def problems_of(project: Project) -> list[Problem]:
    """All of them, the findings first."""
    report = project.run.report
    found = [_finding(item, project) for item in merged(report)]
    found += [
        _failure(outcome, project) for outcome in project.run.outcomes if outcome.info.status == "error"
    ]
    for target in report.targets:
        if text := untraced(target):
            found.append(Problem(_home(target.target, project), "info", text))
        found += [
            Problem(ignore.place, "warning", ignore.told, needless=True) for ignore in target.unused_ignores
        ]
    for stale in report.stale_baseline:
        name = stale.dropout or stale.norm or ""
        text = f"{stale.target}: {stale.code} {name} is in the baseline and no longer occurs"
        found.append(Problem(_home(stale.target, project), "warning", text))
    return found


def wrong_settings(file: str, problem: DropoutLintError) -> Problem:
    """What is wrong with the settings in `file`, at the line that it names."""
    line = TOML_LINE.search(problem.message)
    return Problem(
        Place(file=file, line=int(line[1]) if line else 1), "error", _told(problem.message, problem.hint)
    )


def fixable(problem: Problem, project: Project) -> Iterator[tuple[str, FindingInfo]]:
    """The models whose source `dropout-lint fix` would write for a problem, each with its finding."""
    if problem.item is None:
        return
    for target in project.run.report.targets:
        for finding in target.findings:
            if finding.fix.by == "dropout-lint fix" and finding in problem.item.group.findings:
                yield target.target, finding
                break


def _finding(item: Merged, project: Project) -> Problem:
    first = item.group.first
    place, other = primary(first), secondary(first)
    text = f"{first.message} ({item.where})"
    if place is None or in_installed(first):
        where = f"{spot(place)}: " if place else ""
        rest = f", {item.rest}" if item.rest else ""
        place, columns, text = _home(item.targets[0], project), None, f"{where}{text}{rest}"
    else:
        columns = span(place, first.dropout.name if first.dropout else None)
    rule = next((rule for rule in project.rules if rule.code == first.code), None)
    return Problem(place, first.severity, text, columns, item, rule, other)


def _failure(outcome: Outcome, project: Project) -> Problem:
    """A target that could not be linted, at the last line of the project that its error went through."""
    info = outcome.info
    here = Path.cwd()
    frames = [
        Place(file=str(Path(match["file"]).relative_to(here)), line=int(match["line"]))
        for match in FRAME.finditer(outcome.details or "")
        if Path(match["file"]).is_relative_to(here)
    ]
    place = frames[-1] if frames else _home(info.target, project)
    return Problem(place, "error", _told(f"{info.target}: {info.error}", info.help))


def _told(message: str, hint: str | None) -> str:
    return f"{message}\n{hint}" if hint else message


def _home(target: str, project: Project) -> Place:
    """The file that a target names, else where the settings name it."""
    own = home(target)
    if own is not None:
        return own
    settings = project.loaded
    name = next((name for name in settings.settings.target_names() if holds(name, target)), target)
    file = str(settings.file or settings.root / "pyproject.toml")
    lines = source(file)
    return Place(file=file, line=next((number for number, line in enumerate(lines, 1) if name in line), 1))
