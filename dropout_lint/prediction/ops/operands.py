"""The two operands of a call: with the same channels, under the same mask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from dropout_lint.prediction.algebra import latest
from dropout_lint.prediction.ops.base import Call, Ledger, Parameter, first_shape, function_name
from dropout_lint.prediction.parts import by_row
from dropout_lint.prediction.state import State


def inputs(node: fx.Node) -> Iterator[fx.Node]:
    """The tensors among a node's inputs, each once."""
    yield from (n for n in node.all_input_nodes if first_shape(n.meta.get("value")) is not None)


MOVES = ("roll", "flip", "chunk", "split", "tensor_split", "getitem", "narrow", "select", "index_select",
         "gather", "unbind", "fliplr", "flipud", "rot90", "unflatten")  # fmt: skip


SCALES = frozenset({"mul", "imul", "rmul", "multiply"})
QUOTIENTS = frozenset({"div", "truediv", "idiv", "itruediv", "true_divide", "divide"})
OVER_STACK: Mapping[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "sum": lambda parts: functools.reduce(torch.add, parts),
    "mean": lambda parts: functools.reduce(torch.add, parts) / len(parts),
    "amax": lambda parts: functools.reduce(torch.maximum, parts),
    "amin": lambda parts: functools.reduce(torch.minimum, parts),
}
"""What reductions over the new dimension of a `torch.stack` make of its tensors."""


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


def one_number(node: fx.Node, ledger: Ledger) -> Tensor | None:
    """The value of a constant of one number, None of anything else."""
    value = ledger.results.get(node)
    if not isinstance(value, Parameter) or not value.known or value.tensor.numel() != 1:
        return None
    return value.tensor.detach().reshape(())


def _number(value: Any, ledger: Ledger) -> float | None:
    """A number that is given as such, or worked out, or as a tensor that holds it alone."""
    if isinstance(value, fx.Node):
        tensor = one_number(value, ledger)
        value = ledger.results.get(value) if tensor is None else tensor.item()
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def scaling(node: fx.Node, ledger: Ledger) -> tuple[float, fx.Node] | None:
    """The number that a node multiplies by, and what: `2 * x`, `x / n`; None where it does something else."""
    if node.op not in ("call_function", "call_method") or len(node.args) != 2:
        return None
    left, right = node.args
    name, before, behind = function_name(node.target), _number(left, ledger), _number(right, ledger)
    if name in SCALES and isinstance(left, fx.Node) and behind is not None:
        return behind, left
    if name in SCALES and isinstance(right, fx.Node) and before is not None:
        return before, right
    return (1 / behind, left) if name in QUOTIENTS and isinstance(left, fx.Node) and behind else None


def operands(call: Call) -> tuple[Any, Any]:
    first = call.args[0] if call.args else call.kwargs.get("input", 0.0)
    return first, call.arg(1, "other", call.kwargs.get("value", 0.0))


def broadcast(call: Call, value: Any, position: int) -> State:
    """An operand as a state whose channel axis is counted in the result's dimensions."""
    x = call.state(value)
    if isinstance(value, Parameter):
        return x.changed(axis=len(call.shape) + x.axis) if x.axis < 0 else x
    rank = len(call.shape)
    node = call.node.args[position] if position < len(call.node.args) else None
    shape = first_shape(getattr(node, "meta", {}).get("value")) if node is not None else None
    return x.changed(axis=x.axis + rank - len(shape)) if shape and len(shape) < rank else x


def _pattern(x: State, axis: int) -> State:
    """What no noise reaches, with values along another dimension than `axis`, the channels: a pattern over
    them.
    """
    if np.any(x.noise) or x.groups == 1 or x.axis == axis:
        return x
    one = x.collapse().merged()
    more, none = one.t_dev**2, np.zeros_like(one.t_dev)
    return one.changed(
        axis=axis,
        counts=np.ones(1),
        t_dev=none,
        t_var=one.t_var + more,
        dev=by_row(none),
        var=one.var + by_row(more),
        sig=np.sqrt(by_row(one.data + more)),
        data=one.data + more,
    )


def both(call: Call) -> tuple[State, State]:
    """The operands with their channels in the same place, each with the mask that is pending on it."""
    left, right = operands(call)
    a, b = broadcast(call, left, 0), broadcast(call, right, 1)
    a, b = _pattern(a, b.axis), _pattern(b, a.axis)
    if a.axis != b.axis and a.groups > 1 and b.groups > 1:
        b = b.merged()
    return a, b


def pair_of(call: Call) -> tuple[State, State]:
    """The same, with one mask pending, if any."""
    return under_one_mask(call, *both(call))


def under_one_mask(call: Call, a: State, b: State) -> tuple[State, State]:
    """The operands with one mask pending, if any."""
    if a.components > 1 and b.components > 1 and not same_mask(call, a, b):
        a, b = latest(a, b)
    return a, b


def stacked(node: fx.Node) -> list[fx.Node] | None:
    """The tensors of a `torch.stack` whose new dimension `node` reduces again; None of other nodes."""
    if node.op not in ("call_function", "call_method") or function_name(node.target) not in OVER_STACK:
        return None
    stack = node.args[0] if node.args else None
    if not isinstance(stack, fx.Node) or function_name(stack.target) != "stack" or not stack.args:
        return None
    parts, rank = stack.args[0], len(first_shape(stack.meta.get("value")) or ())
    new = stack.args[1] if len(stack.args) > 1 else stack.kwargs.get("dim", 0)
    over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis"))
    over = over[0] if isinstance(over, (tuple, list)) and len(over) == 1 else over
    if (
        not isinstance(parts, (tuple, list))
        or not isinstance(new, int)
        or not isinstance(over, int)
        or not rank
    ):
        return None
    if len(first_shape(node.meta.get("value")) or ()) != rank - 1 or new % rank != over % rank:
        return None
    return [part for part in parts if isinstance(part, fx.Node)]
