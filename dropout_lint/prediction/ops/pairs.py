"""Two tensors, element by element: quotients, choices, the larger of two, gates, and what is one function.

One function of one tensor. `x * sigmoid(x)`, `torch.where(x > 0, x, 0.1 * x)` or `torch.maximum(x, 0.2 * x)`
look like operations on two tensors, but these are no independent values: followed back through the graph they
are pointwise functions of one tensor, and are worked out as that (`as_one_function`).

Choice. Where a mask that does not depend on a and b takes a at a fraction f of the positions, else b, moments
are averaged and f(1 - f)(E a - E b)² is added, in either mode: it is a pattern, not noise.

The larger of two independent normals (Clark 1961): with θ² = v_a + v_b and α = (m_a - m_b)/θ,
E = m_a Φ(α) + m_b Φ(-α) + θφ(α) and E[·²] = (m_a² + v_a)Φ(α) + (m_b² + v_b)Φ(-α) + (m_a + m_b)θφ(α).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from dropout_lint.prediction.ops.activation import FUNCTIONS, PARAMETRISED, pointwise
from dropout_lint.prediction.ops.base import Call, Parameter, first_shape, function, function_name, module
from dropout_lint.prediction.ops.constant import is_unknown_mask
from dropout_lint.prediction.ops.pooling import root, through
from dropout_lint.prediction.quadrature import SQRT_2PI, Array, moments_by_quadrature, normal_cdf
from dropout_lint.prediction.state import MOMENTS_ALONE, State, align, replace

Point = Callable[[Tensor], Any]

ARITHMETIC: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("add", "iadd"), operator.add),
    **dict.fromkeys(("sub", "isub", "subtract"), operator.sub),
    "radd": lambda a, b: b + a,
    "rsub": lambda a, b: b - a,
    "rmul": lambda a, b: b * a,
    **dict.fromkeys(("mul", "imul", "multiply"), operator.mul),
    **dict.fromkeys(("div", "truediv", "idiv", "itruediv", "true_divide", "divide"), operator.truediv),
    "rtruediv": lambda a, b: b / a,
    **{name: getattr(torch, name) for name in ("maximum", "minimum", "where")},
    **{name: getattr(operator, name) for name in ("gt", "ge", "lt", "le", "pow")},
    **{name: getattr(torch, name) for name in ("relu", "zeros_like", "ones_like")},
    "leaky_relu": torch.nn.functional.leaky_relu,
    "masked_fill": lambda x, mask, value: x.masked_fill(mask, value),
    "float": lambda x: x.float() if x.dtype == torch.bool else x,
    "max": torch.maximum,
    "min": torch.minimum,
}
"""Operations that `as_one_function` follows, beside the activations."""
DEEP = 16
"""How many operations a function of one tensor may be made of."""


def _inputs(node: fx.Node) -> Iterator[fx.Node]:
    yield from (n for n in node.all_input_nodes if first_shape(n.meta.get("value")) is not None)


def _operation(node: fx.Node) -> Callable[..., Any] | None:
    if node.op not in ("call_function", "call_method"):
        return None
    name = function_name(node.target)
    return FUNCTIONS.get(name) or PARAMETRISED.get(name) or ARITHMETIC.get(name)


def _leads(node: fx.Node, root: fx.Node, left: int) -> bool:
    """Whether `node` is a pointwise function of `root` alone."""
    if node is root:
        return True
    if left <= 0 or _operation(node) is None:
        return False
    sources = list(_inputs(node))
    shape = first_shape(node.meta.get("value"))
    return bool(sources) and all(
        first_shape(s.meta.get("value")) == shape and _leads(s, root, left - 1) for s in sources
    )


def _evaluated(node: fx.Node, root: fx.Node, t: Tensor) -> Any:
    if node is root:
        return t
    operation = _operation(node)
    assert operation is not None
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda n: _evaluated(n, root, t))
    return operation(*args, **{name: value for name, value in kwargs.items() if name != "inplace"})


def as_one_function(call: Call) -> State | None:
    """The result as a pointwise function of one argument, where all arguments are functions of that one."""
    sources = list(_inputs(call.node))
    if len(sources) < 2 or _operation(call.node) is None:
        return None
    states = {n: s for n, s in zip(call.node.args, call.args, strict=False) if isinstance(n, fx.Node)}
    for source in sources:
        x = states.get(source)
        root = source
        while isinstance(x, State) and root is not None:
            if all(_leads(other, root, DEEP) for other in sources):
                node, start = call.node, root

                def f(t: Tensor) -> Tensor:
                    result: Tensor = _evaluated(node, start, t).to(t.dtype)  # noqa: B023
                    return result

                return through(x, f) if x.before_relu is not None else pointwise(x, moments_by_quadrature(f))
            root, x = _before(root, x)
    return None


def _before(node: fx.Node, x: State) -> tuple[Any, State]:
    """The tensor that `node` is a number times, or plus a number, and its state."""
    name = function_name(node.target) if node.op in ("call_function", "call_method") else ""
    if len(node.args) != 2 or node.kwargs:
        return None, x
    a, b = node.args
    other, number = (a, b) if isinstance(a, fx.Node) else (b, a)
    if not isinstance(other, fx.Node) or not isinstance(number, (int, float)) or isinstance(number, bool):
        return None, x
    if name in ("mul", "imul", "rmul", "multiply") and number:
        return other, x.scaled(1 / number)
    if name in ("div", "truediv") and number and other is a:
        return other, x.scaled(float(number))
    if name in ("add", "iadd", "radd"):
        return other, x.scaled(1.0, -float(number))
    return None, x


# --- the same mask on both sides ------------------------------------------------------------------------

MOVES = ("roll", "flip", "chunk", "split", "tensor_split", "getitem", "narrow", "select", "index_select",
         "gather", "unbind", "fliplr", "flipud", "rot90", "unflatten")  # fmt: skip


def _moves(node: fx.Node, root: fx.Node, seen: set[fx.Node]) -> tuple[str, ...] | None:
    """What moves values about on the way from `root` to `node`; None where there is no way."""
    if node is root:
        return ()
    if node in seen or len(seen) > 200:
        return None
    seen.add(node)
    for source in node.all_input_nodes:
        way = _moves(source, root, seen)
        if way is not None:
            name = function_name(node.target) if node.op != "call_module" else ""
            return (*way, f"{name}{node.args[1:]}{node.kwargs}") if name in MOVES else way
    return None


def same_mask(call: Call, a: State, b: State) -> bool:
    """Whether the masks pending on the call's two operands fall on the same elements.

    A dropout's output that is split, rolled or flipped carries the same mask elsewhere: next to another part
    of it that is an independent one. A whole sample's mask is the same in all its parts.
    """
    if a.source != b.source or a.source < 0 or a.mask != b.mask:
        return False
    nodes = [n for n in call.node.args[:2] if isinstance(n, fx.Node)]
    if a.sample_wide or len(nodes) < 2:
        return True
    root = call.ledger.dropouts[a.source].node
    one, other = (_moves(n, root, set()) for n in nodes)
    return one == other


# --- division -------------------------------------------------------------------------------------------

STATISTICS = ("std", "var", "norm", "vector_norm", "sqrt", "rsqrt", "mean", "sum", "pow", "add", "clamp",
              "clamp_min", "square", "iadd", "amax", "max", "expand_as", "expand", "abs", "maximum",
              "mul", "unsqueeze", "softplus", "exp", "reciprocal", "float", "type_as", "to", "var_mean",
              "std_mean", "getitem", "sub")  # fmt: skip


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
        names = _made_by(right, {left, *_inputs(left)})
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
        pending.extend(_inputs(one))
    return names if reached else None


@function("div", "truediv", "idiv", "itruediv", "true_divide", "divide")
def division(call: Call) -> State:
    """a/b. By a statistic of a itself it is a norm written by hand; by another tensor a·(1/b)."""
    from dropout_lint.prediction.ops.merge import _pair_of, product

    left, right = (call.args[0], call.arg(1, "other")) if call.args else (0.0, 1.0)
    if isinstance(right, (int, float)):
        a = call.state(left)
        return a.scaled(1.0 / float(right)) if right else a
    if isinstance(right, Parameter) and not right.known:
        return call.state(left)
    whole = as_one_function(call)
    if whole is not None:
        return whole
    whole = self_normalised(call)
    if whole is not None:
        return whole
    a, b = _pair_of(call)
    return product(a, reciprocal(b))


@function("rtruediv", "rdiv")
def reversed_division(call: Call) -> State:
    """Number / x."""
    other = call.arg(1, "other", 1.0)
    y = reciprocal(call.x)
    return y.scaled(float(other)) if isinstance(other, (int, float)) else y


def reciprocal(b: State) -> State:
    """1/b for a b that stays on one side of 0, as divisors do; taken as log-normal (`pooling.root`)."""
    if float(b.counts @ b.t_mean) < 0:
        return root(b.scaled(-1.0), -1.0).scaled(-1.0)
    return root(b, -1.0)


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
    scale = np.divide(after, before, out=np.ones_like(after), where=before > 0)
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
    ).balanced()


def self_normalised(call: Call) -> State | None:
    """A norm written by hand: x over, or times the inverse of, its own statistic; None where it is none."""
    found = _own_statistic(call)
    if found is None:
        return None
    place, dims, names = found
    x = call.args[place]
    if not isinstance(x, State) or not dims:
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


def chosen(a: State, b: State, f: float) -> State:
    """`a` at a fraction `f` of the positions, else `b`."""
    from dropout_lint.prediction.ops.merge import _mixed_noise, _paired

    a, b = _paired(a, b)
    cut = f * (1 - f)

    def spread(one: Array, other: Array, dev: Array, far: Array) -> Array:
        result: Array = cut * ((one - other) ** 2 + (dev - far) ** 2)
        return result

    within = spread(a.mean, b.mean, a.dev, b.dev)
    y = replace(
        a,
        t_mean=f * a.t_mean + (1 - f) * b.t_mean,
        t_dev=f * a.t_dev + (1 - f) * b.t_dev,
        t_var=f * a.t_var + (1 - f) * b.t_var + spread(a.t_mean, b.t_mean, a.t_dev, b.t_dev),
        mean=f * a.mean + (1 - f) * b.mean,
        dev=f * a.dev + (1 - f) * b.dev,
        sig=np.sqrt(f * a.sig**2 + (1 - f) * b.sig**2 + within),
        var=f * a.var + (1 - f) * b.var + within,
        data=f * a.data + (1 - f) * b.data + spread(a.train_mean, b.train_mean, a.train_dev, b.train_dev),
        **_mixed_noise(a, b, f * a.noise, (1 - f) * b.noise),
        levels=a.levels if not np.any(b.mean) and not np.any(b.var) and not np.any(b.dev) else (),
        **MOMENTS_ALONE,
        from_weight_layer=False,
    )
    return y.balanced()


def _fraction(call: Call, condition: Any) -> float:
    """Share of the positions at which a condition holds; ½, and counted, where nothing is known of it."""
    x = call.state(condition)
    if (isinstance(condition, Parameter) and not condition.known) or is_unknown_mask(x):
        call.ledger.fallback(call.name)
        return 0.5
    return float(np.clip(x.counts @ x.t_mean / x.counts.sum(), 0.0, 1.0))


def _is_huge(value: Any, state: State) -> bool:
    number = float(value) if isinstance(value, (int, float)) else float(state.t_mean.mean())
    return number < -HUGE and not np.any(state.t_var)


@function("where")
def selection(call: Call) -> State:
    """torch.where(condition, a, b)."""
    if len(call.node.args) < 3:
        call.ledger.fallback(call.name)
        return call.state(0)
    whole = as_one_function(call)
    if whole is not None:
        return whole
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
    whole = as_one_function(call)
    return whole if whole is not None else chosen(x, y, 1 - _fraction(call, call.arg(1, "mask")))


@function("mask_fill", "masked_scatter")
def scattered(call: Call) -> State:
    """Values of another tensor at some positions: how many is unknown, counted."""
    call.ledger.fallback(call.name)
    return call.x


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
        r = np.divide(data, whole, out=np.ones_like(whole), where=whole > 0)
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
    from dropout_lint.prediction.ops.merge import _pair_of

    whole = as_one_function(call)
    if whole is not None:
        return whole
    a, b = _pair_of(call)
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
    from dropout_lint.prediction.ops.merge import _pair_of, add

    weight = call.arg(2, "weight")
    if not isinstance(weight, (int, float)):
        call.ledger.fallback(call.name)
        weight = 0.5
    a, b = _pair_of(call)
    return add(a.scaled(1.0 - weight), b.scaled(float(weight)))


@module("GLU")
@function("glu")
def gated(call: Call) -> State:
    """a·sigmoid(b) for the two halves of a tensor: independent values, but for a mask that samples share."""
    from dropout_lint.prediction.ops.merge import product
    from dropout_lint.prediction.ops.shape import stretch

    x = call.x
    dim = getattr(call.module, "dim", None) if call.module is not None else call.arg(1, "dim", -1)
    axis = int(dim if isinstance(dim, int) else -1) % max(len(call.in_shape), 1)
    size = call.in_shape[axis] // 2
    a, b = (stretch(x, 0, size), stretch(x, size, size)) if axis == x.axis else (x, x)
    if not x.sample_wide:
        b = b.collapse()
    return product(a, pointwise(b, moments_by_quadrature(torch.sigmoid)))
