"""Attention, softmax and matrix products.

Derivation. Softmax weights over L positions are e^x / Σ e^x; the sum over many values is nearly L·E[e^x], in
each mode its own. They average over L_eff = 1/Σa² = L·E[e^x]²/E[e^{2x}] positions. So an attention's output
has the values' mean, its data part keeps the mean pair correlation of the L positions and 1/L_eff of the
rest, and loose noise falls to 1/L_eff. Dropout on the weights adds s·Σa²·E[v²] = s·E[v²]/L_eff.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from dropout_lint.prediction.algebra import product
from dropout_lint.prediction.correlation import mean_correlation
from dropout_lint.prediction.ops.base import (
    Call,
    NoRule,
    Parameter,
    first_shape,
    function,
    function_name,
    module,
)
from dropout_lint.prediction.ops.kernel import ONE_TAP
from dropout_lint.prediction.ops.linear import learned_gain
from dropout_lint.prediction.ops.linear_map import linear_map
from dropout_lint.prediction.ops.pooling import averaged
from dropout_lint.prediction.ops.softmax import energy, softmax_of
from dropout_lint.prediction.parts import quotient, replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State, fresh


def window_of(call: Call, length: int) -> tuple[int, ...]:
    """The positions behind a sequence of `length`: height and width where it was flattened from a map."""
    node: fx.Node = call.node
    pending, seen = list(node.all_input_nodes), set[fx.Node]()
    while pending and len(seen) < 40:
        source = pending.pop(0)
        if source in seen:
            continue
        seen.add(source)
        shape = first_shape(source.meta.get("value")) or ()
        if len(shape) == 4 and shape[2] * shape[3] in (length, length - 1) and min(shape[2:]) > 1:
            return shape[2], shape[3]
        pending.extend(source.all_input_nodes)
    return (length,)


def attended(call: Call, v: State, length: int, positions_averaged: float) -> State:
    """Weighted mean of `v` over `length` positions, effectively over `positions_averaged` of them."""
    n = min(max(positions_averaged, 1.0), float(max(length, 1)))
    if v.mask not in ("sample", "channel"):
        v = v.collapse()
    if length <= 1:
        return v
    whole = mean_correlation(v.rho, window_of(call, length))
    pair = max((whole * length - 1) / (length - 1), 0.0)
    rho = pair + (1 - pair) * v.rho * (1 - 1 / n)  # neighbours look at different positions, if at few
    return averaged(v, pair + (1 - pair) / n, n, call.ledger.tied, np.maximum(rho, pair))


def _length(call: Call, name: str, position: int, dim: int) -> int:
    """Size of a dimension of an argument, 1 where it is unknown."""
    node = call.node.args[position] if len(call.node.args) > position else call.node.kwargs.get(name)
    shape = first_shape(node.meta.get("value")) if isinstance(node, fx.Node) else None
    return shape[dim] if shape and -len(shape) <= dim < len(shape) else 1


@function("scaled_dot_product_attention", "memory_efficient_attention")
def sdpa(call: Call) -> State:
    """F.scaled_dot_product_attention(q, k, v, mask, dropout_p)."""
    q, k, v = (call.state(call.arg(i, name)) for i, name in enumerate(("query", "key", "value")))
    length, width = _length(call, "key", 1, -2), _length(call, "key", 1, -1)
    return _by_scores(call, (q, k, v), length, width)


def _by_scores(call: Call, projected: Sequence[State], length: int, width: int) -> State:
    """softmax(q·k/√width)·v over `length` positions, and the dropouts inside."""
    q, k, v = projected
    whole = [replace(s.merged(), counts=np.array([float(length)])) for s in (q, k)]
    whole = [s if s.sample_wide else s.collapse() for s in whole]
    scores = _product_over(call, whole[0], whole[1], width, positions=False).scaled(width**-0.5)
    weights = softmax_of(scores, (-1,), length)
    return _with_dropout(call, weighted(call, weights, v, length), v, weights.positions_averaged)


def weighted(call: Call, weights: State, v: State, length: int) -> State:
    """Weights of a softmax times values.

    Noise in the weights: the weights sum to 1 in either mode, so what upstream noise does to them only mixes
    the values' differences; a dropout on the weights is not made up for, and has all of E[v²].
    """
    over = max(weights.positions_averaged, 1.0)
    result = attended(call, v, length, over)
    whole = mean_correlation(v.rho, window_of(call, length)) if length > 1 else 1.0
    loose = v.train_var * (1 - whole)
    energy = v.train_var + v.train_mean**2 + v.train_dev**2
    ratio = _mask_power(weights)
    extra = np.outer(ratio, loose / over)
    if weights.source >= 0 and weights.levels:
        extra[weights.source] = ratio[weights.source] * energy / over
    return _noisier(result, extra)


def _noisier(x: State, extra: Array) -> State:
    """`x` with (S, G) more noise that positions do not share."""
    noise = x.noise + extra
    shared = quotient(x.noise * x.shared_by_positions, noise)
    return replace(x, noise=noise, shared_by_positions=shared, var=x.var + extra.sum(0))


def _with_dropout(call: Call, result: State, v: State, positions_averaged: float) -> State:
    energy = (v.train_var + v.train_mean**2 + v.train_dev**2) / max(positions_averaged, 1.0)
    extra = np.zeros_like(result.noise)
    for row, site in call.ledger.sources(call.node):
        extra[row] += min(site.spec.mask_variance, 1e6) * energy
    return _noisier(result, extra)


def _product_over(call: Call, a: State, b: State, inner: int, positions: bool) -> State:
    """Σ over `inner` of a·b: products of independent values, which correlate among positions as ρ_a·ρ_b."""

    z = product(a, b)
    if not positions or inner <= 1:
        spread = math.sqrt(inner)
        # a sum over the channels: means add up in size, variances in number
        return replace(
            z.scaled(spread),
            t_mean=z.t_mean * inner,
            mean=z.mean * inner,
            t_dev=z.t_dev * spread,
            dev=z.dev * spread,
        )
    # E[a]·b and a·E[b] go as one factor alone does, the rest as both
    flat, steep = _coherent(a, b)
    rho = (1 - flat - steep) * a.rho * b.rho + flat * a.rho + steep * b.rho
    z = replace(z, rho=rho)
    keep = mean_correlation(z.rho, window_of(call, inner))
    return averaged(z, keep, float(inner), call.ledger.tied, z.rho).scaled(float(inner))


def _coherent(a: State, b: State) -> tuple[float, float]:
    """Of the data part of a·b, what varies with a alone and with b alone."""
    va, vb = (float(s.t_var @ s.counts / s.counts.sum()) for s in (a, b))
    ma, mb = (float((s.t_mean**2 + s.t_dev**2) @ s.counts / s.counts.sum()) for s in (a, b))
    total = va * vb + va * mb + vb * ma
    return (va * mb / total, vb * ma / total) if total > 0 else (0.0, 0.0)


@function(
    "matmul", "bmm", "einsum", "mm", "baddbmm", "addmm", "imatmul", "mv", "dot", "inner", "outer", "tensordot"
)
def matmul(call: Call) -> State:
    """a @ b: weights times values where a is a softmax's output, else a sum of products of independent
    values.
    """
    places = [i for i, value in enumerate(call.args) if isinstance(value, (State, Parameter))]
    if call.name in ("addmm", "baddbmm") and len(places) == 3:
        places = places[1:]
    if len(places) < 2:
        raise NoRule
    left, right = call.args[places[0]], call.args[places[1]]
    axis = max(len(call.shape) - 1, 0)
    width = call.shape[-1] if call.shape else 1
    a, b = call.state(left), call.state(right)
    shape = _shape_of(call, places[0])
    inner = shape[-1] if shape else 1
    if call.name == "einsum":
        inner, axis, matrix = _einsum(call, places, left, right)
        width = call.shape[axis] if call.shape else 1
        if matrix is not None:
            values = matrix if matrix.numel() and not matrix.is_meta else None
            x = a if isinstance(left, State) else b
            gain = learned_gain(call, inner, 1)
            x = x.on(x.axis, inner)
            return linear_map(x, axis, inner, width, 1, ONE_TAP, values, None, learned=gain)
    if isinstance(left, Parameter) or (call.name == "einsum" and isinstance(right, Parameter)):
        raise NoRule  # it mixes positions
    for weights, v, first in ((a, b, True), (b, a, False)):
        if weights.positions_averaged > 0:
            result = weighted(call, weights, v, inner)
            rank = len(call.shape)
            place = axis if first else max(rank - 2, 0)  # a·v has v's columns, v·aᵀ v's rows
            return result.on(place, call.shape[place] if call.shape else width)
    if isinstance(right, Parameter) and call.name != "einsum":
        gain, known = learned_gain(call, inner, 1), _matrix(right, inner, width)
        return linear_map(a.on(axis, inner), axis, inner, width, 1, ONE_TAP, known, None, learned=gain)
    if np.any(a.noise) and np.any(b.noise) and not _are_scores(call.node):
        call.rough()  # both hold noise of the same data: taken as independent
    channels_inside = call.name != "einsum" and a.axis == len(shape) - 1
    pair = [s if s.sample_wide else s.collapse() for s in (a, b)]
    ones = np.array([float(width)])
    one, other = (replace(s.merged(), counts=ones, axis=axis) for s in pair)
    return _product_over(call, one, other, inner, positions=not channels_inside)


def _are_scores(node: fx.Node, depth: int = 6) -> bool:
    """Whether a softmax follows: an attention's scores, which only set how many positions are averaged."""
    if depth < 0:
        return False
    for user in node.users:
        if "softmax" in str(user.target).lower() or "softmax" in function_name(user.target).lower():
            return True
        if _are_scores(user, depth - 1):
            return True
    return False


