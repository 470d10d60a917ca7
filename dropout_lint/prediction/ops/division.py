"""Quotients: by a number, by a statistic of the numerator itself, by its group's sum, by another tensor.

A softmax over groups of rows, as graph networks write it, has its sums scattered and gathered again:

`e = (x - most[index]).exp()`, `e / (total[index] + eps)`, where `most` and `total` are the maxima and sums of
the rows of each group, is a softmax of x over the L = rows / groups values that a group has on average. Taken
operation by operation, the difference and the quotient would be of independent tensors.
"""

from __future__ import annotations

from torch import fx

from dropout_lint.prediction.algebra import product
from dropout_lint.prediction.ops.base import Call, NoRule, Parameter, first_shape, function, function_name
from dropout_lint.prediction.ops.operands import broadcast, inputs, pair_of
from dropout_lint.prediction.ops.pairs import self_normalised
from dropout_lint.prediction.ops.powers import reciprocal
from dropout_lint.prediction.ops.softmax import softmax_of
from dropout_lint.prediction.ops.together import over_few
from dropout_lint.prediction.state import State
from dropout_lint.trace.traced import TensorInfo

SUMS = frozenset({"scatter_add", "index_add", "scatter_reduce", "index_reduce", "scatter"})
_BETWEEN = SUMS | {
    *("index_select", "getitem", "gather", "take_along_dim", "add", "clamp", "clamp_min", "mutated"),
    *("detach", "view", "reshape", "unsqueeze", "squeeze", "expand", "expand_as", "sub", "exp"),
}
_FILLS = frozenset({"new_zeros", "zeros", "zeros_like", "new_full", "full", "new_empty", "full_like"})


@function("div", "truediv", "idiv", "itruediv", "true_divide", "divide")
def division(call: Call) -> State:
    """a/b. By a statistic of a itself it is a norm written by hand; by another tensor a·(1/b)."""
    left, right = (call.args[0], call.arg(1, "other")) if call.args else (0.0, 1.0)
    if isinstance(right, (int, float)):
        a = call.state(left)
        return a.scaled(1.0 / float(right)) if right else a
    if isinstance(right, Parameter) and not right.known:
        return broadcast(call, left, 0)
    whole = self_normalised(call) or _softmax_over_groups(call)
    if whole is not None:
        return whole
    if over_few(call):
        raise NoRule
    a, b = pair_of(call)
    return product(a, reciprocal(b))


@function("rtruediv", "rdiv")
def reversed_division(call: Call) -> State:
    """Number / x."""
    other = call.arg(1, "other", 1.0)
    y = reciprocal(call.x)
    return y.scaled(float(other)) if isinstance(other, (int, float)) else y


def _softmax_over_groups(call: Call) -> State | None:
    """The state of a quotient that is a softmax over groups; None where it is none."""
    e, total = (*call.node.args[:2], None, None)[:2]
    if not isinstance(e, fx.Node) or not isinstance(total, fx.Node) or function_name(e.target) != "exp":
        return None
    summed = _grouped(total, e)
    if summed is None:
        return None
    x = next(inputs(e))
    if function_name(x.target) in ("sub", "isub") and len(x.args) > 1 and isinstance(x.args[1], fx.Node):
        whole = x.args[0]
        if isinstance(whole, fx.Node) and _grouped(x.args[1], whole) is not None:
            x = whole
    state, rows, groups = call.ledger.results.get(x), call.shape, first_shape(summed.meta.get("value"))
    if not isinstance(state, State) or not rows or not groups or len(rows) != len(groups):
        return None
    dims = [i for i, (n, m) in enumerate(zip(rows, groups, strict=True)) if n != m]
    dim = dims[0] if dims else 0
    return softmax_of(state, (dim,), max(round(rows[dim] / max(groups[dim], 1)), 1))


def _grouped(node: fx.Node, root: fx.Node) -> fx.Node | None:
    """The reduction over groups by which `node` is made of `root` and of nothing else; None without one."""
    pending, seen = [node], set[fx.Node]()
    found: fx.Node | None = None
    while pending:
        one = pending.pop()
        value = one.meta.get("value")
        if (
            one is root
            or one in seen
            or not (isinstance(value, TensorInfo) and value.dtype.is_floating_point)
        ):
            continue
        seen.add(one)
        name = function_name(one.target)
        if name in _FILLS:
            continue
        if one.op not in ("call_function", "call_method") or name not in _BETWEEN:
            return None
        found = one if name in SUMS else found
        pending.extend(inputs(one))
    return found
