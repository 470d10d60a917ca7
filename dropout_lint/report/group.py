"""Findings that say the same: one rule, one source line, many modules (a block that occurs 58 times)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dropout_lint.report.locations import primary
from dropout_lint.report.schema import FindingInfo
from dropout_lint.terms import SEVERITIES, nearness, worst_first


@dataclass(frozen=True)
class Group:
    """Findings with the same rule, severity, source line, kind of dropout and kind of fix.

    The first stands for all. Their drop ratios may differ, as those of stochastic depth do from block to
    block. A finding about norms alone is a group of its own.
    """

    findings: tuple[FindingInfo, ...]

    @property
    def first(self) -> FindingInfo:
        """The severest finding, of equals the one whose Δ is farthest from 1."""
        return min(self.findings, key=badness)

    @property
    def names(self) -> list[str]:
        """The dropouts (or norms, where there is no dropout), each once."""
        return list(dict.fromkeys(name for finding in self.findings for name in names_of(finding)))

    @property
    def ratios(self) -> str:
        """`p = 0.01 to 0.2`, "" where all have the same."""
        known = {finding.dropout.p for finding in self.findings if finding.dropout}
        ratios = sorted(p for p in known if p is not None)
        return f"p = {ratios[0]:g} to {ratios[-1]:g}" if len(ratios) > 1 else ""

    @property
    def names_without_line(self) -> list[str]:
        """The names where the line is told beside them: a functional dropout's need not repeat it."""
        return [name.partition("@")[0] or name for name in self.names]


def badness(finding: FindingInfo) -> tuple[int, float]:
    """Orders findings, the worst first: by severity, then by Δ."""
    return SEVERITIES.index(finding.severity), worst_first(finding.delta)


def names_of(finding: FindingInfo) -> list[str]:
    """The dropout that a finding is about, or the norms."""
    if finding.dropout:
        return [finding.dropout.name]
    if finding.norms:
        return [norm.name for norm in finding.norms]
    return [finding.norm.name] if finding.norm else []


def improves(finding: FindingInfo) -> bool:
    """Whether the fix brings Δ nearer to 1 by what two decimals show; with other dropouts left it may not."""
    before, after = finding.delta, finding.fix.delta_after
    return before is not None and after is not None and nearness(after) - nearness(before) > 0.005


def grouped(findings: Sequence[FindingInfo]) -> list[Group]:
    """Groups, the severest first, else in the order of the data."""
    together: dict[object, list[FindingInfo]] = {}
    for index, finding in enumerate(findings):
        place = primary(finding)
        where: object = (place.file, place.line) if place else index
        if place is None and finding.dropout is not None and len(finding.path) < 2:
            where = None  # a dropout that nothing calls is like the next
        kind = finding.dropout.kind if finding.dropout else None
        # what holds for one holds for all: an LSTM's own dropout cannot be moved as one beside it can
        fix = finding.fix
        key = (finding.code, where, kind, fix.applicability, fix.strategy, fix.by)
        together.setdefault(key, []).append(finding)
    groups = [Group(tuple(members)) for members in together.values()]
    return sorted(groups, key=lambda group: SEVERITIES.index(group.first.severity))
