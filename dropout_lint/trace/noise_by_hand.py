"""Dropout written by hand: a random mask (`torch.bernoulli`, `torch.rand_like(x) > p`) on an activation."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from dropout_lint.layers import DropoutSpec, Noise
from dropout_lint.trace.types import TensorInfo, shape_of

_RANDOM_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset({torch.rand, torch.rand_like, torch.bernoulli})
_RANDOM_METHODS = frozenset({"bernoulli", "bernoulli_", "uniform_"})
_PRODUCTS: frozenset[Callable[..., Any]] = frozenset({operator.mul, operator.imul, torch.mul, torch.where})
_PRODUCT_METHODS = frozenset({"mul", "mul_", "masked_fill", "masked_fill_"})
_POOLS = ("max_pool",)


def find_masks(graph: fx.Graph) -> dict[fx.Node, DropoutSpec]:
    """Products of an activation and a random mask, each with the dropout that it amounts to."""
    follows = _data_dependent(graph)
    found: dict[fx.Node, DropoutSpec] = {}
    for node in graph.nodes:
        if is_random(node) and node not in found:
            _follow(node, follows, found)
    return found


def _follow(source: fx.Node, follows: set[fx.Node], found: dict[fx.Node, DropoutSpec]) -> None:
    """Walk from a random draw through mask arithmetic to the activations that it multiplies."""
    queue, seen, pooled, ratio = [source], {source}, False, _ratio_drawn(source)
    while queue:
        node = queue.pop()
        for user in node.users:
            if user in seen:
                continue
            seen.add(user)
            others = [other for other in user.all_input_nodes if other not in seen and other in follows]
            if _is_product(user) and others and _same_or_wider(user, others):
                data = max(others, key=lambda other: len(shape_of(other) or ()))
                found[user] = DropoutSpec(
                    "random mask", _noise(shape_of(node), shape_of(data), pooled), ratio
                )
                continue
            if _is_product(user) and others:
                continue
            ratio = _ratio_compared(user, ratio)
            pooled = pooled or any(pool in str(user.target) for pool in _POOLS)
            if user.op in ("call_function", "call_method"):
                queue.append(user)


def is_random(node: fx.Node) -> bool:
    """Whether `node` draws random numbers that a mask may be made of."""
    if node.op == "call_function":
        return node.target in _RANDOM_FUNCTIONS
    return node.op == "call_method" and node.target in _RANDOM_METHODS


def _is_product(node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target in _PRODUCTS
    return node.op == "call_method" and node.target in _PRODUCT_METHODS


def _same_or_wider(product: fx.Node, others: list[fx.Node]) -> bool:
    shape = shape_of(product)
    return shape is not None and any(shape_of(other) == shape for other in others)


def _ratio_drawn(node: fx.Node) -> float:
    """Drop ratio of a Bernoulli draw with a constant keep probability; NaN where it is not a constant."""
    if node.target in ("bernoulli_", "bernoulli"):
        values = [*node.args[1:], *node.kwargs.values()]
        keep = next((value for value in values if isinstance(value, (int, float))), None)
        if keep is not None:
            return 1 - float(keep)
    if node.target is torch.bernoulli and node.args and isinstance(node.args[0], fx.Node):
        filled = node.args[0]
        constants = [value for value in filled.args[1:] if isinstance(value, float)]
        if constants:
            return 1 - constants[-1]
    return float("nan")


def _ratio_compared(node: fx.Node, ratio: float) -> float:
    """Drop ratio of `rand > p` (keeps what is above), `rand < k` (keeps what is below), `floor(k + rand)`."""
    constants = [value for value in node.args if isinstance(value, float)]
    if not constants:
        return ratio
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in ("gt", "ge", "sub"):
        return constants[0]
    if name in ("lt", "le", "add", "iadd", "add_"):
        return 1 - constants[0]
    return ratio


def _noise(mask: tuple[int, ...] | None, data: tuple[int, ...] | None, pooled: bool) -> Noise:
    if pooled:
        return Noise.BLOCK
    if mask is None or data is None or len(mask) != len(data):
        return Noise.ELEMENT
    if all(size == 1 for size in mask):
        return Noise.BATCH
    if all(size == 1 for size in mask[1:]):
        return Noise.SAMPLE
    if len(mask) > 2 and all(size == 1 for size in mask[2:]):
        return Noise.CHANNEL
    return Noise.ELEMENT


def _data_dependent(graph: fx.Graph) -> set[fx.Node]:
    """Nodes whose values depend on the model's inputs by more than their shape."""
    follows: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            follows.add(node)
        elif isinstance(node.meta.get("value"), int) or node.target is getattr or _only_borrows_shape(node):
            continue
        elif any(argument in follows for argument in node.all_input_nodes):
            follows.add(node)
    return follows


def _only_borrows_shape(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.startswith(
        ("new_", "rand_like", "randn_like", "zeros_like", "ones_like", "empty_like", "full_like")
    ) or (not isinstance(node.meta.get("value"), (TensorInfo, tuple, list, dict)))
