"""Two tensors, element by element: norms written by hand, choices, the larger of two, gates.

The larger of two independent normals (Clark 1961): with θ² = v_a + v_b and α = (m_a - m_b)/θ,
E = m_a Φ(α) + m_b Φ(-α) + θφ(α) and E[·²] = (m_a² + v_a)Φ(α) + (m_b² + v_b)Φ(-α) + (m_a + m_b)θφ(α).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx

from dropout_lint.prediction.algebra import add, chosen, product, stretch
from dropout_lint.prediction.ops.activation import pointwise
from dropout_lint.prediction.ops.base import (
    Call,
    NoRule,
    Parameter,
    first_shape,
    function,
    function_name,
    module,
)
from dropout_lint.prediction.ops.constant import is_unknown_mask
from dropout_lint.prediction.ops.indices import is_of_indices
from dropout_lint.prediction.ops.operands import inputs, pair_of, same_mask
from dropout_lint.prediction.parts import quotient, replace
from dropout_lint.prediction.quadrature import SQRT_2PI, Array, moments_by_quadrature, normal_cdf
from dropout_lint.prediction.state import MOMENTS_ALONE, State, align

# --- norms by hand --------------------------------------------------------------------------------------

STATISTICS = ("std", "var", "norm", "vector_norm", "sqrt", "rsqrt", "mean", "sum", "pow", "add", "clamp",
              "clamp_min", "square", "iadd", "amax", "max", "expand_as", "expand", "abs", "maximum",
              "mul", "unsqueeze", "softplus", "exp", "reciprocal", "float", "type_as", "to", "var_mean",
              "std_mean", "getitem", "sub")  # fmt: skip


_PRODUCTS = frozenset({"mul", "imul", "rmul", "multiply", "div", "truediv", "idiv", "matmul", "bmm"})
_EXTREMES, _SIZES = frozenset({"amax", "max"}), frozenset({"sum", "mean", "norm", "std", "var", "exp"})


def _own_statistic(call: Call) -> tuple[int, tuple[int, ...], set[str]] | None:
    """Which argument of a quotient or product the other one is a statistic of, over which dimensions, and
    what it was made by; None where neither is.
    """
    nodes = call.node.args[:2]
    if len(nodes) < 2 or not all(isinstance(n, fx.Node) for n in nodes):
        return None
    for place in (0, 1) if "mul" in call.name else (0,):
        left, right = nodes[place], nodes[1 - place]
        assert isinstance(left, fx.Node) and isinstance(right, fx.Node)
        whole, shape = first_shape(left.meta.get("value")), first_shape(right.meta.get("value"))
        if whole is None or shape is None or len(whole) != len(shape) or whole == shape:
            continue
        scaled = function_name(left.target) in _PRODUCTS  # of another size than what it is made of
        names = _made_by(right, {left} if scaled else {left, *inputs(left)})
        if names is None or ("mul" in call.name and not names & {"rsqrt", "reciprocal"}):
            continue
        return (
            place,
            tuple(i for i, (n, m) in enumerate(zip(whole, shape, strict=True)) if n > 1 and m == 1),
            names,
        )
    return None


def _made_by(node: fx.Node, family: set[fx.Node]) -> set[str] | None:
    """Names of the operations between `node` and the tensors `family`; None where others come in."""
    pending, seen, names = [node], set[fx.Node](), set[str]()
    reached = False
    while pending and len(seen) < 30:
        one = pending.pop()
        if one in family:
            reached = True
            continue
        name = function_name(one.target)
        if one in seen or one.op == "call_module" or name not in STATISTICS:
            continue
        seen.add(one)
        names.add(name)
        pending.extend(inputs(one))
    return names if reached else None


def normalised(a: State, dims: tuple[int, ...], *, centred: bool = False, first: bool = False) -> State:
    """`a` over its own statistic over `dims`: each mode is divided by what it sees.

    The statistic is the root mean square, the standard deviation (`centred`) or the mean of sizes (`first`).
    Over many values it is nearly constant, and is so in each component of a mask that all of these values
    share: a channel's mask over positions, a sample's mask over anything. Such a mask is divided out again.
    """

    def size(mean: Array, dev: Array, var: Array) -> float:
        weight = a.counts / a.counts.sum()
        if first:
            return float(np.abs(mean) @ weight) or 1.0
        middle = float(mean @ weight) if centred else 0.0
        return math.sqrt(float((var + dev**2 + (mean - middle) ** 2) @ weight)) or 1.0

    test = size(a.t_mean, a.t_dev, a.t_var)
    if a.sample_wide or (a.mask == "channel" and a.axis not in dims):
        sizes = [size(*rows) for rows in zip(a.mean, a.dev, a.var, strict=True)]
        low = 1e-2 * max(sizes)  # what is 0 stays 0: the divisor's floor sees to that
        column = np.array([1 / one if one > low else 0.0 for one in sizes])[:, None]
    else:
        a = a.collapse()
        column = np.full((1, 1), 1 / size(a.train_mean, a.train_dev, a.train_var))
    sig = a.sig * column
    before, after = (a.prob @ a.sig) ** 2, (a.prob @ sig) ** 2
    scale = quotient(after, before, 1.0)
    return replace(
        a,
        t_mean=a.t_mean / test,
        t_dev=a.t_dev / test,
        t_var=a.t_var / test**2,
        mean=a.mean * column,
        dev=a.dev * column,
        sig=sig,
        var=a.var * column**2,
        data=a.data * scale,
        noise=a.noise * float(a.prob @ column[:, 0] ** 2),
        levels=(),
        **MOMENTS_ALONE,
        from_weight_layer=False,
        withheld=a.withheld / (test**2 * float(a.prob @ column[:, 0]) ** 2),
    ).balanced()


def self_normalised(call: Call) -> State | None:
    """A norm written by hand: x over, or times the inverse of, its own statistic; None where it is none.

    Its largest value is no such statistic: how far it lies above the others depends on what is dropped.
    """
    found = _own_statistic(call)
    if found is None:
        return None
    place, dims, names = found
    x = call.args[place]
    if not isinstance(x, State) or not dims or (names & _EXTREMES and not names & _SIZES):
        return None
    second = names & {
        "std",
        "var",
        "norm",
        "vector_norm",
        "pow",
        "square",
        "sqrt",
        "rsqrt",
        "std_mean",
        "var_mean",
    }
    return normalised(x, dims, centred=bool(names & {"std", "var", "std_mean", "var_mean"}), first=not second)


# --- choices --------------------------------------------------------------------------------------------

HUGE = 1e3
"""A fill value below -HUGE is an attention mask's: softmax leaves such positions out."""


