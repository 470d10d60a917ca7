"""What was chosen beside what each strategy alone would come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dropout_lint.fixes.plan.anchors import positions_of
from dropout_lint.fixes.plan.case import Case
from dropout_lint.fixes.plan.steps import Action, Step, Weighed
from dropout_lint.fixes.plan.trials import Outcome
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.terms import worst_of

ALTERNATIVES: tuple[Action, ...] = ("move", "uout", "reduce", "remove")


def weighed(
    flow: Ancestry, cases: Sequence[Case], outcome: Outcome, others: Mapping[Action, Outcome]
) -> tuple[Weighed, ...]:
    """What was chosen, and what each strategy alone would come to."""
    done = {step.action for step in outcome.steps}
    chosen: Action = next((name for name in ("reduce", "uout", "remove") if name in done), "move")
    rows = {**others, chosen: outcome} if outcome.steps else dict(others)
    return tuple(
        Weighed(
            name,
            _kept(flow, cases, one.steps),
            worst_of(one.deltas.values()),
            len(one.left),
            chosen=one is outcome,
        )
        for name in ALTERNATIVES
        if (one := rows.get(name)) is not None
    )


def _kept(flow: Ancestry, cases: Sequence[Case], steps: Sequence[Step]) -> float:
    """Share of the found dropouts' mask variance that still reaches the loss.

    One that is merged into another is gone; noise of single elements in front of a pooling over n
    positions is averaged, and 1/n of its variance is left.
    """
    total = kept = 0.0
    by_node = {step.site.node: step for step in steps}
    for case in cases:
        variance = case.site.spec.mask_variance
        if not math.isfinite(variance):
            continue
        total += variance
        step = by_node.get(case.site.node)
        if step is None or step.action == "repair":
            kept += variance
        elif step.action == "uout":
            kept += min(variance, (step.value or 0.0) ** 2 / 3)
        elif step.action in ("move", "reduce"):
            stays = variance if step.value is None else step.value / (1 - step.value)
            averaged = step.anchor is not None and not case.site.spec.noise.channelwise
            kept += stays / (positions_of(flow, step.anchor) if averaged and step.anchor else 1)
    return kept / total if total else 1.0
