"""Means of stacked tensors by random weights: FractalNet's drop-path (Larsson et al. 2017, Sec. 3).

`(stack(xs) * mask).sum(0) / mask.sum(0)`: what a mask does here is not seen at the product, but where its sum
divides, since the two go together. The weights are worked out from draws of the mask, as they really are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from dropout_lint.layers import DropoutSpec, Noise
from dropout_lint.trace.draws import ARRAYS, function_name, is_random
from dropout_lint.trace.noise_by_hand import SAME, Mask
from dropout_lint.trace.traced import BY_HAND, argument_of, function_of, shape_of

RUNS = 64
"""How often a mask is drawn whose arrays are not known."""


def blended(masks: Mapping[fx.Node, Mask]) -> dict[fx.Node, Mask]:
    """Masks by product, those of a mean by random weights at its division."""
    found = {}
    for product, mask in masks.items():
        node, blend = _blend(product, mask) or (product, mask)
        found[node] = blend
    return found


def _blend(product: fx.Node, mask: Mask) -> tuple[fx.Node, Mask] | None:
    """The division of a weighted sum by the sum of its weights, None where a product is none of its parts."""
    total, shape = _only_user(product, "sum"), shape_of(product)
    mean = None if total is None else _only_user(total, "truediv", "div")
    if mask.operand or total is None or mean is None or shape is None or len(product.all_input_nodes) != 2:
        return None
    dim, divisor = argument_of(total, (1, "dim")), mean.args[1]
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    if not isinstance(dim, int) or mean.args[0] is not total or not isinstance(divisor, fx.Node):
        return None
    made = _made(product.all_input_nodes[1], divisor)
    if made is None:
        return None
    sources, pairs = made
    if any(weight.dim() != len(shape) or weight.shape[dim] != shape[dim] for weight, _ in pairs):
        return None
    weights = torch.cat([(weight.movedim(dim, 0) / whole).flatten(1) for weight, whole in pairs], 1)
    if not bool(weights.isfinite().all()):
        return None
    return mean, replace(mask, spec=_spec(weights), operand=0, sources=sources, scale=product)


def _spec(weights: Tensor) -> DropoutSpec:
    """The noise of (C, n) weights drawn n times, as a mask of its variance, and the moments of their sum."""
    count, sums = len(weights), weights.sum(0)
    mean, variance = float(sums.mean()), float(sums.var(correction=0))
    within = count * float(weights.var(1, correction=0).sum()) - variance
    mean = 1.0 if abs(mean - 1) < SAME else round(mean, 3)
    p = round(within / (1 + within), 3)
    return DropoutSpec(BY_HAND, Noise.BLEND, p, scale=1 / count, weights=(mean, round(variance, 3)))


def _only_user(node: fx.Node, *names: str) -> fx.Node | None:
    (user,) = node.users if len(node.users) == 1 else (None,)
    return user if user is not None and function_name(user) in names else None


def _made(one: fx.Node, other: fx.Node) -> tuple[tuple[fx.Node, ...], list[tuple[Tensor, Tensor]]] | None:
    """The draws that two nodes are made of, and both their values for several of them; None where more than
    draws makes them, or where they cannot be run alone.
    """
    steps = _ancestors(one, other)
    if steps is None:
        return None
    sources = tuple(node for node in steps if is_random(node))
    runs = min((len(node.meta[ARRAYS]) for node in sources if ARRAYS in node.meta), default=RUNS)
    pairs = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for run in range(runs):
            try:
                values = _run(steps, run)
            except Exception:  # an operation that needs what is not there
                return None
            pairs.append((values[one], values[other]))
    tensors = all(isinstance(value, Tensor) for pair in pairs for value in pair)
    return (sources, pairs) if sources and tensors else None


def _ancestors(*nodes: fx.Node) -> list[fx.Node] | None:
    """What nodes are made of, in order; None where inputs, layers or weights are among it."""
    found: set[fx.Node] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node in found:
            continue
        found.add(node)
        if ARRAYS in node.meta or isinstance(node.meta.get("value"), int) or node.target is getattr:
            continue
        if node.op not in ("call_function", "call_method"):
            return None
        pending += node.all_input_nodes
    return [node for node in nodes[0].graph.nodes if node in found]


def _run(steps: Sequence[fx.Node], run: int) -> dict[fx.Node, Any]:
    env: dict[fx.Node, Any] = {}
    for node in steps:
        if ARRAYS in node.meta:
            env[node] = node.meta[ARRAYS][run].clone()
        elif isinstance(node.meta.get("value"), int):
            env[node] = node.meta["value"]
        elif node.target is getattr:
            env[node] = torch.device("cpu")
        else:
            args, kwargs = fx.map_arg(node.args, env.__getitem__), fx.map_arg(node.kwargs, env.__getitem__)
            env[node] = function_of(node)(*args, **kwargs)
    return env
