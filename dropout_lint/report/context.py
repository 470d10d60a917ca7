"""What a format may need besides the report: how to draw, and the texts of the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropout_lint.report.drawing import Drawing
    from dropout_lint.rules.findings import Rule


@dataclass(frozen=True)
class Context:
    """How to render.

    Attributes:
        rules: the rules by code, for the "why" and "what to do" texts.
        color: ANSI colours.
        width: columns to fill.
        show_predictions: list Δ at every norm.
        quiet: one line a finding.
        verbose: say more.
        threshold: the Δ below which a shift counts.
        drawings: the model of each target as a drawing, for html.
        errors_told: the reader has seen on stderr which targets could not be linted, and why.
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)
    color: bool = False
    width: int = 80
    show_predictions: bool = False
    quiet: bool = False
    verbose: bool = False
    threshold: float = 0.95
    drawings: Mapping[str, Drawing] = field(default_factory=dict)
    errors_told: bool = False

    def section(self, code: str, heading: str) -> str:
        """The Markdown text of a section of a rule, "" where the rule or the section is not known."""
        rule = self.rules.get(code)
        return rule.sections.get(heading, "") if rule else ""
