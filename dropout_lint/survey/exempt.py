"""Shifts that no finding tells of, because their dropouts stand where the papers' guideline puts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dropout_lint.terms import nearness

if TYPE_CHECKING:
    from dropout_lint.prediction.shifts import NormShift
    from dropout_lint.rules.findings import Finding
    from dropout_lint.survey.placements import Survey


def exempt_shifts(survey: Survey, findings: Sequence[Finding], threshold: float) -> list[NormShift]:
    """The norms whose Δ the dropouts at the guideline's places alone take beyond `threshold`.

    Rules let such a dropout pass whatever Δ is (`at_guideline`, `at_branch_end`). One that some rule found
    all the same is told of there, and noise on a whole branch has a rule of its own.
    """
    told = {finding.dropout.name for finding in findings if finding.dropout is not None}
    exempt = {
        place.dropout.name
        for place in survey.placements
        if place.norm is not None
        and (place.facts.at_guideline or place.facts.at_branch_end)
        and not place.facts.whole_branch
    } - told
    return [
        shift
        for shift in survey.shifts
        if shift.shifts
        and shift.delta != 0
        and (alone := shift.left_by(exempt)) is not None
        and nearness(alone) < threshold
    ]
