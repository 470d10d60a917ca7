"""What the other rooms say about a trace: predicted Δ and findings. The fixer asks after each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from dropout_lint.prediction.shifts import Prediction
from dropout_lint.rules import RuleSet
from dropout_lint.rules.findings import Finding
from dropout_lint.trace.traced import Trace


@dataclass(frozen=True)
class Verdict:
    """Predicted Δ and findings of one trace.

    Attributes:
        prediction: Δ at every norm.
        find: what the rules find; it surveys the trace, which costs as much again as the prediction.
    """

    prediction: Prediction
    find: Callable[[], tuple[Finding, ...]] = field(repr=False, compare=False)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules find, worked out when it is first asked for."""
        return self.find()

    @property
    def worst(self) -> float | None:
        """Lowest predicted Δ over the norms that shift, None where none is known."""
        deltas = [s.delta for s in self.prediction.norms if s.shifts and not math.isnan(s.delta)]
        return min(deltas) if deltas else None

    def about(self, names: frozenset[str]) -> list[Finding]:
        """The findings about dropouts with these names."""
        return [
            finding
            for finding in self.findings
            if finding.dropout is not None and finding.dropout.name in names
        ]


Judge = Callable[[Trace], Verdict]


def default_judge(trace: Trace) -> Verdict:
    """Judge by the built-in rules with their default thresholds."""
    return judge_with()(trace)


def judge_with(
    rules: RuleSet | None = None,
    *,
    select: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    threshold: float = 0.95,
) -> Judge:
    """A judge with a project's own rules and selection.

    Args:
        rules: the rules; None for the built-in ones.
        select: codes, names or prefixes to keep; None for all that are not off.
        ignore: the same, to leave out.
        threshold: Δ below which a shift counts.
    """
    from dropout_lint.prediction import predict
    from dropout_lint.rules import load_rules
    from dropout_lint.survey.surveyor import survey

    known = rules if rules is not None else load_rules()

    def judge(trace: Trace) -> Verdict:
        prediction = predict(trace)

        def find() -> tuple[Finding, ...]:
            facts = survey(trace, prediction)
            return known.match(facts, select=select or None, ignore=ignore, threshold=threshold)

        return Verdict(prediction, find)

    return judge
