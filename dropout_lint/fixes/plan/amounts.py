"""How much: the largest ratio, or β, with which steps answer what was found and keep every norm fine."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dropout_lint.fixes.graph.dropmodules import BETA_RANGE, beta_for
from dropout_lint.fixes.plan.steps import Step
from dropout_lint.fixes.plan.trials import Remaining, Trials

if TYPE_CHECKING:
    from dropout_lint.fixes.plan.case import Case

BETAS = (0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2)  # those that are tried, within `BETA_RANGE`
HALF = 0.5
"""A ratio below this share of the old one is no reduction any more: it takes the dropout away."""
LEAST = 0.01
"""Below that a dropout is not worth its line."""


class Amounts:
    """Finds ratios for the dropouts that stay where they are.

    Args:
        trials: carries out steps and judges them.
        threshold: Δ from which on a shift counts.
        left: what is still found after some steps.
    """

    def __init__(
        self, trials: Trials, threshold: float, left: Callable[[Sequence[Step]], Sequence[Remaining]]
    ) -> None:
        self.trials = trials
        self.threshold = threshold
        self._left = left

    def reductions(self, cases: Sequence[Case], others: Sequence[Step], *, least: float = 0.0) -> list[Step]:
        """The largest common share of each ratio with which no norm stays under the threshold.

        Args:
            cases: the dropouts.
            others: the other steps of the plan.
            least: the share that is too little.
        """
        if not cases:
            return []

        def steps_at(share: float) -> list[Step]:
            found = []
            for case in cases:
                p = case.site.spec.p
                hundredths = max(math.floor(p * share * 100 + 1e-9), math.ceil(p * least * 100 - 1e-9))
                value = hundredths / 100
                if LEAST <= value < p:
                    found.append(Step(case.site, "reduce", value=value, codes=case.codes))
            return found

        fits = self._fits(cases, others)
        low, high = 0.0, 1.0
        if least:
            if not fits(steps_at(least)):
                return []
            low = least
        for _ in range(8):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(steps_at(middle)) else (low, middle)
        return steps_at(low)

    def uouts(self, cases: Sequence[Case], others: Sequence[Step], beta: float | None) -> list[Step]:
        """β from each dropout's noise, lowered within the paper's range until every norm is fine."""
        if not cases:
            return []

        def steps_at(most: float) -> list[Step]:
            return [
                Step(
                    case.site,
                    "uout",
                    value=beta if beta is not None else min(most, beta_for(case.site.spec)),
                    kind="Uout",
                    codes=case.codes,
                )
                for case in cases
            ]

        if beta is not None:
            return steps_at(BETA_RANGE[0])
        fits, last = self._fits(cases, others), len(BETAS) - 1
        return steps_at(BETAS[bisect_left(BETAS, True, hi=last, key=lambda most: fits(steps_at(most)))])

    def _fits(self, cases: Sequence[Case], others: Sequence[Step]) -> Callable[[Sequence[Step]], bool]:
        """Whether steps answer the findings of `cases` and keep every norm fine that removal would; what is
        found at one ratio because of its place is found at all of them.
        """
        nodes = {case.site.node for case in cases}
        gone = [Step(case.site, "remove") for case in cases]
        rules = self.trials.before.options.rules
        misplaced = False

        def fits(steps: Sequence[Step]) -> bool:
            nonlocal misplaced
            together = (*others, *steps)
            if misplaced or self.trials.loses(together, (*others, *gone), self.threshold):  # cheaper to ask
                return False
            left = {item.code for item in self._left(together) if item.node in nodes}
            misplaced = any(rules.get(code).of_place for code in left)
            return not left

        return fits
