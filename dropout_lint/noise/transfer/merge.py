"""Where tensors meet: add, multiply, concatenate.

Add. Noise that reaches both sides of an add is the same noise in two places; its covariance is Σ w·(...) over
the weights between, which has mean 0 for untrained weights, so variances add. A mask that is still pending on
both sides (no weights between) is the same mask: its components are added one by one, and so the coherence is
exact.

Multiply. For independent a and b: E[ab] = E[a]E[b], E[(ab)²] = E[a²]E[b²], in each mode and for the data part
alike.

Concatenate. Channels side by side: groups side by side. Along another dimension a position is in one or the
other part: moments are averaged by size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropout_lint.noise.quadrature import Array
from dropout_lint.noise.state import State, align
from dropout_lint.noise.transfer.base import Call, Parameter, first_shape, function
from dropout_lint.noise.transfer.pairs import as_one_function, same_mask, self_normalised

AGREEMENT = 0.3
"""Assumed correlation of what the data cause on a trained skip and in its branch."""


def _paired(a: State, b: State) -> tuple[State, State]:
    """The same groups and components in both."""
    if a.components > 1 and b.components > 1:
        same = a.source == b.source and a.mask == b.mask and a.components == b.components
        if not same:
            a, b = (a.collapse(), b) if b.mask == "sample" else (a, b.collapse())
    a, b = align(a, b)
    if a.components == b.components:
        return a, b
    if a.components == 1:
        return _repeated(a, b), b
    return a, _repeated(b, a)


def _repeated(x: State, like: State) -> State:
    k = like.components
    wide = {name: np.repeat(getattr(x, name), k, axis=0) for name in ("mean", "dev", "sig", "var")}
    return x.changed(prob=like.prob, mask=like.mask, source=like.source, levels=(), **wide)


def _mixed_rho(a: State, b: State) -> Array:
    left, right = float(a.counts @ a.t_var), float(b.counts @ b.t_var)
    return (a.rho * left + b.rho * right) / (left + right) if left + right > 0 else a.rho


def _mixed_spread(a: State, b: State) -> dict[str, float]:
    """Independent parts: covariances between channels have random signs, so squares add up."""
    left, right = float(a.counts @ a.t_var), float(b.counts @ b.t_var)
    if left + right <= 0:
        return {"alike": a.alike, "uneven": a.uneven}
    f, g = left / (left + right), right / (left + right)
    return {"alike": f**2 * a.alike + g**2 * b.alike, "uneven": f**2 * a.uneven + g**2 * b.uneven}


def _mixed_noise(a: State, b: State, left: Array, right: Array) -> dict[str, Array]:
    """Noise of two independent parts, and the shares in it."""
    total = left + right
    shared, old = (
        np.divide(left * f + right * g, total, out=np.zeros_like(total), where=total > 0)
        for f, g in ((a.shared, b.shared), (a.old, b.old))
    )
    return {"noise": total, "shared": shared, "old": old}


def add(a: State, b: State, sign: float = 1.0) -> State:
    """a + sign·b."""
    same = a.components > 1 and a.source == b.source and bool(a.levels) and bool(b.levels)
    if (
        not same and np.any(a.dev) and np.any(b.dev)
    ):  # two spreads have no common sign: components cannot hold both
        a, b = a.collapse(), b.collapse()
    a, b = _paired(a, b)
    result = a.changed(
        axis=max(a.axis, b.axis),
        t_mean=a.t_mean + sign * b.t_mean,
        t_dev=np.hypot(a.t_dev, b.t_dev),
        t_var=a.t_var + b.t_var,
        mean=a.mean + sign * b.mean,
        dev=np.where(b.dev == 0, a.dev, np.where(a.dev == 0, sign * b.dev, np.hypot(a.dev, b.dev))),
        sig=np.hypot(a.sig, b.sig),
        var=a.var + b.var,
        data=a.data + b.data,
        **_mixed_noise(a, b, a.noise, b.noise),
        weighed=False,
        gain=1.0,
        rho=_mixed_rho(a, b),
        **_mixed_spread(a, b),
        lift=_mean_lift(a, b),
        skew=_mean_skew(a, b, sign),
        under=None,
        levels=a.levels if same else (),
        spread_over=max(a.spread_over, b.spread_over),
    )
    return result.balanced() if result.components > 1 else result


def _mean_lift(a: State, b: State) -> Array:
    total = a.data + b.data
    lifted = a.lifted * a.data + b.lifted * b.data
    return np.divide(lifted, total, out=np.ones_like(total), where=total > 0)


def _mean_skew(a: State, b: State, sign: float) -> Array | None:
    """Third cumulants of independent parts add up."""
    if a.skew is None and b.skew is None:
        return None
    total = (a.data + b.data) ** 1.5
    third = (0.0 if a.skew is None else a.skew * a.data**1.5) + (
        0.0 if b.skew is None else np.sign(sign) * b.skew * b.data**1.5
    )
    return np.divide(third, total, out=np.zeros_like(total), where=total > 0)


def agreeing(total: State, a: State, b: State) -> State:
    """A sum whose parts' data correlate by `AGREEMENT` in train and in test mode."""
    a, b = align(a.collapse(), b.collapse())
    a, b = align(a, total)[0], align(b, total)[0]
    extra = 2 * AGREEMENT * np.sqrt(a.data * b.data)
    data = total.data + extra
    scale = np.divide(data, total.data, out=np.ones_like(data), where=total.data > 0)
    return total.changed(
        t_var=total.t_var + 2 * AGREEMENT * np.sqrt(a.t_var * b.t_var),
        sig=np.sqrt(total.sig**2 * scale),
        var=total.var + total.sig**2 * (scale - 1),
        data=data,
    )


