"""Findings about norms alone (DL501) are told once for a model, with a table of its norms."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dropout_lint.report.schema import FindingInfo, NormShiftInfo, SuppressedInfo, TargetInfo
from dropout_lint.terms import worst_first


def told_once(target: TargetInfo) -> TargetInfo:
    """A target whose findings about norms alone are one for each rule, where the first of them stood."""
    aside: list[SuppressedInfo] = []
    for how in dict.fromkeys((entry.by, entry.reason) for entry in target.suppressed):
        taken = [entry.finding for entry in target.suppressed if (entry.by, entry.reason) == how]
        aside += [SuppressedInfo(by=how[0], finding=one, reason=how[1]) for one in _together(taken)]
    return msgspec.structs.replace(target, findings=_together(target.findings), suppressed=aside)


def _together(findings: Sequence[FindingInfo]) -> list[FindingInfo]:
    groups: dict[object, list[FindingInfo]] = {}
    for index, finding in enumerate(findings):
        about_norms = finding.dropout is None and finding.norm is not None
        key = (finding.code, finding.severity, finding.fix.title) if about_norms else index
        groups.setdefault(key, []).append(finding)
    return [_one(members) if members[0].dropout is None else members[0] for members in groups.values()]


def _one(members: Sequence[FindingInfo]) -> FindingInfo:
    """The finding whose Δ is farthest from 1, with all their norms."""
    ordered = sorted(members, key=lambda finding: worst_first(finding.delta))
    norms = [
        NormShiftInfo(
            name=finding.norm.name,
            kind=finding.norm.kind,
            delta=finding.delta,
            interval=finding.interval,
            delta_initial=finding.delta_initial,
        )
        for finding in ordered
        if finding.norm is not None
    ]
    return msgspec.structs.replace(ordered[0], norms=norms)
