"""What is reported of a deployed program."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dropout_lint.report.convert import place
from dropout_lint.report.schema import (
    READ,
    DropoutInfo,
    FindingInfo,
    FixInfo,
    NormInfo,
    TargetInfo,
    TraceInfo,
)
from dropout_lint.words import count, numbered

if TYPE_CHECKING:
    from dropout_lint.deployed import Program, Step
    from dropout_lint.rules.findings import ProgramFinding


def program_info(
    target: str, program: Program, findings: Iterable[ProgramFinding], notes: Sequence[str] = ()
) -> TargetInfo:
    """Everything about one program; parts whose mode the program leaves open are opaque."""
    steps = [*(step for step, _ in program.dropouts), *program.norms]
    opened = {step.name: "its mode is decided when the program runs" for step in steps if step.trains is None}
    return TargetInfo(
        target=target,
        status="partial" if opened else "ok",
        model=f"{program.form} program",
        trace=TraceInfo(method=READ, nodes=program.operations, opaque=list(opened), reasons=opened),
        findings=[_finding(finding) for finding in findings],
        notes=[*notes, _modes(program)],
    )


def _finding(finding: ProgramFinding) -> FindingInfo:
    dropout, norm = finding.dropout, finding.norm
    return FindingInfo(
        code=finding.rule.code,
        name=finding.rule.name,
        severity=finding.severity,
        message=finding.message,
        dropout=DropoutInfo(
            name=dropout.name,
            kind=dropout.kind,
            p=None if math.isnan(dropout.p) else dropout.p,
            functional=True,
            location=None,
            call=place(dropout.source),
        ),
        norm=NormInfo(name=norm.name, kind=norm.kind) if norm else None,
        path=list(finding.path),
        weights_between=None,
        width=None,
        position=None,
        delta=None,
        basis=None,
        fix=FixInfo(applicability="none", strategy=None, title=""),
        source=finding.rule.source,
    )


def _modes(program: Program) -> str:
    """One sentence: how many act in which mode, and what cannot be said."""
    dropouts = [step for step, _ in program.dropouts]
    told = [
        *_told(dropouts, True, "dropout", "on"),
        *_told(dropouts, False, "dropout", "off"),
        *_told(program.norms, True, "norm", "normalising by the batch"),
        *_told(program.norms, False, "norm", "going by stored statistics"),
    ]
    found = "; ".join(told) or "no dropout and no norm with running statistics is in it"
    return f"{found}. A program holds one mode, and layers off in it may be gone: no Δ can be predicted"


def _told(steps: Sequence[Step], trains: bool, what: str, how: str) -> list[str]:
    names = [step.name for step in steps if step.trains is trains]
    return [f"{count(len(names), what)} {how} ({numbered(names, 3)})"] if names else []
