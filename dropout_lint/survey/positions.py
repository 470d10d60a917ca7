"""Positions P0–P7 (Kim et al. 2023, Fig. 2), counted from a branch's last norm and last weight layer."""

from __future__ import annotations

from dataclasses import dataclass

from dropout_lint.graph.flow import Flow
from dropout_lint.graph.operations import Kind
from dropout_lint.survey.branches import Branch, Branches

NORM = Kind.SHIFTING_NORM | Kind.OTHER_NORM


@dataclass(frozen=True)
class Position:
    """Where a dropout stands in its branch.

    Attributes:
        label: P0–P7, or None.
        at_guideline: P5, P6 or the end of a post-activation branch (Guideline 1 and Sec. 3.1), where an add
            closes the branch. The guideline rests on variances that add up (Propositions 3 and 4); a concat
            joins channels without mixing them, so a dense layer's noise reaches the next norm undiluted.
        at_branch_end: nothing but the add comes after it in the branch.
    """

    label: str | None = None
    at_guideline: bool = False
    at_branch_end: bool = False


def before(flow: Flow, number: int, stop: int, kinds: Kind) -> Kind:
    """Which of `kinds` comes last before `number` on every way from `stop`, `Kind.PLAIN` if none does."""
    for above in flow.upwards(number, stop):
        found = flow.kinds[above] & kinds
        if found:
            return found
    return Kind.PLAIN


def position_in_branch(flow: Flow, branches: Branches, number: int, branch: Branch) -> Position:
    """The place of the dropout `number` in its innermost branch.

    A branch without a norm that shifts (a transformer's) has none of the positions; nor has a gate's inside.
    """
    if not flow.live[number] or not branch.norms:
        return Position()
    weights_after = branches.after(number, branch, flow.weights)
    norms_after = branches.after(number, branch, flow.norms)
    last = before(flow, number, branch.fork, NORM | Kind.ACTIVATION | Kind.WEIGHT)
    if norms_after:
        return Position(before_last_norm(flow, number, branch, last))
    if branch.style == "post-activation" and not weights_after:
        label = "P6" if Kind.ACTIVATION in last else "P5"
        return Position(label, branch.by == "add", branch.by == "add")
    if weights_after:
        return Position("P5" if last & NORM else "P6", at_guideline=branch.by == "add")
    return Position("P7", at_branch_end=branch.by == "add")


def before_last_norm(flow: Flow, number: int, branch: Branch, last: Kind) -> str:
    """P1 to P4: before a norm of the branch, by what comes last before the dropout.

    Where a block normalises and activates its input before it forks (the first block of a stage in many
    pre-activation networks), that norm counts as the branch's own.
    """
    shared = False
    if not last and branch.style == "pre-activation":
        last, shared = shared_input(flow, branch.fork)
    if not shared and flow.norms[number] == flow.norms[branch.fork]:
        return "P1"
    if last & NORM:
        return "P2"
    return "P3" if Kind.ACTIVATION in last else "P4"


def shared_input(flow: Flow, fork: int) -> tuple[Kind, bool]:
    """What the fork's value comes from, and whether that is a norm or a norm's activation."""
    seen = Kind.PLAIN
    for number in (fork, *flow.upwards(fork)):
        kind = flow.kinds[number]
        if Kind.SHIFTING_NORM in kind:
            return seen or kind, True
        if kind & (Kind.WEIGHT | Kind.ADD | Kind.CONCAT):
            break
        if Kind.ACTIVATION in kind and not seen:
            seen = Kind.ACTIVATION
    return Kind.PLAIN, False