def _fraction(call: Call, condition: Any) -> float:
    """Share of the positions at which a condition holds; ½ where nothing is known of it. That is said, and
    where it is one of indices, such as lengths, of which nothing is known.
    """
    x = call.state(condition)
    if (isinstance(condition, Parameter) and not condition.known) or is_unknown_mask(x):
        call.rough()
        return 0.5
    if any(is_of_indices(node, call.ledger) for node in call.node.all_input_nodes):
        call.rough()
    return float(np.clip(x.counts @ x.t_mean / x.counts.sum(), 0.0, 1.0))


def _is_huge(value: Any, state: State) -> bool:
    number = float(value) if isinstance(value, (int, float)) else float(state.t_mean.mean())
    return number < -HUGE and not np.any(state.t_var)


@function("where")
def selection(call: Call) -> State:
    """torch.where(condition, a, b)."""
    if len(call.node.args) < 3:
        raise NoRule
    condition, left, right = call.args[:3]
    a, b = call.state(left), call.state(right)
    if _is_huge(left, a):
        return b
    if _is_huge(right, b):
        return a
    if not np.any(a.noise) and not np.any(a.t_var) and not np.any(b.t_var):
        return a
    return chosen(a, b, _fraction(call, condition))


@function("masked_fill")
def filled(call: Call) -> State:
    """x.masked_fill(mask, value)."""
    x, value = call.x, call.arg(2, "value", 0.0)
    y = call.state(value)
    if _is_huge(value, y):
        return x
    return chosen(x, y, 1 - _fraction(call, call.arg(1, "mask")))


# --- the larger of two, and mixtures of two ---------------------------------------------------------------


