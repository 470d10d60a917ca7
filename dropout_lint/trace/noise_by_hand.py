"""Dropout written by hand: a random mask (`torch.bernoulli`, `torch.rand_like(x) > p`) on an activation."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from dropout_lint.layers import DropoutSpec, Noise
from dropout_lint.trace.draws import (
    COUNT,
    LEFT_OUT,
    NORMAL,
    borrows_shape,
    drops_ones,
    function_name,
    is_random,
    left_out,
)
from dropout_lint.trace.quantiles import POOLS, constant_number, multipliers
from dropout_lint.trace.sharing import varies
from dropout_lint.trace.traced import BY_HAND, shape_of

_PRODUCTS: frozenset[Callable[..., Any]] = frozenset({operator.mul, operator.imul, torch.mul, torch.where})
_PRODUCT_METHODS = frozenset({"mul", "mul_", "masked_fill", "masked_fill_"})
SAME = 0.005
"""Scales that differ by less than this part are the same."""


@dataclass(frozen=True)
class Mask:
    """A product of an activation and a random mask.

    Attributes:
        spec: the dropout that it amounts to.
        operand: which of the product's input nodes is the activation.
        sources: the draws that the mask is made of.
        scale: the node beside the product that divides by the keep probability.
        tolerance: how far from the truth the mask's mean may be, relative.
    """

    spec: DropoutSpec
    operand: int
    sources: tuple[fx.Node, ...]
    scale: fx.Node | None = None
    tolerance: float = SAME


def find_masks(graph: fx.Graph) -> dict[fx.Node, Mask]:
    """Products of an activation and a random mask, each with the dropout that it amounts to."""
    follows = _data_dependent(graph)
    found: dict[fx.Node, Mask] = {}
    for node in graph.nodes:
        if node.target is left_out:
            spec = DropoutSpec("LayerDrop", Noise.LAYER, node.meta[LEFT_OUT])
            found[node] = Mask(spec, operand=0, sources=(node,))
        elif node not in found and (is_random(node) or drops_ones(node)):
            _follow(node, follows, found)
    return found


def _follow(source: fx.Node, follows: set[fx.Node], found: dict[fx.Node, Mask]) -> None:
    """Walk from a random draw through mask arithmetic to the activations that it multiplies."""
    queue, seen, pooled = [source], {source}, False
    while queue:
        node = queue.pop()
        for user in node.users:
            if user in seen:
                continue
            seen.add(user)
            others = [other for other in user.all_input_nodes if other not in seen and other in follows]
            if _is_product(user) and others and _same_or_wider(user, others):
                data = max(others, key=lambda other: len(shape_of(other) or ()))
                factors, sources = multipliers(user, source, data)
                tolerance = _tolerance(factors, sources)
                along = None if pooled else varies(node, sources, shape_of(data) or ())
                noise = Noise.BLOCK if pooled else _noise(along, shape_of(data))
                spec = replace(_amounts_to(factors, noise, tolerance), varies=along)
                if along is None and not pooled:
                    spec = replace(spec, p=math.nan)
                if function_name(source) in NORMAL and math.isnan(
                    spec.p
                ):  # added, or a sample around a mean of 0
                    continue
                scale = _scale_beside(user, data, spec, tolerance)
                if scale is not None:
                    by = _by_number(scale)
                    p = spec.p if tolerance == SAME or by is None else round(1 - 1 / by, 3)
                    spec = replace(spec, p=p, rescales=True, kept=None)
                found[user] = Mask(spec, user.all_input_nodes.index(data), sources, scale, tolerance)
                continue
            if _is_product(user) and others:
                continue
            pooled = pooled or any(pool in str(user.target) for pool in POOLS)
            if user.op in ("call_function", "call_method"):
                queue.append(user)


def _tolerance(factors: Tensor | None, sources: Iterable[fx.Node]) -> float:
    """How far from the truth the mean of a mask may be found, relative: three standard errors of a sample."""
    counts = [source.meta[COUNT] for source in sources if source.meta.get(COUNT)]
    if factors is None or not counts or not float(factors.mean()):
        return SAME
    spread = float(factors.std() / factors.mean().abs())
    return max(SAME, 3 * spread / math.sqrt(min(counts)))


def _amounts_to(factors: Tensor | None, noise: Noise, tolerance: float = SAME) -> DropoutSpec:
    """The dropout that multiplies by such factors: kept or dropped, or noise around a mean."""
    kind, unknown = BY_HAND, float("nan")
    if factors is None or not bool(factors.isfinite().all()):
        return DropoutSpec(kind, noise, unknown)
    mean = float(factors.mean())
    right = math.isclose(mean, 1, rel_tol=tolerance)
    if len(set(factors.tolist())) <= 2:
        return _dropping(factors, noise, right, tolerance)
    if abs(mean) < SAME or noise not in (Noise.ELEMENT, Noise.CHANNEL, Noise.SAMPLE, Noise.BATCH):
        return DropoutSpec(kind, noise, unknown)
    scale = 1.0 if right else mean
    relative = float(factors.var(correction=0)) / mean**2
    if noise is Noise.BATCH:  # a mask of this ratio varies as much
        return DropoutSpec(kind, noise, round(relative / (1 + relative), 3), scale=scale)
    if noise is Noise.SAMPLE:
        return DropoutSpec(kind, Noise.GATE, round(relative, 3), scale=scale)
    beta = math.sqrt(3 * relative)  # s = β²/3
    return DropoutSpec(kind, Noise.UNIFORM, round(beta, 3), channelwise=noise is Noise.CHANNEL, scale=scale)


def _dropping(factors: Tensor, noise: Noise, right: bool, tolerance: float) -> DropoutSpec:
    """The dropout that multiplies by 0 or by another number, `right` where this leaves the mean."""
    dropped = round(float((factors == 0).double().mean()), 3)
    if not dropped and right:
        return DropoutSpec(BY_HAND, noise, 0.0)
    if not 0 < dropped < 1:
        return DropoutSpec(BY_HAND, noise, dropped or math.nan)
    kept = float(factors.max() + factors.min())
    if right and tolerance > SAME:
        dropped = round(1 - 1 / kept, 3)
    return DropoutSpec(BY_HAND, noise, dropped, rescales=right, kept=None if right else kept)


def as_in_test(mask: Mask, product: fx.Node, test: fx.Graph | None) -> DropoutSpec:
    """The spec of a mask whose mean is not 1, if the code of test mode multiplies by that as well.

    It does where the same module's forward has a product with that number in test mode, and none is needed
    for a mean of 1; where it takes the mean, it gives all that it takes it of the same weight. Else nothing
    is known of a mask that is spread around its mean. Of one that drops it is known that it has another mean
    than test mode: by the one number that test mode alone multiplies by, where there is one, or by 1.
    """
    spec = mask.spec
    if spec.scale == 1 and (spec.kept is None or spec.noise is Noise.BLEND):
        return spec
    beside = _of_owner(test, product)
    if spec.noise is Noise.BLEND:
        even = any(function_name(node) == "mean" for node in beside)
        return spec if even else replace(spec, p=math.nan)
    numbers = [factor for node in beside if (factor := _by_number(node)) is not None]
    if spec.kept is not None:
        return _dropping_in_test(spec, numbers, _of_owner(product.graph, product), mask.tolerance)
    same = (number for number in numbers if math.isclose(number, spec.scale, rel_tol=mask.tolerance))
    scale = next(same, None)
    return replace(spec, p=math.nan) if scale is None else replace(spec, scale=scale)


def _of_owner(graph: fx.Graph | None, product: fx.Node) -> list[fx.Node]:
    """The nodes of a graph that the forward of the same module made as `product`."""
    owner = product.meta.get("owner")
    return [node for node in (graph.nodes if graph is not None else ()) if node.meta.get("owner") == owner]


def _dropping_in_test(
    spec: DropoutSpec, numbers: Iterable[float], train: Iterable[fx.Node], tolerance: float
) -> DropoutSpec:
    """`spec`, of an unscaled mask, where test mode multiplies by `numbers`: the scale may stand there."""
    assert spec.kept is not None
    in_both = Counter(factor for node in train if (factor := _by_number(node)) is not None)
    only_in_test = list((Counter(numbers) - in_both).elements())
    for number in only_in_test:
        if math.isclose(number, spec.mask_mean, rel_tol=tolerance):
            return replace(spec, rescales=True, kept=None, scale=number)
    if len(set(only_in_test)) > 1:
        return replace(spec, p=math.nan)
    for number in only_in_test:
        return replace(spec, kept=spec.kept / number, scale=number)
    return spec


def _by_number(node: fx.Node) -> float | None:
    """The number that a node multiplies by, None where it does something else."""
    if node.op == "call_module" or len(node.args) != 2:
        return None
    before, behind = (constant_number(value) or None for value in node.args)
    name = function_name(node)
    if (before is None) == (behind is None):
        return None
    if name in ("mul", "rmul", "imul"):
        return before or behind
    return 1 / behind if name in ("truediv", "div") and behind is not None else None


def _scale_beside(product: fx.Node, data: fx.Node, spec: DropoutSpec, tolerance: float) -> fx.Node | None:
    """The node before or behind a product with an unscaled mask that divides by the keep probability."""
    if spec.kept is None or not math.isclose(spec.kept, 1.0):
        return None
    for node in (*product.users, data) if len(product.users) == 1 else (data,):
        by = _by_number(node)
        if by is None or (node is data and len(data.users) > 1):
            continue
        if math.isclose(by, 1 / (1 - spec.p), rel_tol=tolerance):
            return node
    return None


def _is_product(node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target in _PRODUCTS
    return node.op == "call_method" and node.target in _PRODUCT_METHODS


def _same_or_wider(product: fx.Node, others: list[fx.Node]) -> bool:
    shape = shape_of(product)
    return shape is not None and any(shape_of(other) == shape for other in others)


def _noise(along: tuple[int, ...] | None, data: tuple[int, ...] | None) -> Noise:
    """The kind of noise of a mask that differs along some dimensions."""
    if along is None or data is None:
        return Noise.ELEMENT
    if not along:
        return Noise.BATCH
    if along == (0,):
        return Noise.SAMPLE
    return Noise.CHANNEL if along == (0, 1) and len(data) > 2 else Noise.ELEMENT


def _data_dependent(graph: fx.Graph) -> set[fx.Node]:
    """Nodes whose values depend on the model's inputs by more than their shape."""
    follows: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or (
            not borrows_shape(node) and any(argument in follows for argument in node.all_input_nodes)
        ):
            follows.add(node)
    return follows
