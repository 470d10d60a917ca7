"""Findings in installed packages, whose code is not the reader's to change."""

from __future__ import annotations

from dropout_lint.config.installed import is_installed
from dropout_lint.report.schema import FindingInfo


def in_installed(finding: FindingInfo) -> bool:
    """Whether a finding's dropout is both made and called in installed packages; not where nobody knows."""
    if finding.dropout is None:
        return False
    places = [place for place in (finding.dropout.call, finding.dropout.location) if place is not None]
    return bool(places) and all(is_installed(place.file) for place in places)
