"""The two operands of a call: with the same channels, as one function of one tensor, under the same mask.

One function of one tensor. `x * sigmoid(x)`, `torch.where(x > 0, x, 0.1 * x)` or `torch.maximum(x, 0.2 * x)`
look like operations on two tensors, but these are no independent values: followed back through the graph they
are pointwise functions of one tensor, and are worked out as that (`as_one_function`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from dropout_lint.prediction.algebra import latest
from dropout_lint.prediction.ops.activation import FUNCTIONS, PARAMETRISED, pointwise
from dropout_lint.prediction.ops.base import Call, Parameter, first_shape, function_name
from dropout_lint.prediction.ops.powers import through
from dropout_lint.prediction.quadrature import moments_by_quadrature
from dropout_lint.prediction.state import State, fresh

ARITHMETIC: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("add", "iadd"), operator.add),
    **dict.fromkeys(("sub", "isub", "subtract"), operator.sub),
    "radd": lambda a, b: b + a,
    "rsub": lambda a, b: b - a,
    "rmul": lambda a, b: b * a,
    **dict.fromkeys(("mul", "imul", "multiply"), operator.mul),
    **dict.fromkeys(("div", "truediv", "idiv", "itruediv", "true_divide", "divide"), operator.truediv),
    "rtruediv": lambda a, b: b / a,
    **{name: getattr(torch, name) for name in ("maximum", "minimum", "where")},
    **{name: getattr(operator, name) for name in ("gt", "ge", "lt", "le", "pow")},
    **{name: getattr(torch, name) for name in ("relu", "zeros_like", "ones_like")},
    "leaky_relu": torch.nn.functional.leaky_relu,
    "masked_fill": lambda x, mask, value: x.masked_fill(mask, value),
    "float": lambda x: x.float() if x.dtype == torch.bool else x,
    "max": torch.maximum,
    "min": torch.minimum,
}
"""Operations that `as_one_function` follows, beside the activations."""


DEEP = 16
"""How many operations a function of one tensor may be made of."""


def inputs(node: fx.Node) -> Iterator[fx.Node]:
    yield from (n for n in node.all_input_nodes if first_shape(n.meta.get("value")) is not None)


def _operation(node: fx.Node) -> Callable[..., Any] | None:
    if node.op not in ("call_function", "call_method"):
        return None
    name = function_name(node.target)
    return FUNCTIONS.get(name) or PARAMETRISED.get(name) or ARITHMETIC.get(name)


def _leads(node: fx.Node, root: fx.Node, left: int) -> bool:
    """Whether `node` is a pointwise function of `root` alone."""
    if node is root:
        return True
    if left <= 0 or _operation(node) is None:
        return False
    sources = list(inputs(node))
    shape = first_shape(node.meta.get("value"))
    return bool(sources) and all(
        first_shape(s.meta.get("value")) == shape and _leads(s, root, left - 1) for s in sources
    )


def _evaluated(node: fx.Node, root: fx.Node, t: Tensor) -> Any:
    if node is root:
        return t
    operation = _operation(node)
    assert operation is not None
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda n: _evaluated(n, root, t))
    return operation(*args, **{name: value for name, value in kwargs.items() if name != "inplace"})


def as_one_function(call: Call) -> State | None:
    """The result as a pointwise function of one argument, where all arguments are functions of that one."""
    sources = list(inputs(call.node))
    if len(sources) < 2 or _operation(call.node) is None:
        return None
    states = {n: s for n, s in zip(call.node.args, call.args, strict=False) if isinstance(n, fx.Node)}
    for source in sources:
        x = states.get(source)
        root = source
        while isinstance(x, State) and root is not None:
            if all(_leads(other, root, DEEP) for other in sources):
                node, start = call.node, root

                def f(t: Tensor) -> Tensor:
                    result: Tensor = _evaluated(node, start, t).to(t.dtype)  # noqa: B023
                    return result

                return through(x, f) if x.before_relu is not None else pointwise(x, moments_by_quadrature(f))
            root, x = _before(root, x)
    return None


def _before(node: fx.Node, x: State) -> tuple[Any, State]:
    """The tensor that `node` is a number times, or plus a number, and its state."""
    name = function_name(node.target) if node.op in ("call_function", "call_method") else ""
    if len(node.args) != 2 or node.kwargs:
        return None, x
    a, b = node.args
    other, number = (a, b) if isinstance(a, fx.Node) else (b, a)
    if not isinstance(other, fx.Node) or not isinstance(number, (int, float)) or isinstance(number, bool):
        return None, x
    if name in ("mul", "imul", "rmul", "multiply") and number:
        return other, x.scaled(1 / number)
    if name in ("div", "truediv") and number and other is a:
        return other, x.scaled(float(number))
    if name in ("add", "iadd", "radd"):
        return other, x.scaled(1.0, -float(number))
    return None, x


MOVES = ("roll", "flip", "chunk", "split", "tensor_split", "getitem", "narrow", "select", "index_select",
         "gather", "unbind", "fliplr", "flipud", "rot90", "unflatten")  # fmt: skip


def _moves(node: fx.Node, root: fx.Node, seen: set[fx.Node]) -> tuple[str, ...] | None:
    """What moves values about on the way from `root` to `node`; None where there is no way."""
    if node is root:
        return ()
    if node in seen or len(seen) > 200:
        return None
    seen.add(node)
    for source in node.all_input_nodes:
        way = _moves(source, root, seen)
        if way is not None:
            name = function_name(node.target) if node.op != "call_module" else ""
            return (*way, f"{name}{node.args[1:]}{node.kwargs}") if name in MOVES else way
    return None


def same_mask(call: Call, a: State, b: State) -> bool:
    """Whether the masks pending on the call's two operands fall on the same elements.

    A dropout's output that is split, rolled or flipped carries the same mask elsewhere: next to another part
    of it that is an independent one. A whole sample's mask is the same in all its parts.
    """
    if a.source != b.source or a.source < 0 or a.mask != b.mask:
        return False
    nodes = [n for n in call.node.args[:2] if isinstance(n, fx.Node)]
    if a.sample_wide or len(nodes) < 2:
        return True
    root = call.ledger.dropouts[a.source].node
    one, other = (_moves(n, root, set()) for n in nodes)
    return one == other


def is_constant(value: Any) -> bool:
    return isinstance(value, (int, float, Parameter)) and not isinstance(value, bool)


def operands(call: Call) -> tuple[Any, Any]:
    first = call.args[0] if call.args else call.kwargs.get("input", 0.0)
    return first, call.arg(1, "other", call.kwargs.get("value", 0.0))


def _broadcast(call: Call, value: Any, position: int) -> State:
    """An operand as a state whose channel axis is counted in the result's dimensions."""
    x = call.state(value)
    if isinstance(value, Parameter):
        return x.changed(axis=len(call.shape) + x.axis) if x.axis < 0 else x
    rank = len(call.shape)
    node = call.node.args[position] if position < len(call.node.args) else None
    shape = first_shape(getattr(node, "meta", {}).get("value")) if node is not None else None
    return x.changed(axis=x.axis + rank - len(shape)) if shape and len(shape) < rank else x


def _pattern(value: Any, x: State, axis: int) -> State:
    """A constant whose values lie along another dimension than `axis`, the channels: a pattern over them."""
    if not isinstance(value, Parameter) or x.groups == 1 or x.axis == axis:
        return x
    one = x.merged()
    mean, var = float(one.t_mean[0]), float(one.t_dev[0] ** 2 + one.t_var[0])
    return fresh(len(x.noise), axis=axis, channels=1, mean=mean, var=var)


def pair_of(call: Call) -> tuple[State, State]:
    left, right = operands(call)
    a, b = _broadcast(call, left, 0), _broadcast(call, right, 1)
    a, b = _pattern(left, a, b.axis), _pattern(right, b, a.axis)
    if a.axis != b.axis and a.groups > 1 and b.groups > 1:
        b = b.merged()
    if a.components > 1 and b.components > 1 and not same_mask(call, a, b):
        a, b = latest(a, b)
    return a, b
