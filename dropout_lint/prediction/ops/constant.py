"""Operations whose result carries no noise, comparisons, and the tracer's mark of an in-place change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx

from dropout_lint.prediction.algebra import add
from dropout_lint.prediction.ops.activation import pointwise
from dropout_lint.prediction.ops.base import Call, NoRule, Parameter, first_shape, function, function_name
from dropout_lint.prediction.ops.indices import code
from dropout_lint.prediction.ops.operands import pair_of
from dropout_lint.prediction.quadrature import moments_by_quadrature
from dropout_lint.prediction.state import State, constant, fresh


@function(
    "isnan",
    "isinf",
    "isfinite",
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
    "empty",
    "empty_like",
    "tensor",
    "argmax",
    "argmin",
    "long",
    "int",
    "nonzero",
)
def without_noise(call: Call) -> Any:
    """Indices and fresh tensors: constants."""
    rows = len(call.ledger.dropouts)
    if isinstance(call.value, (tuple, list)):
        return tuple(constant(0.0, rows) for _ in call.value)
    value = 1.0 if "ones" in call.name else 0.0
    if "full" in call.name:
        given = call.arg(1 if call.name != "new_full" else 2, "fill_value", 0.0)
        value = float(given) if isinstance(given, (int, float)) and math.isfinite(given) else 0.0
    return constant(value, rows)


@function("one_hot", "eye")
def one_of_many(call: Call) -> State:
    """One 1 among n channels: where nothing is known of the indices, each holds it at 1/n of the rows, with
    variance (1/n)(1 - 1/n).
    """
    n = call.shape[-1] if call.shape else 1
    even = fresh(
        len(call.ledger.dropouts),
        axis=max(len(call.shape) - 1, 0),
        channels=n,
        mean=1 / n,
        var=(n - 1) / n**2,
    )
    return code(call) or even


@function("arange", "linspace")
def ramp(call: Call) -> State:
    """Equally spaced numbers from a to b: uniform, variance (b - a)²/12, a pattern over positions."""
    numbers = [float(v) for v in call.args if isinstance(v, (int, float))]
    rows = len(call.ledger.dropouts)
    if not numbers or any(not isinstance(v, (int, float)) for v in call.args):
        return constant(0.0, rows)
    low, high = (0.0, numbers[0] - 1) if len(numbers) == 1 else (numbers[0], numbers[1])
    if call.name == "arange" and len(numbers) > 1:
        high -= numbers[2] if len(numbers) > 2 else 1.0
    return fresh(rows, axis=1, channels=1, mean=(low + high) / 2, var=(high - low) ** 2 / 12)


@function("rand", "rand_like", "randn", "randn_like")
def drawn(call: Call) -> State:
    """Random numbers, the same in either mode: uniform or standard normal."""
    normal = "randn" in call.name
    return fresh(
        len(call.ledger.dropouts),
        axis=1,
        channels=1,
        mean=0.0 if normal else 0.5,
        var=1.0 if normal else 1 / 12,
    )


def unknown_mask(rows: int) -> State:
    """A condition of which nothing is known: it holds at half of the positions."""
    return fresh(rows, axis=1, channels=1, mean=0.5, var=0.25)


def is_unknown_mask(x: State) -> bool:
    """Whether `x` is an `unknown_mask`, or its complement."""
    return bool(
        np.all(x.t_mean == 0.5) and np.all(x.t_var == 0.25) and not np.any(x.rho) and not np.any(x.noise)
    )


COMPARISONS = {"gt": torch.gt, "ge": torch.ge, "lt": torch.lt, "le": torch.le}


@function("eq", "ne", "lt", "le", "gt", "ge", "greater", "less")
def comparison(call: Call) -> State:
    """A condition, as 0 and 1. Of indices and constants it is a code, of a tensor and a number a step
    function; else unknown.
    """
    rows = len(call.ledger.dropouts)
    known = code(call)
    if known is not None:
        return known
    compare = COMPARISONS.get({"greater": "gt", "less": "lt"}.get(call.name, call.name))
    x, bound = call.args[0] if call.args else 0.0, call.arg(1, "other")
    if compare is None or not isinstance(x, State) or not np.any(x.t_var):
        return unknown_mask(rows)
    if isinstance(bound, Parameter) and bound.known and bound.tensor.numel() == call.shape[-1]:  # one each
        a, b = pair_of(call)
        x, bound = add(a, b.scaled(-1.0)), 0.0
    if not isinstance(bound, (int, float)):
        return unknown_mask(rows)
    return pointwise(x, moments_by_quadrature(lambda t: compare(t, bound).to(t.dtype)))


@function("logical_not", "invert", "bitwise_not")
def complement(call: Call) -> State:
    """1 - x."""
    return call.x.scaled(-1.0, 1.0)


@function("logical_and", "logical_or", "and", "or", "bitwise_and", "bitwise_or", "any", "all", "isin")
def combined(call: Call) -> State:
    """Conditions put together: nothing is known of them."""
    return unknown_mask(len(call.ledger.dropouts))


@function("bool")
def truth(call: Call) -> State:
    """x.bool() of a condition is the condition."""
    known = call.args and isinstance(call.args[0], (State, Parameter)) and np.any(call.x.t_var)
    return call.x if known else unknown_mask(len(call.ledger.dropouts))


@function("mutated")
def mutated(call: Call) -> State:
    """A tensor after in-place changes. A change of the whole leaves nothing of what was there."""
    change = call.node.args[-1]
    value, shape = call.args[-1], call.shape
    if not isinstance(change, fx.Node):
        raise NoRule
    if function_name(change.target) == "setitem":
        _, key, written = change.args
        if isinstance(written, fx.Node) and key in (slice(None), Ellipsis):
            value, change = call.ledger.results.get(written), written
    if isinstance(value, State) and first_shape(change.meta.get("value")) == shape:
        return value
    raise NoRule