def _clark(ma: Array, va: Array, mb: Array, vb: Array) -> tuple[Array, Array, Array]:
    theta = np.sqrt(np.maximum(va + vb, 1e-30))
    alpha = (ma - mb) / theta
    above, density = normal_cdf(alpha), np.exp(-np.minimum(alpha**2, 1400) / 2) / SQRT_2PI
    mean = ma * above + mb * (1 - above) + theta * density
    second = (ma**2 + va) * above + (mb**2 + vb) * (1 - above) + (ma + mb) * theta * density
    return mean, np.maximum(second - mean**2, 0.0), above


def largest_of_two(a: State, b: State, together: bool) -> State:
    """max(a, b); `together` where both carry the same pending mask."""
    a, b = align(a, b)
    if a.components > 1 and b.components > 1 and together:
        pairs = [(i, i, float(p)) for i, p in enumerate(a.prob)]
    else:
        pairs = [(i, j, float(p * q)) for i, p in enumerate(a.prob) for j, q in enumerate(b.prob)]
    rows = []
    for i, j, _ in pairs:
        va, vb = a.var[i] + a.dev[i] ** 2, b.var[j] + b.dev[j] ** 2
        mean, var, above = _clark(a.mean[i], va, b.mean[j], vb)
        first = above**2 * va + (1 - above) ** 2 * vb
        whole, data = va + vb, a.sig[i] ** 2 + b.sig[j] ** 2 + a.dev[i] ** 2 + b.dev[j] ** 2
        r = quotient(data, whole, 1.0)
        linear = above**2 * (a.sig[i] ** 2 + a.dev[i] ** 2) + (1 - above) ** 2 * (
            b.sig[j] ** 2 + b.dev[j] ** 2
        )
        rows.append((mean, var, np.sqrt(linear + np.maximum(var - first, 0.0) * r**2)))
    t_mean, t_var, above = _clark(a.t_mean, a.t_var + a.t_dev**2, b.t_mean, b.t_var + b.t_dev**2)
    prob = np.array([p for _, _, p in pairs])
    mean, var, sig = (np.stack([row[n] for row in rows]) for n in range(3))
    share = float(np.mean(above))
    noise = share * a.noise + (1 - share) * b.noise
    y = replace(
        a,
        t_mean=t_mean,
        t_dev=np.zeros_like(t_mean),
        t_var=t_var,
        prob=prob,
        mean=mean,
        dev=np.zeros_like(mean),
        sig=sig,
        var=var,
        data=(prob @ sig) ** 2,
        noise=noise,
        rho=share * a.rho + (1 - share) * b.rho,
        mask=a.mask if a.components > 1 else b.mask,
        source=a.source if a.components > 1 else b.source,
        levels=(),
        **MOMENTS_ALONE,
        from_weight_layer=False,
    ).balanced()
    keeps = y.components == max(a.components, b.components) and (
        together or 1 in (a.components, b.components)
    )
    return y if keeps else y.collapse()


def larger(call: Call) -> State:
    """torch.maximum, torch.minimum and torch.max of two tensors."""

    a, b = pair_of(call)
    together = same_mask(call, a, b)
    if call.name.startswith("min") or call.name == "fmin":
        return largest_of_two(a.scaled(-1.0), b.scaled(-1.0), together).scaled(-1.0)
    return largest_of_two(a, b, together)


@function("maximum", "minimum", "fmax", "fmin")
def extreme(call: Call) -> State:
    """torch.maximum(a, b)."""
    return larger(call)


@function("lerp")
def interpolation(call: Call) -> State:
    """a + weight·(b - a) for a number."""

    weight = call.arg(2, "weight")
    if not isinstance(weight, (int, float)):
        raise NoRule
    a, b = pair_of(call)
    return add(a.scaled(1.0 - weight), b.scaled(float(weight)))


@module("GLU")
@function("glu")
def gated(call: Call) -> State:
    """a·sigmoid(b) for the two halves of a tensor: independent values, but for a mask that samples share."""

    x = call.x
    dim = getattr(call.module, "dim", None) if call.module is not None else call.arg(1, "dim", -1)
    axis = int(dim if isinstance(dim, int) else -1) % max(len(call.in_shape), 1)
    size = call.in_shape[axis] // 2
    a, b = (stretch(x, 0, size), stretch(x, size, size)) if axis == x.axis else (x, x)
    if not x.sample_wide:
        b = b.collapse()
    return product(a, pointwise(b, moments_by_quadrature(torch.sigmoid)))
