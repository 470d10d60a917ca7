"""Nodes that draw random numbers, and those that take nothing but a shape from their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from dropout_lint.trace.traced import TensorInfo

NORMAL = frozenset({"randn", "randn_like", "normal_"})
_RANDOM_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    {torch.rand, torch.rand_like, torch.bernoulli, torch.randn, torch.randn_like}
)
_RANDOM_METHODS = frozenset({"bernoulli", "bernoulli_", "uniform_", "normal_"})
VALUES = "values"
"""In the `meta` of a node that holds what chance made in Python: (DRAWS,) equally likely values of it."""
ARRAYS = "arrays"
"""Beside them, for an array: its values as they were in several recordings."""
COUNT = "count"
"""Beside them: how many values were drawn for them; 0 where they are quantiles."""

LEFT_OUT = "left out"
"""In the `meta` of a `left_out`: the probability that the layer is."""


def left_out(result: torch.Tensor, instead: torch.Tensor) -> torch.Tensor:
    """In a graph: what a layer returns, for which `instead` stands where chance leaves it out of a batch."""
    return result


def is_random(node: fx.Node) -> bool:
    """Whether `node` draws random numbers that a mask may be made of."""
    if VALUES in node.meta:
        return True
    if node.op == "call_function":
        return node.target in _RANDOM_FUNCTIONS
    return node.op == "call_method" and node.target in _RANDOM_METHODS


def drops_ones(node: fx.Node) -> bool:
    """Whether `node` is dropout of a constant, as `F.dropout(torch.ones_like(x), p)`: a mask."""
    if node.op != "call_function" or node.target is not F.dropout or not node.all_input_nodes:
        return False
    return filled(function_name(node.all_input_nodes[0])) in ("ones", "full")


def borrows_shape(node: fx.Node) -> bool:
    """Whether what a node returns depends on its arguments by their shape, dtype or device alone."""
    if VALUES in node.meta or isinstance(node.meta.get("value"), int) or node.target is getattr:
        return True
    name = function_name(node)
    if name.startswith(
        ("new_", "rand_like", "randn_like", "zeros_like", "ones_like", "empty_like", "full_like")
    ):
        return True
    value = node.meta.get("value")
    holds = value is None and name == "getitem"  # an object that another one holds
    return not holds and not isinstance(value, (TensorInfo, tuple, list, dict))


def function_name(node: fx.Node) -> str:
    """The name of the function or method that a node calls, empty where it has none."""
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", ""))


def filled(name: str) -> str:
    """`ones` for `new_ones` and `ones_like`."""
    return name.removeprefix("new_").removesuffix("_like")


def filled_with(value: Any) -> float | None:
    """A number that is given as such or as a tensor filled with it, None of anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, fx.Node) or value.op not in ("call_function", "call_method"):
        return None
    kind = filled(function_name(value))
    if kind in ("zeros", "ones"):
        return float(kind == "ones")
    given = [
        float(item)
        for item in (*value.args, *value.kwargs.values())
        if isinstance(item, (int, float)) and not isinstance(item, bool)
    ]
    return given[-1] if kind in ("full", "tensor") and given else None
