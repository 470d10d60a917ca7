"""Where tensors meet: add, multiply, concatenate, stack. The arithmetic itself is in `prediction.algebra`."""

from __future__ import annotations

import math

import numpy as np

from dropout_lint.prediction.algebra import add, concatenate, product
from dropout_lint.prediction.ops.base import Call, NoRule, Parameter, first_shape, function, several
from dropout_lint.prediction.ops.copies import sum_of_copies, sum_under_one_draw
from dropout_lint.prediction.ops.filters import sum_of_positions
from dropout_lint.prediction.ops.linear_map import amplified
from dropout_lint.prediction.ops.operands import (
    both,
    broadcast,
    is_constant,
    operands,
    pair_of,
    under_one_mask,
)
from dropout_lint.prediction.ops.pairs import self_normalised
from dropout_lint.prediction.ops.together import over_few
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import (
    State,
    align,
)

AGREEMENT = 0.2
"""Assumed correlation of what the data cause on a trained skip and in its branch."""


def fitted_branches(a: State, b: State, variance: Array, agreement: float) -> tuple[State, State]:
    """The sides of an add with the amplification by trained weights that the sum's measured variance tells.

    No norm lies behind a residual branch's last weight layer, but one behind the add knows the sum. With
    q² for the amplification, S the skip's variance, and the branch's data part D, fresh noise N and older
    noise O: Σ Var = S + N + O·(1 + κ(q² - 1)) + q²·D + 2·agreement·q·Σ√(data·data), solved for q over all
    channels.
    """
    branches = [x for x in (a, b) if x.from_weight_layer]
    if not branches or a.channels != len(variance) or b.channels != len(variance):
        return a, b
    a, b = align(*(x if x.sample_wide else x.collapse() for x in (a, b)))
    both = len(branches) == 2
    along = agreement * float(a.counts @ np.sqrt(a.data * b.data))
    square = fixed = 0.0
    for x in (a, b):
        total, old = float(x.counts @ x.train_var), float(x.counts @ x.amplified_noise.sum(0))
        if x.from_weight_layer:
            amplified_noise = float(x.counts @ x.data) + old
            square, fixed = square + amplified_noise, fixed + total - amplified_noise
        else:
            fixed += total
    if both:
        square, along = square + 2 * along, 0.0
    missing = float(variance.sum()) - fixed
    if square <= 0:
        return a, b
    root = (math.sqrt(max(along**2 + square * missing, 0.0)) - along) / square
    factor = min(max(root**2, LEAST_FITTED), MOST_FITTED)
    fitted = [amplified(x, np.full(x.groups, factor), x.data) if x.from_weight_layer else x for x in (a, b)]
    return fitted[0], fitted[1]


LEAST_FITTED, MOST_FITTED = 0.25, 16.0
"""Bounds of a branch's amplification beyond what the layer before it had."""


@several
@function("add", "iadd", "radd", "sub", "isub", "subtract", "logaddexp")
def addition(call: Call) -> State:
    """a ± b; a skip is one of these."""
    sign = -1.0 if "sub" in call.name else 1.0
    alpha = call.kwargs.get("alpha", 1)
    left, right = (
        call.node.args[0] if call.node.args else None,
        call.node.args[1] if len(call.node.args) > 1 else None,
    )
    if left is right and left is not None:
        return both(call)[0].scaled(1.0 + sign)
    factor = sign * float(alpha if isinstance(alpha, (int, float)) else 1.0)
    of_positions = sum_of_positions(call, factor)
    if of_positions is not None:
        return of_positions
    a, b = both(call)
    if factor != 1:
        b = b.scaled(factor)
    together = sum_of_copies(call, a, b, factor) or sum_under_one_draw(call, a, b)
    if together is not None:
        return together
    a, b = under_one_mask(call, a, b)
    agreement = AGREEMENT if call.ledger.trained else 0.0
    if call.node in call.ledger.measured:
        a, b = fitted_branches(a, b, call.ledger.measured[call.node][1], agreement)
    return add(a, b, agreement)


@function("rsub")
def reversed_subtraction(call: Call) -> State:
    """b - a."""
    a, b = pair_of(call)
    return add(a.scaled(-1.0), b)


@function("mul", "imul", "rmul", "multiply")
def multiplication(call: Call) -> State:
    """a·b; a number scales, an unknown parameter (layer scale) is passed as 1."""
    left, right = operands(call)
    for position, (x, factor) in enumerate(((left, right), (right, left))):
        if isinstance(x, State) and is_constant(factor):
            if isinstance(factor, Parameter) and not factor.known:
                return broadcast(call, x, position)
            if isinstance(factor, (int, float)):
                return x.scaled(float(factor))
    whole = self_normalised(call)
    if whole is None and over_few(call):
        raise NoRule
    return whole if whole is not None else product(*pair_of(call))


@several
@function("cat", "concat", "concatenate", "hstack")
def concatenation(call: Call) -> State:
    """torch.cat(tensors, dim)."""
    parts = call.args[0] if call.args else call.kwargs.get("tensors", ())
    rank = len(call.shape)
    dim = call.arg(1, "dim", call.kwargs.get("axis", 0))
    axis = int(dim) % rank if isinstance(dim, int) and rank else 1
    nodes = call.node.args[0] if call.node.args else call.node.kwargs.get("tensors", ())
    sizes = [
        (
            shape[axis]
            if (shape := first_shape(getattr(n, "meta", {}).get("value"))) and len(shape) > axis
            else 1
        )
        for n in (nodes if isinstance(nodes, (tuple, list)) else ())
    ]
    states = [call.state(part) for part in parts]
    if not states:
        return call.state(0)
    return concatenate(states, axis, sizes if len(sizes) == len(states) else [1] * len(states))


@function("stack")
def stacking(call: Call) -> State:
    """torch.stack: a new dimension; moments are averaged over it."""
    states = [call.state(part) for part in call.args[0]]
    dim = call.arg(1, "dim", 0)
    merged = concatenate([s.collapse().merged() for s in states], -1, [1] * len(states))
    axis = states[0].axis + (1 if isinstance(dim, int) and 0 <= dim <= states[0].axis else 0)
    return merged.changed(axis=axis)