def _shape_of(call: Call, place: int) -> tuple[int, ...]:
    node = call.node.args[place]
    return (first_shape(node.meta.get("value")) or ()) if isinstance(node, fx.Node) else ()


def _einsum(call: Call, places: list[int], left: Any, right: Any) -> tuple[int, int, torch.Tensor | None]:
    """Size of what is summed over, the axis of the result's channels, and the matrix of a weight operand."""
    equation = call.args[0] if isinstance(call.args[0], str) else ""
    terms, _, out = equation.replace(" ", "").partition("->")
    parts = terms.split(",")
    rank = max(len(call.shape) - 1, 0)
    if len(parts) != 2 or "." in equation or not out:
        raise NoRule
    sizes = {
        letter: size
        for part, place in zip(parts, places, strict=True)
        for letter, size in zip(
            part, _shape_of(call, place) or _parameter_shape(call.args[place]), strict=False
        )
    }
    summed = [letter for letter in sizes if letter not in out]
    inner = math.prod(sizes[letter] for letter in summed)
    for weight, part, x, data in ((right, parts[1], left, parts[0]), (left, parts[0], right, parts[1])):
        if not isinstance(weight, Parameter) or not isinstance(x, State):
            continue
        new = [letter for letter in part if letter not in data]
        if len(summed) == 1 and len(new) == 1 and len(part) == 2 and data.index(summed[0]) == x.axis:
            tensor = weight.tensor if part[0] == new[0] else weight.tensor.T
            return inner, out.index(new[0]), tensor[:, :, None]
    return inner, rank, None


