"""Means of stacked tensors by random weights: FractalNet's drop-path (Larsson et al. 2017, Sec. 3).

`(stack(xs) * mask).sum(0) / mask.sum(0)`: what a mask does here is not seen at the product, but where its sum
divides, since the two go together. The weights are worked out from draws of the mask, as they really are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from dropout_lint.layers import DropoutSpec, Noise
from dropout_lint.trace.noise_by_hand import ARRAYS, SAME, Mask, function_name, is_random
from dropout_lint.trace.traced import BY_HAND, argument_of, shape_of

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
    data, shape = product.all_input_nodes[mask.operand], shape_of(product)
    total = _only_user(product, "sum")
    mean = None if total is None else _only_user(total, "truediv", "div")
    if mask.operand or mean is None or shape is None or len(product.all_input_nodes) != 2:
        return None
    dim = argument_of(total, (1, "dim"))  # type: ignore[arg-type]  # a node, since it has a user
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    if not isinstance(dim, int) or mean.args[0] is not total or not isinstance(mean.args[1], fx.Node):
        return None
    parts = product.all_input_nodes[1], mean.args[1]
    drawn = _values(*parts)
    if drawn is None or data in drawn.sources:
        return None
    weights = [one.expand(shape[dim], *one.shape[1:]) if dim == 0 else None for one, _ in drawn.pairs]
    if any(one is None for one in weights):
        return None
    columns = torch.cat(
        [
            (one / divisor).flatten(1)
            for one, (_, divisor) in zip(weights, drawn.pairs, strict=True)
            if one is not None
        ],
        1,
    )
    if not bool(columns.isfinite().all()):
        return None
    return mean, replace(mask, spec=_spec(columns), operand=0, sources=drawn.sources, scale=product)


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


class _Drawn:
    """Values of two nodes that draws alone have made, for several draws.

    Attributes:
        pairs: the values.
        sources: the draws.
    """

    def __init__(self, pairs: list[tuple[Tensor, Tensor]], sources: tuple[fx.Node, ...]) -> None:
        self.pairs = pairs
        self.sources = sources


def _values(one: fx.Node, other: fx.Node) -> _Drawn | None:
    """Both nodes run for some draws; None where more than draws makes them, or they do not go together."""
    steps: set[fx.Node] = set()
    pending = [one, other]
    while pending:
        node = pending.pop()
        if node in steps:
            continue
        steps.add(node)
        if ARRAYS not in node.meta and not isinstance(node.meta.get("value"), int):
            if node.op in ("placeholder", "call_module"):
                return None
            pending += node.all_input_nodes
    sources = tuple(node for node in one.graph.nodes if node in steps and is_random(node))
    if not sources:
        return None
    arrays = [node.meta[ARRAYS] for node in sources if ARRAYS in node.meta]
    runs = min(map(len, arrays), default=RUNS)
    order = [node for node in one.graph.nodes if node in steps]
    pairs = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for run in range(runs):
            try:
                env = _run(order, run)
            except Exception:  # an operation that needs what is not there
                return None
            pairs.append((env[one], env[other]))
    tensors = all(isinstance(value, Tensor) for pair in pairs for value in pair)
    return _Drawn(pairs, sources) if tensors else None


def _run(order: list[fx.Node], run: int) -> dict[fx.Node, Any]:
    env: dict[fx.Node, Any] = {}
    for node in order:
        if ARRAYS in node.meta:
            env[node] = node.meta[ARRAYS][run].clone()
        elif isinstance(node.meta.get("value"), int):
            env[node] = node.meta["value"]
        elif node.target is getattr:
            env[node] = torch.device("cpu")
        else:
            args, kwargs = fx.map_arg(node.args, env.__getitem__), fx.map_arg(node.kwargs, env.__getitem__)
            function: Any = getattr(Tensor, node.target) if isinstance(node.target, str) else node.target
            env[node] = function(*args, **kwargs)
    return env
