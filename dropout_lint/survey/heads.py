"""Positions H1–H7 in heads (Kim et al. 2023, Fig. 4), with and without pooling."""

from __future__ import annotations

from dataclasses import dataclass

from dropout_lint.graph.flow import ROOT, Flow
from dropout_lint.graph.operations import Kind
from dropout_lint.survey.branches import dense
from dropout_lint.survey.positions import NORM, before
from dropout_lint.trace.traced import shape_of

LAYERS = NORM | Kind.ACTIVATION | Kind.WEIGHT | Kind.ADD | Kind.CONCAT
LONGEST_TAIL = 40


@dataclass(frozen=True)
class HeadPlace:
    """Where a dropout stands in the head.

    Attributes:
        label: H1–H7, or None.
        in_head: it belongs to the head.
        at_guideline: H3 or H4 (Guideline 2), or before a classifier with no norm that shifts after it.
        pooled_before: global pooling comes before it.
        on_logits: it drops the predictions.
    """

    label: str | None = None
    in_head: bool = False
    at_guideline: bool = False
    pooled_before: bool = False
    on_logits: bool = False


def last_pool(flow: Flow, number: int) -> int | None:
    """The global pooling that every way to `number` goes through last, or None; several that are put together
    (mean and maximum) are one.
    """
    for above in flow.upwards(number):
        if Kind.POOL in flow.kinds[above] or joins_pools(flow, above):
            return above
    return None


def joins_pools(flow: Flow, number: int) -> bool:
    """Whether `number` adds up or concatenates what several global poolings made of one tensor."""
    if not flow.kinds[number] & (Kind.ADD | Kind.CONCAT) or len(flow.sources[number]) < 2:
        return False

    def pooled(end: int) -> bool:
        while flow.kinds[end] == Kind.PLAIN and len(flow.sources[end]) == 1:
            end = flow.sources[end][0]
        return Kind.POOL in flow.kinds[end]

    return all(pooled(end) for end in flow.sources[number])


def head_place(
    flow: Flow, number: int, *, joins_after: bool, norm: int | None, weights_to_norm: int
) -> HeadPlace:
    """The place of the dropout `number`, which lies in no branch.

    Args:
        flow: the data flow.
        number: the dropout.
        joins_after: a residual branch closes after it, so that it is no part of the head.
        norm: the first norm that shifts after it, or None.
        weights_to_norm: weight layers before that norm.
    """
    pool = last_pool(flow, number)
    pooled = pool is not None
    if joins_after:
        return HeadPlace(pooled_before=pooled)
    if norm is not None:
        last = not flow.norms_after[norm] and flow.weights_after[norm] > 0  # a classifier follows
        if not last or weights_to_norm > 1 or not flow.dominates(number, norm):
            return HeadPlace(pooled_before=pooled)
        return HeadPlace("H2" if weights_to_norm == 0 else "H1", in_head=True, pooled_before=pooled)
    return after_norms(flow, number, pool)


def after_norms(flow: Flow, number: int, pool: int | None) -> HeadPlace:
    """The place of a dropout that no norm comes after: H3 to H7."""
    pooled = pool is not None
    if flow.weights_after[number] == 0:
        label = on_predictions(flow, number)
        return HeadPlace(label, True, pooled_before=pooled, on_logits=label is not None)
    if pool is not None and flow.weights[number] == flow.weights[pool]:
        return HeadPlace("H5", True, pooled_before=True)
    last = before(flow, number, ROOT, LAYERS)
    ahead = flow.pool_after[number]
    if ahead == 0:
        return HeadPlace("H3" if last & NORM else "H4", True, at_guideline=True)
    if ahead is None and flow.weights_after[number] == 1 and normalised(flow, number):
        label = "H3" if last & NORM else "H4"
        return HeadPlace(label, True, at_guideline=True, pooled_before=pooled)
    return HeadPlace(in_head=flow.weights_after[number] == 1, at_guideline=True, pooled_before=pooled)


def normalised(flow: Flow, number: int) -> bool:
    """Whether a norm with running statistics comes before `number`, with no weight layer between."""
    for above in flow.upwards(number):
        kind = flow.kinds[above]
        if Kind.SHIFTING_NORM in kind:
            return True
        if Kind.WEIGHT in kind:
            return False
    return False


def on_predictions(flow: Flow, number: int) -> str | None:  # noqa: PLR0911 - one return for each thing that it may be
    """H6 on the logits, H7 on the probabilities, None where it drops no predictions.

    Predictions come straight from a weight layer, are one vector a sample (or are pooled to one, or made
    probabilities, or are a `dense` map), and go straight to the output. What an encoder returns is none.
    """
    probabilities = pooled = normed = False
    for above in flow.upwards(number):
        kind = flow.kinds[above]
        if Kind.WEIGHT in kind:
            break
        if kind & NORM:
            normed = True
        elif kind & LAYERS and Kind.PROBABILITY not in kind:
            return None
        probabilities |= Kind.PROBABILITY in kind
        pooled |= Kind.POOL in kind
    else:
        return None
    label = "H7" if probabilities else "H6"
    full = dense(flow, number, above)
    if normed and not full:
        return None
    current = number
    for _ in range(LONGEST_TAIL):
        if len(flow.users[current]) != 1:
            return None
        current = flow.users[current][0]
        kind = flow.kinds[current]
        if flow.nodes[current].op == "output":
            vector = len(shape_of(flow.nodes[number]) or ()) == 2
            return label if vector or pooled or probabilities or full else None
        if full and Kind.ADD in kind and any(flow.is_input(source) for source in flow.sources[current]):
            continue
        if len(flow.sources[current]) > 1 or (kind & LAYERS and Kind.PROBABILITY not in kind):
            return None
        probabilities |= Kind.PROBABILITY in kind
        pooled |= Kind.POOL in kind
    return None
