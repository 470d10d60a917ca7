"""What the other rooms say about a trace: predicted Δ and findings. The fixer asks this after each thought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dropout_lint.noise.types import Prediction
from dropout_lint.rules.types import Finding
from dropout_lint.trace.types import Trace


@dataclass(frozen=True)
class Verdict:
    """Predicted Δ and findings of one trace."""

    prediction: Prediction
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> float | None:
        """Lowest predicted Δ over the norms that shift, None without one."""
        deltas = [shift.delta for shift in self.prediction.norms if shift.shifts]
        return min(deltas) if deltas else None

    def about(self, names: frozenset[str]) -> list[Finding]:
        """The findings about dropouts with these names."""
        return [finding for finding in self.findings if finding.dropout is not None and finding.dropout.name in names]


Judge = Callable[[Trace], Verdict]


def default_judge(trace: Trace) -> Verdict:
    """Judge by the built-in rules with their default thresholds."""
    return judge_with(())(trace)


def judge_with(
    extra_rules: Sequence[str] = (), *, select: Sequence[str] = (), ignore: Sequence[str] = ()
) -> Judge:
    """A judge with a project's own rules, and with the codes that the user asked for.

    Args:
        extra_rules: folders of rule files beside the built-in ones.
        select: codes or prefixes to keep; all that are not off where it is empty.
        ignore: codes or prefixes to leave out.
    """
    from dropout_lint.noise import predict
    from dropout_lint.rules import load_rules
    from dropout_lint.survey import survey

    rules = load_rules(extra_rules)

    def judge(trace: Trace) -> Verdict:
        prediction = predict(trace)
        found = rules.match(survey(trace, prediction))
        return Verdict(prediction, wanted(found, select, ignore))

    return judge


def wanted(findings: Sequence[Finding], select: Sequence[str], ignore: Sequence[str]) -> tuple[Finding, ...]:
    """The findings that `select` and `ignore` leave."""
    return tuple(
        finding
        for finding in findings
        if finding.severity != "off"
        and (not select or finding.rule.code.startswith(tuple(select)))
        and not (ignore and finding.rule.code.startswith(tuple(ignore)))
    )
