"""Operations whose result carries no noise, and the tracer's mark of an in-place change."""

from __future__ import annotations

from typing import Any

from dropout_lint.noise.state import State, constant
from dropout_lint.noise.transfer.base import Call, first_shape, function


@function(
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "invert",
    "logical_not",
    "logical_and",
    "logical_or",
    "isnan",
    "isinf",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "zeros_like",
    "ones_like",
    "full_like",
    "zeros",
    "ones",
    "full",
    "arange",
    "linspace",
    "meshgrid",
    "eye",
    "empty",
    "tensor",
    "argmax",
    "argmin",
    "one_hot",
    "any",
    "all",
    "bool",
    "long",
    "int",
    "nonzero",
)
def without_noise(call: Call) -> Any:
    """Masks, indices and fresh tensors: constants."""
    rows = len(call.ledger.dropouts)
    if isinstance(call.value, (tuple, list)):
        return tuple(constant(0.0, rows) for _ in call.value)
    return constant(1.0 if "ones" in call.name else 0.0, rows)


@function("mutated")
def mutated(call: Call) -> State:
    """A tensor after in-place changes: the last change of the whole; a change of a part counts as none."""
    shape = call.shape
    for value, node in zip(reversed(call.args[1:]), reversed(call.node.args[1:]), strict=True):
        if isinstance(value, State) and first_shape(getattr(node, "meta", {}).get("value")) == shape:
            return value
    return call.x