def product(a: State, b: State) -> State:
    """a·b for independent a and b."""
    a, b = _paired(a, b)
    mean, t_mean = a.mean * b.mean, a.t_mean * b.t_mean
    a_mid, b_mid = a.mean**2 + a.dev**2, b.mean**2 + b.dev**2
    at_mid, bt_mid = a.t_mean**2 + a.t_dev**2, b.t_mean**2 + b.t_dev**2
    a_all, b_all = a.train_mean**2 + a.train_dev**2, b.train_mean**2 + b.train_dev**2
    left = a.noise * (b_all + b.train_var)
    right = b.noise * (a_all + a.data)
    spread, t_spread = (
        np.maximum(mid - product**2, 0.0) if np.any(one) or np.any(other) else np.zeros_like(mid)
        for mid, product, one, other in (
            (a_mid * b_mid, mean, a.dev, b.dev),
            (at_mid * bt_mid, t_mean, a.t_dev, b.t_dev),
        )
    )
    levels = a.levels if b.levels == () and not np.any(b.noise) else ()
    return a.changed(
        axis=max(a.axis, b.axis),
        t_mean=t_mean,
        t_dev=np.sqrt(t_spread),
        t_var=(at_mid + a.t_var) * (bt_mid + b.t_var) - at_mid * bt_mid,
        mean=mean,
        dev=np.sqrt(spread),
        sig=np.sqrt(np.maximum((a_mid + a.sig**2) * (b_mid + b.sig**2) - a_mid * b_mid, 0.0)),
        var=(a_mid + a.var) * (b_mid + b.var) - a_mid * b_mid,
        lift=None,
        skew=None,
        under=None,
        data=(a_all + a.data) * (b_all + b.data) - a_all * b_all,
        **_mixed_noise(a, b, left, right),
        weighed=False,
        rho=_mixed_rho(a, b),
        levels=levels,
        spread_over=max(a.spread_over, b.spread_over),
    ).balanced()


def _constant(value: Any) -> bool:
    return isinstance(value, (int, float, Parameter)) and not isinstance(value, bool)


def _operands(call: Call) -> tuple[Any, Any]:
    first = call.args[0] if call.args else call.kwargs.get("input", 0.0)
    return first, call.arg(1, "other", call.kwargs.get("value", 0.0))


def _broadcast(call: Call, value: Any, position: int) -> State:
    """An operand as a state whose channel axis is counted in the result's dimensions."""
    x = call.state(value)
    if isinstance(value, Parameter):
        return x.changed(axis=len(call.shape) + x.axis) if x.axis < 0 else x
    rank = len(call.shape)
    node = call.node.args[position] if position < len(call.node.args) else None
    shape = first_shape(getattr(node, "meta", {}).get("value")) if node is not None else None
    return x.changed(axis=x.axis + rank - len(shape)) if shape and len(shape) < rank else x


def _pair_of(call: Call) -> tuple[State, State]:
    left, right = _operands(call)
    a, b = _broadcast(call, left, 0), _broadcast(call, right, 1)
    if a.axis != b.axis and a.groups > 1 and b.groups > 1:
        b = b.merged()
    if a.components > 1 and b.components > 1 and not same_mask(call, a, b):
        b = b.collapse()
    return a, b


@function("add", "iadd", "radd", "sub", "isub", "subtract", "logaddexp")
def addition(call: Call) -> State:
    """a ± b; a skip is one of these."""
    sign = -1.0 if "sub" in call.name else 1.0
    alpha = call.kwargs.get("alpha", 1)
    a, b = _pair_of(call)
    left, right = (
        call.node.args[0] if call.node.args else None,
        call.node.args[1] if len(call.node.args) > 1 else None,
    )
    if left is right and left is not None:
        return a.scaled(1.0 + sign)
    total = add(a, b, sign * float(alpha if isinstance(alpha, (int, float)) else 1.0))
    return agreeing(total, a, b) if call.ledger.trained else total


