"""The arithmetic between draws and a node, done once more at each quantile of the draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from dropout_lint.trace.draws import NORMAL, VALUES, filled_with, function_name, is_random
from dropout_lint.trace.traced import argument_of, function_of, shape_of

DRAWS = 4000
"""Quantiles at which a mask is worked out: ratios of at most three decimals come out exactly."""
STEPS = (0.0, (math.sqrt(5) - 1) / 2, math.sqrt(2) - 1, math.sqrt(3) - 1)
"""Of a mask made of several draws, each goes round its quantiles in steps of its own (Kronecker sequence)."""
POOLS = ("max_pool",)
_SHAPING = frozenset(
    {
        *("view", "reshape", "expand", "expand_as", "unsqueeze", "squeeze", "contiguous", "detach", "clone"),
        *("repeat", "permute", "transpose", "flatten", "getitem", "mutated", "broadcast_to", "tile"),
        *("repeat_interleave", "movedim", "swapaxes", "unflatten"),
    }
)
_CASTS = frozenset({"to", "type", "type_as", "float", "double", "half", "bfloat16", "bool", "int", "long"})


def multipliers(
    product: fx.Node, source: fx.Node, data: fx.Node
) -> tuple[Tensor | None, tuple[fx.Node, ...]]:
    """What `product` makes of a 1 in `data`, for a draw at each of `DRAWS` quantiles of its distribution, and
    the draws that it is made of: `source`, and those that join it on the way.

    The arithmetic between them is done once more, on a vector of quantiles: however a mask is compared,
    turned round, filled or scaled, its values and how often they come are seen. None where some step of it
    cannot be done so.
    """
    work = _Work([source], {data: torch.ones(DRAWS, dtype=torch.float64)})
    result = work.result(product)
    return result, tuple(work.sources)


def multiplied(
    products: Sequence[tuple[fx.Node, fx.Node]], sources: Sequence[fx.Node]
) -> list[Tensor] | None:
    """What each of several products makes of a 1 in its data, all of them at the same quantiles of `sources`;
    None where that cannot be worked out.

    Args:
        products: product and data.
        sources: all draws that they are made of.
    """
    ones = torch.ones(DRAWS, dtype=torch.float64)
    found = [_Work(list(sources), {data: ones}).result(product) for product, data in products]
    known = [factors for factors in found if factors is not None]
    return known if len(known) == len(found) else None


def made_of_draws(node: fx.Node) -> Tensor | None:
    """(DRAWS,) equally likely values of a one-element tensor that draws alone have made, None of others."""
    shape = shape_of(node)
    return None if shape is None or math.prod(shape) != 1 else _Work([], {}).result(node)


def constant_number(value: Any) -> float | None:
    """A number that is given as such, or as a tensor filled with it or worked out to hold it alone; None of
    anything else.
    """
    number = filled_with(value)
    if number is not None or not isinstance(value, fx.Node) or shape_of(value) not in ((), (1,)):
        return number
    work = _Work([], {})
    try:
        result = work.of(value)
    except Exception:  # made of data, or by an operation that needs its operands' shapes
        return None
    known = isinstance(result, (int, float)) or (isinstance(result, Tensor) and result.numel() == 1)
    return float(result) if known and not work.sources else None


class _Work:
    """The arithmetic between draws and a node, done once more at each quantile of the draws.

    Args:
        sources: the draws that are known; what joins them on the way is added.
        known: node → its values.
    """

    def __init__(self, sources: list[fx.Node], known: dict[fx.Node, Any]) -> None:
        self.sources = sources
        self._known = known

    def result(self, node: fx.Node) -> Tensor | None:
        """(DRAWS,) values of a node; None where some step cannot be done so, or no draw comes to it."""
        try:
            result = self.of(node)
        except Exception:  # an operation that needs its operands' shapes, or too many draws
            return None
        taken = isinstance(result, Tensor) and result.shape == (DRAWS,)
        return result.double() if taken else None

    def of(self, node: fx.Node) -> Any:
        if node not in self._known:
            if node not in self.sources and is_random(node):
                self.sources.append(node)
            if VALUES in node.meta:
                self._known[node] = node.meta[VALUES]
            elif node in self.sources:
                self._known[node] = _drawn(node, self.of, self._quantiles(node))
            else:
                self._known[node] = _done(node, self.of)
        return self._known[node]

    def _quantiles(self, source: fx.Node) -> Tensor:
        place = self.sources.index(source)
        steps = torch.arange(DRAWS, dtype=torch.float64) + 0.5
        return (steps * STEPS[place]) % 1 if place else steps / DRAWS


def _drawn(node: fx.Node, of: Callable[[fx.Node], Any], quantiles: Tensor) -> Tensor:
    """A random draw at each quantile."""
    if node.target is F.dropout:
        values = [*node.args[1:], node.kwargs.get("p", 0.5)]
        dropped = float(values[0])  # type: ignore[arg-type]  # a number, or none that is known
        ones: Tensor = of(node.all_input_nodes[0]) * (quantiles >= dropped).double()
        return ones / (1 - dropped)
    args = [value for value in (*node.args[1:], *node.kwargs.values()) if isinstance(value, (int, float))]
    if node.target in ("bernoulli", "bernoulli_", torch.bernoulli):
        keep = args[0] if args else of(node.all_input_nodes[0])
        return (quantiles < keep).double()
    if node.target == "uniform_":
        low, high = float(argument_of(node, (1, "from"), 0.0)), float(argument_of(node, (2, "to"), 1.0))
        return low + (high - low) * quantiles
    if function_name(node) not in NORMAL:
        return quantiles
    normal: Tensor = torch.special.ndtri(quantiles)
    if node.target == "normal_":
        mean, deviation = argument_of(node, (1, "mean"), 0.0), argument_of(node, (2, "std"), 1.0)
        return float(mean) + float(deviation) * normal
    return normal


def _done(node: fx.Node, of: Callable[[fx.Node], Any]) -> Any:
    """The value of a node of mask arithmetic; what only gives a tensor another shape passes it on."""
    value = node.meta.get("value")
    if isinstance(value, (bool, int, float)):
        return value
    name = function_name(node)
    number = filled_with(node)
    if number is not None:
        return number
    if node.op not in ("call_function", "call_method"):
        raise ValueError("not worked out from draws alone")
    args = [_as_tensor(item) for item in fx.map_arg(node.args, of)]
    if name in _SHAPING or any(pool in name for pool in POOLS):
        return args[-1] if name == "mutated" else args[0]
    if name in _CASTS:
        return args[0].bool() if name == "bool" else args[0].double()
    kwargs = {key: _as_tensor(item) for key, item in fx.map_arg(node.kwargs, of).items()}
    return function_of(node)(*args, **kwargs)


def _as_tensor(value: Any) -> Any:
    """Numbers as tensors, tensors as copies that may be overwritten."""
    if isinstance(value, Tensor):
        return value.clone()
    return torch.tensor(value) if isinstance(value, (bool, int, float)) else value
