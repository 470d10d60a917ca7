"""What a recorded graph takes for granted, checked where it runs: it holds one way through the model."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import torch
from torch import fx
from torch.fx.node import Argument

from dropout_lint.trace.sizes import Comparison, SizeInt

PLAIN = (bool, int, float, str, type(None))
SIGNS = {
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
}


def check_assumptions(
    graph: fx.Graph, comparisons: Sequence[Comparison], mapped: Callable[[fx.Node], fx.Node]
) -> None:
    """Let a graph fail with a message, and not compute something else, where the model took another way.

    Args:
        graph: a copy of the recorded graph; assertions are added to it.
        comparisons: the comparisons of sizes that the model made when it was recorded.
        mapped: node of the recorded graph → node of the copy.
    """
    (output,) = (node for node in graph.nodes if node.op == "output")
    first = next(node for node in graph.nodes if node.op != "placeholder")
    with graph.inserting_before(first):
        for node in graph.nodes:
            if node.op == "placeholder" and isinstance(value := node.meta.get("value", node), PLAIN):
                _assert_that(graph, operator.eq, (node, value), f"{node.target} = {value!r}")
    seen: set[tuple[object, ...]] = set()
    with graph.inserting_before(output):
        for one in comparisons:
            told = _told(one)
            forms = (side.form if isinstance(side, SizeInt) else side for side in one.operands)
            if (key := (told, *forms)) not in seen:
                seen.add(key)
                operands = tuple(
                    side.computed(graph, mapped) if isinstance(side, SizeInt) else side
                    for side in one.operands
                )
                _assert_that(graph, one.operation, operands, told, one.outcome)


def _assert_that(
    graph: fx.Graph,
    operation: Callable[..., bool],
    operands: tuple[Argument, ...],
    told: str,
    outcome: bool = True,
) -> None:
    found = graph.call_function(operation, operands)
    if not outcome:
        found = graph.call_function(operator.not_, (found,))
    message = f"this fixed model was recorded with {told}; fix the model with inputs like these"
    graph.call_function(torch._assert, (found, message))


def _told(one: Comparison) -> str:
    """The comparison in words: `a size of 4 not > 32`."""
    first, *rest = (
        f"a size of {int(side)}" if isinstance(side, SizeInt) else repr(side) for side in one.operands
    )
    if not rest:
        return first
    return f"{first} {'' if one.outcome else 'not '}{SIGNS[one.operation]} {rest[0]}"