def _parameter_shape(value: Any) -> tuple[int, ...]:
    return tuple(value.tensor.shape) if isinstance(value, Parameter) else ()


def _mask_power(weights: State) -> Array:
    """(S,) noise of each row relative to E[a²]: s for a dropout on the weights."""
    power = float(energy(weights)[1])
    result: Array = weights.noise.mean(1) / power if power > 0 else np.zeros(len(weights.noise))
    return result


def _matrix(parameter: Parameter, inner: int, width: int) -> Any:
    if not parameter.known or parameter.tensor.dim() != 2:
        return None
    tensor = parameter.tensor
    return tensor.T[:, :, None] if tuple(tensor.shape) == (inner, width) else None


@module("MultiheadAttention")
def multihead(call: Call) -> Any:
    """nn.MultiheadAttention: projections, attention with its dropout, output projection."""
    m: Any = call.module
    shape = call.in_shape
    batch_first = bool(m.batch_first) or len(shape) == 2
    length = _length(call, "key", 1, -2 if batch_first else 0)
    axis = len(shape) - 1
    q, k, v = (call.state(call.arg(i, name)) for i, name in enumerate(("query", "key", "value")))
    width = int(m.embed_dim)
    whole = m.in_proj_weight
    parts = whole.chunk(3) if whole is not None else (m.q_proj_weight, m.k_proj_weight, m.v_proj_weight)
    projected = []
    for x, weight in zip((q, k, v), parts, strict=True):
        known = None if weight.is_meta else weight[:, :, None]
        projected.append(
            linear_map(x.on(axis, weight.shape[1]), axis, weight.shape[1], width, 1, ONE_TAP, known, None)
        )
    mixed = _by_scores(call, projected, length, max(width // int(m.num_heads), 1))
    out = m.out_proj
    known = None if out.weight.is_meta else out.weight[:, :, None]
    gain = learned_gain(call, width, 1)
    result = linear_map(mixed, axis, width, width, 1, ONE_TAP, known, out.bias, learned=gain)
    return (result, call.state(0)) if isinstance(call.value, (tuple, list)) else result


def embedded(call: Call, weight: Any) -> State:
    """Rows of a table: the table's own moments, N(0, 1) as torch initialises it."""
    rows, width = len(call.ledger.dropouts), call.shape[-1] if call.shape else 1
    axis = max(len(call.shape) - 1, 0)
    base = fresh(rows, axis=axis, channels=width)
    tensor = weight.tensor if isinstance(weight, Parameter) else weight
    if tensor is None or tensor.is_meta or tensor.dim() != 2:
        return base
    table = tensor.detach().double()
    wide = base.per_channel()
    mean, var = table.mean(0).numpy(), table.var(0, correction=0).numpy()
    return replace(
        wide, t_mean=mean, t_var=var, mean=mean[None], var=var[None], sig=np.sqrt(var)[None], data=var
    )


@module("Embedding", "EmbeddingBag")
def embedding_module(call: Call) -> State:
    """nn.Embedding."""
    return embedded(call, getattr(call.module, "weight", None))


@function("embedding", "embedding_bag")
def embedding_function(call: Call) -> State:
    """F.embedding(input, weight)."""
    return embedded(call, call.arg(1, "weight"))
