"""Findings as continuous integration shows them: one line of source once, installed packages in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dropout_lint.report.group import Group, badness
from dropout_lint.report.installed import in_installed
from dropout_lint.report.locations import primary
from dropout_lint.report.schema import FindingInfo, Place, Report
from dropout_lint.words import count, numbered


@dataclass(frozen=True)
class Merged:
    """Findings of one rule and severity on one line of source, in whatever targets.

    Attributes:
        group: the findings.
        targets: the targets that have them.
        more: how many other findings in installed packages it stands for.
    """

    group: Group
    targets: tuple[str, ...]
    more: int = 0

    @property
    def place(self) -> Place | None:
        """The line."""
        return primary(self.group.first)

    @property
    def where(self) -> str:
        """Which modules, or how many, and of which targets: `7 modules of net:Net and wide:Net`."""
        names = self.group.names
        modules = names[0] if len(names) == 1 else count(len(names), "module") if names else ""
        return f"{modules} of {numbered(self.targets, 2)}" if modules else numbered(self.targets, 2)

    @property
    def rest(self) -> str:
        """What else it stands for, "" for nothing."""
        if not self.more:
            return ""
        return f"and {count(self.more, 'more finding')} in installed packages (--own-code leaves them out)"


def merged(report: Report) -> list[Merged]:
    """The findings of a report, in the order of targets and data, those in installed packages last."""
    together: dict[object, list[tuple[FindingInfo, str]]] = {}
    for target in report.targets:
        for index, finding in enumerate(target.findings):
            place = primary(finding)
            # what stands on no line is told for each target
            where = (place.file, place.line, place.column) if place else (target.target, index)
            key = (finding.code, where, finding.dropout and finding.dropout.kind)
            together.setdefault(key, []).append((finding, target.target))
    lines = [
        Merged(
            Group(tuple(finding for finding, _ in members)),
            tuple(dict.fromkeys(target for _, target in members)),
        )
        for members in together.values()
    ]
    own = [line for line in lines if not in_installed(line.group.first)]
    return [*own, *_folded([line for line in lines if in_installed(line.group.first)])]


def _folded(lines: Sequence[Merged]) -> list[Merged]:
    """The worst of some lines, for all of them."""
    if not lines:
        return []
    worst = min(lines, key=lambda line: badness(line.group.first))
    return [replace(worst, more=sum(len(line.group.findings) for line in lines if line is not worst))]