@function("rsub")
def reversed_subtraction(call: Call) -> State:
    """b - a."""
    a, b = _pair_of(call)
    return add(a.scaled(-1.0), b)


@function("mul", "imul", "rmul", "multiply")
def multiplication(call: Call) -> State:
    """a·b; a number scales, an unknown parameter (layer scale) is passed as 1."""
    left, right = _operands(call)
    for x, factor in ((left, right), (right, left)):
        if isinstance(x, State) and _constant(factor):
            if isinstance(factor, Parameter) and not factor.known:
                return x
            if isinstance(factor, (int, float)):
                return x.scaled(float(factor))
    whole = as_one_function(call) or self_normalised(call)
    return whole if whole is not None else product(*_pair_of(call))


def concatenate(states: Sequence[State], axis: int, sizes: Sequence[int]) -> State:
    """Side by side in dimension `axis`."""
    if len({(s.components, s.source, s.mask) for s in states}) > 1:
        states = [s.collapse() for s in states]
    along = all(s.groups == 1 or s.axis == axis for s in states) and any(s.axis == axis for s in states)
    first = states[0]
    total = [float(s.counts @ s.t_var) for s in states]
    weight = np.array(total) / sum(total) if sum(total) > 0 else np.full(len(states), 1 / len(states))
    rho = sum((w * s.rho for w, s in zip(weight, states, strict=True)), np.zeros_like(first.rho))
    levels = first.levels if all(s.levels == first.levels for s in states) else ()
    if along:
        parts = [s.on(axis, size) for s, size in zip(states, sizes, strict=True)]
        joined = {
            name: np.concatenate([getattr(p, name) for p in parts], axis=-1)
            for name in (
                "counts",
                "t_mean",
                "t_dev",
                "t_var",
                "mean",
                "dev",
                "sig",
                "var",
                "data",
                "noise",
                "shared",
                "old",
            )
        }
        alike = float(weight**2 @ np.array([s.alike for s in states]))
        uneven = float(weight @ np.array([s.uneven for s in states]))
        if any(p.skew is not None for p in parts):
            joined["skew"] = np.concatenate([np.zeros(p.groups) if p.skew is None else p.skew for p in parts])
        joined["lift"] = np.concatenate([p.lifted for p in parts])
        return parts[0].changed(
            axis=axis, rho=rho, levels=levels, under=None, alike=alike, uneven=uneven, **joined
        )
    result, done = states[0].collapse(), float(sizes[0])
    for state, size in zip(states[1:], sizes[1:], strict=True):
        a, b = align(result, state.collapse())
        share = done / (done + size)
        blended = {
            name: share * getattr(a, name) + (1 - share) * getattr(b, name)
            for name in ("t_mean", "t_dev", "t_var", "mean", "dev", "sig", "var", "data")
        }
        mixed = _mixed_noise(a, b, share * a.noise, (1 - share) * b.noise)
        result, done = a.changed(rho=rho, lift=None, skew=None, under=None, **mixed, **blended), done + size
    return result


@function("cat", "concat", "concatenate", "hstack")
def concatenation(call: Call) -> State:
    """torch.cat(tensors, dim)."""
    parts = call.args[0] if call.args else call.kwargs.get("tensors", ())
    rank = len(call.shape)
    dim = call.arg(1, "dim", call.kwargs.get("axis", 0))
    axis = int(dim) % rank if isinstance(dim, int) and rank else 1
    nodes = call.node.args[0] if call.node.args else call.node.kwargs.get("tensors", ())
    sizes = [
        (
            shape[axis]
            if (shape := first_shape(getattr(n, "meta", {}).get("value"))) and len(shape) > axis
            else 1
        )
        for n in (nodes if isinstance(nodes, (tuple, list)) else ())
    ]
    states = [call.state(part) for part in parts]
    if not states:
        return call.state(0)
    return concatenate(states, axis, sizes if len(sizes) == len(states) else [1] * len(states))


@function("stack")
def stacking(call: Call) -> State:
    """torch.stack: a new dimension; moments are averaged over it."""
    states = [call.state(part) for part in call.args[0]]
    dim = call.arg(1, "dim", 0)
    merged = concatenate([s.collapse().merged() for s in states], -1, [1] * len(states))
    axis = states[0].axis + (1 if isinstance(dim, int) and 0 <= dim <= states[0].axis else 0)
    return merged.changed(axis=axis)
