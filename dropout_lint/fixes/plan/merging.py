"""Kim's guideline is one dropout a branch: several that belong to one place become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from dropout_lint.fixes.plan.steps import Anchor, Step
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.trace.traced import DropoutSite


def at_place(flow: Ancestry, anchor: Anchor) -> list[DropoutSite]:
    """Dropouts that already are where the anchor is: between its last norm and its users, nearest first.

    The walk stops at the first weight layer, norm or join: what is beyond is another place.
    """
    there = [flow.placed[user] for user in anchor.users if user in flow.placed]
    node: fx.Node | None = next(
        (parent for parent in anchor.users[0].all_input_nodes if flow.reaches(anchor.producer, parent)), None
    )
    while node is not None:
        if node in flow.placed:
            there.append(flow.placed[node])
        elif flow.is_norm(node) or flow.is_weight(node) or len(flow.sides(node)) > 1 or len(node.users) > 1:
            break
        node = flow.source(node)
    return there


def merge(flow: Ancestry, moves: Mapping[fx.Node, Step], there: list[DropoutSite]) -> list[Step]:
    """Steps for the dropouts that go to one place: one stays or moves there, the others are erased.

    A dropout that is there already stays as it is; else the strongest of them moves, the last of equals.
    """
    resident = next((site for site in there if site.node not in moves and site.spec.is_noisy), None)
    if resident is None:
        resident = next((site for site in there if site.node in moves and site.spec.is_noisy), None)
    if resident is not None:
        stays = resident
        steps = []
        if resident.node in moves and len(moves) == 1:
            return []  # alone and in its place: moving is no answer
    else:
        last = max(
            moves.values(), key=lambda step: (step.site.spec.mask_variance, flow.index[step.site.node])
        )
        stays = last.site
        steps = [last]
    others = [move for node, move in moves.items() if node is not stays.node]
    return steps + [replace(move, action="merge", into=stays) for move in others]
