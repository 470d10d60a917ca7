"""Packed sequences: (N, T, C) of several lengths as (M, C), the steps that there are, and back."""

from __future__ import annotations

import math
from typing import Any

from dropout_lint.prediction.algebra import chosen
from dropout_lint.prediction.ops.base import Call, function
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.state import State


@function("pack_padded_sequence")
def packed(call: Call) -> Any:
    """The steps of all sequences, and how many sequences have each step."""
    x = call.x
    last = len(call.in_shape) - 1
    return _of_tensors(call, replace(x, axis=1) if x.axis == last else replace(x.merged(), axis=1))


@function("pad_packed_sequence")
def padded(call: Call) -> Any:
    """The steps in their places; behind the end of a sequence there are zeros."""
    x, number = call.x, call.arg(3, "padding_value", 0.0)
    there = call.in_shape[0] * call.in_shape[-1] / max(math.prod(call.shape), 1) if call.in_shape else 1.0
    fill = call.state(number if isinstance(number, (int, float)) else 0.0)
    y = chosen(replace(x, axis=len(call.shape) - 1), fill, min(there, 1.0))
    return _of_tensors(call, y)


def _of_tensors(call: Call, y: State) -> Any:
    """The result of a call whose first tensor holds values, and whose second one counts."""
    if not isinstance(call.value, (tuple, list)):
        return y
    return (y, *(call.state(0) for _ in call.value[1:]))
