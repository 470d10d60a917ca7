"""What the rules room hands on: findings, each with the rule that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dropout_lint.survey.facts import OF_RATIO
from dropout_lint.terms import SEVERITIES, Remedy, Severity, nearness

if TYPE_CHECKING:  # rule files are read without importing torch
    from dropout_lint.deployed import Step
    from dropout_lint.survey.placements import Facts, Placement
    from dropout_lint.trace.traced import DropoutSite, NormSite, UnusedDropout

RuleSeverity = Literal[Severity, "off"]
RULE_SEVERITIES: tuple[RuleSeverity, ...] = (*SEVERITIES, "off")


@dataclass(frozen=True)
class Mild:
    """A milder severity for findings whose Δ is at least `delta`."""

    severity: Severity
    delta: float


@dataclass(frozen=True)
class Rule:
    """One rule file.

    Attributes:
        code: `DL101`.
        name: `dropout-before-batch-norm`: the pattern, not the cure.
        severity: default severity; `off` runs only when selected by its code, and reports as `info` then.
        fix: default fix strategy (`move`, `uout`, `reduce`, `remove`, `repair`) or None.
        source: paper, section and equation.
        match: fact name → value, list of values or comparison table.
        message: one line with `{fact}` fields.
        sections: heading → Markdown text, in the order of the file.
        path: the file.
        report: `once`: of all such rules that match a dropout call, only the severest reports it; `always`:
            reported beside the others.
        precedence: among equally severe `once` rules the higher one reports; then the one with more `match`
            keys, then the lower code.
        mild: a milder severity for findings whose Δ is near 1; None where it is always the same.
    """

    code: str
    name: str
    severity: RuleSeverity
    fix: Remedy | None
    source: str
    match: Mapping[str, Any]
    message: str
    sections: Mapping[str, str]
    path: str
    report: Literal["once", "always"] = "once"
    precedence: int = 0
    mild: Mild | None = None

    @property
    def reported_severity(self) -> Severity:
        """The severity of its findings, the highest where it depends on Δ."""
        return "info" if self.severity == "off" else self.severity

    @property
    def of_place(self) -> bool:
        """Whether it finds a dropout whatever its ratio is."""
        return OF_RATIO.isdisjoint(self.match)

    def severity_of(self, facts: Facts) -> Severity:
        """The severity of a finding: that of `mild` where Δ is known and no farther from 1 than its bound, on
        the channels that the dropout feeds as well.
        """
        if self.mild is None or facts.delta is None:
            return self.reported_severity
        worst = min(nearness(d) for d in (facts.delta, facts.fed_delta) if d is not None)
        return self.mild.severity if worst >= self.mild.delta else self.reported_severity


@dataclass(frozen=True)
class Finding:
    """One placement (or one norm, for DL501) that a rule names."""

    rule: Rule
    severity: Severity
    message: str
    dropout: DropoutSite | UnusedDropout | None
    norm: NormSite | None
    path: tuple[str, ...]
    facts: Facts | None
    placement: Placement | None = None


@dataclass(frozen=True)
class ProgramFinding:
    """A dropout of a deployed program that a rule names, and the norm that it was compared with.

    `path` names both where the dropout's data reach the norm, otherwise the dropout alone.
    """

    rule: Rule
    severity: Severity
    message: str
    dropout: Step
    norm: Step | None
    path: tuple[str, ...]
