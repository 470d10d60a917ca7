"""One setting, a network with its p: what the tool said of it, and the test errors of its arms."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dropout_lint.terms import nearness
from dropout_lint.words import severity_of_shift

from .subjects import Subject
from .tool import Checked, Fix
from .work import ARMS, FIXES, Arm, Job, Work


class Mean(NamedTuple):
    """A mean over seeds and its standard error, in points of test error."""

    value: float
    error: float
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether it is more than two standard errors from 0; with less than three seeds nothing is."""
        return self.seeds > 2 and abs(self.value) > 2 * self.error

    def __str__(self) -> str:
        return self._text(f"{self.value:.2f}")

    @property
    def signed(self) -> str:
        """For differences; bold where it is clear."""
        text = self._text(f"{self.value:+.2f}")
        return f"**{text}**" if self.clear else text

    def _text(self, value: str) -> str:
        if self.seeds < 2:
            return f"{value} (one seed)" if self.seeds else "–"
        return f"{value} ± {self.error:.2f}"


def mean(values: Sequence[float]) -> Mean:
    """Over seeds."""
    if not values:
        return Mean(float("nan"), float("nan"), 0)
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Mean(statistics.fmean(values), error, len(values))


def farthest(deltas: Sequence[float | None]) -> float:
    """The Δ that is farthest from 1, as a ratio; above 1 it counts as its inverse."""
    return min((nearness(d) for d in deltas if d), default=1.0)


@dataclass
class Row:
    """One setting.

    Attributes:
        fix: what `fix --write` did by itself, uout: what it did when asked for Uout, where it left findings.
        errors: test error in per cent by arm and seed; `none` is the same for every p.
        measured: the Δ farthest from 1 of the trained network as written, by seed.
    """

    subject: Subject
    p: float
    fix: Fix
    uout: Fix | None = None
    errors: dict[Arm, dict[int, float]] = field(default_factory=dict)
    measured: dict[int, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Names its diff."""
        return f"{self.subject.name}-{self.p:g}"

    @property
    def predicted(self) -> float:
        """The predicted Δ farthest from 1, from shapes alone."""
        return worst(self.fix.before)

    @property
    def trained(self) -> float:
        """The measured Δ farthest from 1, mean over seeds."""
        return mean(list(self.measured.values())).value

    @property
    def word(self) -> str:
        """The report's word for it."""
        return severity_of_shift(self.predicted)

    @property
    def by_fix(self) -> Arm:
        """The arm of the fix: `uout` where nothing is written without being asked."""
        return "uout" if self.uout and not self.fix.diff else "fixed"

    @property
    def written(self) -> Fix:
        """The fix that was retrained, by itself where it wrote something."""
        return self.uout if self.uout and not self.fix.diff else self.fix

    def of(self, arm: Arm) -> Mean:
        """An arm's test error."""
        return mean(list(self.errors[arm].values()))

    def between(self, arm: Arm, base: Arm) -> Mean:
        """How much more error an arm has than another, paired by seed."""
        one, two = self.errors[arm], self.errors[base]
        return mean([one[seed] - two[seed] for seed in one if seed in two])

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "network": self.subject.name,
            "field": self.subject.field,
            "data": self.subject.data,
            "epochs": self.subject.epochs,
            "p": self.p,
            "predicted": self.fix.before.deltas,
            "findings": [[f.code, f.severity, f.dropout, f.delta] for f in self.fix.before.findings],
            "fix": FIXES[self.by_fix] if self.written.diff else None,
            "predicted after the fix": self.written.after.deltas,
            "measured worst": self.measured,
            "test error": self.errors,
        }


def worst(checked: Checked) -> float:
    """The predicted Δ farthest from 1."""
    return farthest(list(checked.deltas.values()))


def rows(work: Work, subjects: Sequence[Subject], ratios: Sequence[float], seeds: int) -> list[Row]:
    """Every setting of which the network as written was trained at least once."""
    found = []
    for subject in subjects:
        for p in ratios:
            fix = work.fix(subject, p, FIXES["fixed"])
            if fix is None:
                continue
            row = Row(subject, p, fix, work.fix(subject, p, FIXES["uout"]) if fix.leaves else None)
            for arm in ARMS:
                jobs = (Job(subject, arm, 0.0 if arm == "none" else p, seed) for seed in range(seeds))
                done = [outcome for outcome in map(work.outcome, jobs) if outcome is not None]
                row.errors[arm] = {outcome.seed: outcome.error for outcome in done}
                if arm == "written":
                    row.measured = {one.seed: farthest(list(one.shifts.values())) for one in done}
            if row.errors["written"]:
                found.append(row)
    return found
