"""Sums of one tensor's copies, and of tensors under masks that share their draws.

`(f(drop(x)) + f(drop(x))) / 2`, `f(drop(x)) - f(x)`: without dropout both sides are the same tensor. What the
data cause in them, and noise from before they part, is the same on both sides and adds up as it is, or
cancels; noise of masks of their own adds up in power.

`m * a + (1 - m) * b`: the masks m and m' of two products are made of the same draws. For independent a and b,

    Cov(m·a, m'·b) = Cov(m, m')·E[a]·E[b]

and each of the two noises has one half of twice that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, fx

from dropout_lint.prediction.abreast import of_a_single
from dropout_lint.prediction.algebra import add
from dropout_lint.prediction.ops.base import Call, Ledger, Parameter, function_name
from dropout_lint.prediction.ops.operands import scaling, stacked
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import MOMENTS_ALONE, State, align
from dropout_lint.trace.draws import is_random
from dropout_lint.trace.quantiles import multiplied

DEEP = 40
"""How many operations back two tensors are compared."""
_SUMS = frozenset({"add", "iadd", "radd"})

Multiple = tuple[float, fx.Node]
"""A tensor as a number of times the tensor at a node, in test mode."""


def multiple(node: fx.Node, ledger: Ledger) -> Multiple:
    """What a node is a multiple of: dropouts, numbers that scale it and sums of copies left out."""
    factor = 1.0
    while True:
        step = ledger.multiples.get(node) or _step(node, ledger)
        if step is None:
            return factor, node
        factor, node = factor * step[0], step[1]


def _step(node: fx.Node, ledger: Ledger) -> Multiple | None:
    """The tensor that a node only scales in test mode, None of other nodes."""
    if node in ledger.sites or node in ledger.silent:
        site = ledger.dropouts[ledger.sites[node]] if node in ledger.sites else None
        place, scale = (0, 1.0) if site is None else (site.operand, site.spec.scale)
        return (scale, node.all_input_nodes[place]) if node.all_input_nodes else None
    if function_name(node.target) not in _SUMS:
        return scaling(node, ledger)
    left = [value for value in node.args if not _is_nothing(value, ledger)]
    alone = left[0] if len(left) == 1 and len(node.args) == 2 else None
    return (1.0, alone) if isinstance(alone, fx.Node) else None


def _is_nothing(value: Any, ledger: Ledger) -> bool:
    """Whether what is added is 0, or zeros."""
    known = ledger.results.get(value) if isinstance(value, fx.Node) else value
    if isinstance(known, Parameter):
        return known.known and not bool(known.tensor.any())
    return isinstance(known, (int, float)) and known == 0


def same_in_test(one: fx.Node, other: fx.Node, ledger: Ledger, deep: int = DEEP) -> bool:
    """Whether two tensors are the same in test mode: the same operations on the same tensors."""
    if one is other:
        return True
    called = one.op == other.op and one.op in ("call_function", "call_method", "call_module")
    if not called or one.target != other.target or not deep:
        return False
    if is_random(one) or len(one.all_input_nodes) != len(other.all_input_nodes):
        return False
    if not one.all_input_nodes or _values(one) != _values(other):
        return False
    return all(
        left[0] == right[0] and same_in_test(left[1], right[1], ledger, deep - 1)
        for left, right in zip(
            (multiple(node, ledger) for node in one.all_input_nodes),
            (multiple(node, ledger) for node in other.all_input_nodes),
            strict=True,
        )
    )


def _values(node: fx.Node) -> str:
    """A call's arguments, each tensor by its place among them."""
    places = {source: place for place, source in enumerate(node.all_input_nodes)}
    return repr(fx.map_arg((node.args, dict(node.kwargs)), lambda source: f"<{places[source]}>"))


def sum_of_copies(call: Call, a: State, b: State, factor: float) -> State | None:
    """a + b, where b is `factor` times the second operand and both are, without dropout, multiples of one
    tensor; None where they are not.
    """
    nodes = [node for node in call.node.args[:2] if isinstance(node, fx.Node)]
    return _summed(call, nodes, [a, b], [1.0, factor]) if len(nodes) == 2 else None


def over_stack(call: Call) -> State | None:
    """The sum or mean of a stack's tensors that are copies; None of other tensors."""
    nodes = stacked(call.node) or []
    states = [call.ledger.results.get(node) for node in nodes]
    part = 1.0 if call.name == "sum" else 1 / max(len(nodes), 1)
    known = [state.scaled(part) for state in states if isinstance(state, State)]
    return _summed(call, nodes, known, [part] * len(nodes)) if len(known) == len(nodes) > 1 else None


def _summed(
    call: Call, nodes: Sequence[fx.Node], states: Sequence[State], factors: Sequence[float]
) -> State | None:
    """The sum of copies, given their states times their factors."""
    if not any(np.any(state.noise) for state in states):
        return None
    (whole, root), *others = (multiple(node, call.ledger) for node in nodes)
    if any(other is root or not same_in_test(root, other, call.ledger) for _, other in others):
        return None  # functions of one tensor itself: `one_tensor`
    total, whole = states[0], whole * factors[0]
    for (one, _), state, factor in zip(others, states[1:], factors[1:], strict=True):
        total = alike(total, state, math.copysign(1.0, whole * one * factor))
        whole += one * factor
    call.ledger.multiples[call.node] = whole, root
    return total


def alike(a: State, b: State, sign: float) -> State:
    """a + b, which but for noise of their own go along with one another, in opposite ways if `sign` is -1."""
    a, b = align(of_a_single(a).collapse(), of_a_single(b).collapse())
    y = add(a, b)

    def together(left: Array, right: Array) -> Array:
        result: Array = (np.sqrt(left) + sign * np.sqrt(right)) ** 2
        return result

    data, noise = together(a.data, b.data), together(a.noise, b.noise)
    return replace(
        y,
        t_dev=np.abs(a.t_dev + b.t_dev),
        t_var=together(a.t_var, b.t_var),
        dev=np.abs(a.dev + b.dev),
        sig=np.sqrt(data)[None],
        var=(data + noise.sum(0))[None],
        data=data,
        noise=noise,
        channel_correlation=a.channel_correlation,
        channel_spread=a.channel_spread,
        **MOMENTS_ALONE,
    )


# --- masks that share their draws -------------------------------------------------------------------------


def sum_under_one_draw(call: Call, a: State, b: State) -> State | None:
    """a + b for products of independent tensors and masks of the same draws; None of others."""
    if a.source < 0 or b.source < 0 or a.source == b.source or not a.levels or not b.levels:
        return None
    masks = masks_together([a.source, b.source], call.ledger)
    if masks is None:
        return None
    one, other = (mask / mask.mean() for mask in masks)
    covariance = float((one * other).mean()) - 1
    rows, (a, b) = [a.source, b.source], align(of_a_single(a).collapse(), of_a_single(b).collapse())
    y = add(a, b)
    common, noise = covariance * a.train_mean * b.train_mean, y.noise.copy()
    noise[rows] = np.maximum(noise[rows] + common, 0.0)
    return replace(y, noise=noise, var=y.data + noise.sum(0)[None])


def masks_together(rows: Sequence[int], ledger: Ledger) -> list[Tensor] | None:
    """The factors of several masks at the same draws; None where they do not all share some draws."""
    sites = [ledger.dropouts[row] for row in rows]
    sources = list(dict.fromkeys(source for site in sites for source in site.sources))
    if not all(set(site.sources).intersection(sites[0].sources) for site in sites):
        return None
    return multiplied([(site.node, site.node.all_input_nodes[site.operand]) for site in sites], sources)
