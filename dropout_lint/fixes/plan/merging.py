"""Kim's guideline is one dropout a branch: several that belong to one place become one.

Those of other blocks do not, unless a person asks for it: of a stack of blocks that drop each, the guideline
leaves one dropout before the classifier, and takes the others' noise away, which somebody chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import fx

from dropout_lint.fixes.plan.anchors import branch_with
from dropout_lint.fixes.plan.steps import Anchor, Step
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.trace.traced import DropoutSite


class Found(Protocol):
    """What merging needs to know of a case."""

    site: DropoutSite

    @property
    def codes(self) -> tuple[str, ...]: ...


def at_place(flow: Ancestry, anchor: Anchor) -> list[DropoutSite]:
    """Dropouts that already are where the anchor is: between its last norm and its users, nearest first.

    The walk stops at the first weight layer, norm or join: what is beyond is another place.
    """
    there = [flow.dropouts[user] for user in anchor.users if user in flow.dropouts]
    node: fx.Node | None = next(
        (parent for parent in anchor.users[0].all_input_nodes if flow.reaches(anchor.producer, parent)), None
    )
    while node is not None:
        if node in flow.dropouts:
            there.append(flow.dropouts[node])
        elif flow.is_norm(node) or flow.is_weight(node) or len(flow.sides(node)) > 1 or len(node.users) > 1:
            break
        node = flow.source(node)
    return there


def merge(
    flow: Ancestry, anchor: Anchor, found: Mapping[fx.Node, Found], there: list[DropoutSite]
) -> list[Step]:
    """Steps for the dropouts that belong to one place: one stays or moves there, the others are erased.

    A dropout that is there already stays as it is; else the strongest of them moves, the last of equals.
    """
    resident = next((site for site in there if site.node not in found and site.spec.is_noisy), None)
    if resident is None:
        resident = next((site for site in there if site.node in found and site.spec.is_noisy), None)
    if resident is not None:
        stays = resident
        steps = []
        if resident.node in found and len(found) == 1:
            return []  # alone and in its place: moving is no answer
    else:
        case = max(
            found.values(), key=lambda item: (item.site.spec.mask_variance, flow.index[item.site.node])
        )
        stays = case.site
        steps = [Step(stays, "move", anchor, codes=case.codes)]
    steps += [
        Step(case.site, "merge", anchor, into=stays, codes=case.codes)
        for node, case in found.items()
        if node is not stays.node
    ]
    return steps


def rivals(
    flow: Ancestry, site: DropoutSite, anchor: Anchor, bound: Iterable[DropoutSite], *, one: bool
) -> list[DropoutSite]:
    """Dropouts of other blocks that one would become one with, or pass, on its way to a place below it.

    Args:
        flow: the graph.
        site: the dropout.
        anchor: its place.
        bound: the dropouts that are to go to the same place.
        one: what was found is their number in a residual branch: of those in the same one, one is to stay.
    """
    if not _weights_between(flow, site.node, anchor.producer) or (one and _one_branch(flow, site, anchor)):
        return []
    passed = [
        other
        for node, other in flow.dropouts.items()
        if other.spec.is_noisy
        and not other.spec.noise.whole_sample
        and flow.reaches(site.node, node)
        and any(flow.reaches(node, end) for end in (anchor.producer, *anchor.users))
    ]
    met = {other.node: other for other in (*passed, *bound) if _apart(flow, site.node, other.node)}
    return sorted(met.values(), key=lambda other: flow.index[other.node])


def _weights_between(flow: Ancestry, upper: fx.Node, lower: fx.Node) -> bool:
    return any(flow.reaches(upper, weight) and flow.reaches(weight, lower) for weight in flow.weights)


def _apart(flow: Ancestry, one: fx.Node, other: fx.Node) -> bool:
    """Whether weight layers lie between two dropouts, or neither feeds the other."""
    if one is other:
        return False
    upper, lower = (one, other) if flow.reaches(one, other) else (other, one)
    return not flow.reaches(upper, lower) or _weights_between(flow, upper, lower)


def _one_branch(flow: Ancestry, site: DropoutSite, anchor: Anchor) -> bool:
    """Whether a place is in the residual branch that the dropout is in: Guideline 1 has one dropout there."""
    branch = branch_with(flow, site.node)
    if branch is None or flow.is_concat(branch.join):
        return False
    inside = [branch.mask >> flow.index[node] & 1 for node in (site.node, anchor.producer)]
    return all(inside)
