"""What looks like an operation on several tensors, and is a function of one tensor and of masks drawn for it.

`x * sigmoid(x)`, `torch.where(x > 0, x, 0.1 * x)`, `x + drop(x)` and `drop(x) * drop2(x)` have operands that
are not independent: followed back through the graph they are pointwise functions of one tensor t, and of one
draw for each dropout on the way. Given the draws m they are worked out as a pointwise function f_m of t: a
component of the mixture for each combination of draws. With f̄ the mean of f_m over the draws:

    Var_train = Var over t and m of f_m(t)      the data's part = Var over t of f̄(t)
    noise of dropout i ∝ E over t of Var over m_i of E[f_m(t) | m_i]     (interactions go along)

The test-mode value is f with every dropout the identity, which need not be f̄: `drop(x) * drop(x)` has
E[m²] = 1/k.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from dropout_lint.prediction.abreast import of_a_single
from dropout_lint.prediction.ops.activation import FUNCTIONS, PARAMETRISED, pointwise
from dropout_lint.prediction.ops.base import Call, Ledger, first_shape, function_name
from dropout_lint.prediction.ops.copies import masks_together
from dropout_lint.prediction.ops.dropout import Draw, draws, with_noise
from dropout_lint.prediction.ops.operands import OVER_STACK, inputs, one_number, stacked
from dropout_lint.prediction.ops.powers import below_rectifier, through
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.quadrature import moments_by_quadrature
from dropout_lint.prediction.state import MOMENTS_ALONE, State

ARITHMETIC: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("add", "iadd"), operator.add),
    **dict.fromkeys(("sub", "isub", "subtract"), operator.sub),
    "radd": lambda a, b: b + a,
    "rsub": lambda a, b: b - a,
    "rmul": lambda a, b: b * a,
    **dict.fromkeys(("mul", "imul", "multiply"), operator.mul),
    **dict.fromkeys(("div", "truediv", "idiv", "itruediv", "true_divide", "divide"), operator.truediv),
    "rtruediv": lambda a, b: b / a,
    **{name: getattr(torch, name) for name in ("maximum", "minimum", "where", "lerp", "abs", "square")},
    **{name: getattr(operator, name) for name in ("gt", "ge", "lt", "le", "eq", "ne", "pow", "neg")},
    **{name: getattr(torch, name) for name in ("relu", "zeros_like", "ones_like", "full_like")},
    "leaky_relu": torch.nn.functional.leaky_relu,
    "masked_fill": lambda x, mask, value: torch.where(mask, value, x),
    "float": lambda x: x.float() if x.dtype == torch.bool else x,
    "max": torch.maximum,
    "min": torch.minimum,
}
"""Operations that are followed, beside the activations."""
_STEPS = frozenset({"sign", "sgn", "round", "floor", "ceil", "trunc", "heaviside"})
"""Functions whose values are a few numbers, which no normal stands for."""
DEEP = 64
"""How many operations a function of one tensor may be made of."""
HUGE = 1e3
"""A number below -HUGE marks positions that a softmax is to leave out."""
MOST_DRAWS = 256
"""Most combinations of draws that are evaluated."""
MOST_TOGETHER = 16
"""Masks of the same draws that take more values than this are worked out at so many of them."""


@dataclass(frozen=True)
class Tree:
    """Pointwise operations and dropouts that lead from one tensor, `root`, to `node`.

    Attributes:
        parents: node → the tensors that it is a function of, of all on the way.
        rows: the dropouts among them.
        scales: what a dropout's result is times in either mode.
        constants: tensors of one number on the way.
    """

    node: fx.Node
    root: fx.Node
    parents: Mapping[fx.Node, list[fx.Node]]
    rows: Mapping[fx.Node, int]
    scales: Mapping[fx.Node, float]
    constants: Mapping[fx.Node, Tensor]

    def function(self, drawn: Mapping[int, Draw]) -> Callable[[Tensor], Tensor]:
        """What `node` is of `root`, dropouts as drawn; a dropout that is not in `drawn` is the identity."""
        return lambda t: self._value(t, {row: (draw.factor, draw.shift) for row, draw in drawn.items()})

    def functions(self, combined: Sequence[Mapping[int, Draw]]) -> Callable[[Tensor], Tensor]:
        """(…) → (C, …): the same for each of several combinations of draws."""
        drawn = {
            row: [torch.tensor([getattr(one[row], name) for one in combined]) for name in ("factor", "shift")]
            for row in combined[0]
        }

        def values(t: Tensor) -> Tensor:
            shape = (-1, *[1] * t.dim())
            given = {
                row: tuple(part.to(t.dtype).view(shape) for part in parts) for row, parts in drawn.items()
            }
            return self._value(t, given).expand(len(combined), *t.shape)

        return values

    def _value(self, t: Tensor, drawn: Mapping[int, Any]) -> Tensor:
        known: dict[fx.Node, Any] = {**self.constants, self.root: t}

        def at(node: fx.Node) -> Any:
            if node not in known:
                known[node] = self._evaluated(node, at, drawn)
            return known[node]

        result: Tensor = at(self.node).to(t.dtype)
        return result

    def _evaluated(self, node: fx.Node, at: Callable[[fx.Node], Any], drawn: Mapping[int, Any]) -> Any:
        operation = _operation(node)
        if operation is not None and node not in self.rows:
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), at)
            return operation(*args, **{name: value for name, value in kwargs.items() if name != "inplace"})
        parts = [at(parent) for parent in self.parents[node]]
        over_stack = OVER_STACK.get(function_name(node.target))
        if over_stack is not None and node not in self.rows:
            return over_stack(parts)
        x = parts[0] * self.scales.get(node, 1.0)
        factor, shift = drawn.get(self.rows.get(node, -1), (1.0, 0.0))
        return factor * x + shift


def _operation(node: fx.Node) -> Callable[..., Any] | None:
    if node.op not in ("call_function", "call_method"):
        return None
    name = function_name(node.target)
    return FUNCTIONS.get(name) or PARAMETRISED.get(name) or ARITHMETIC.get(name)


def _draws(node: fx.Node, ledger: Ledger) -> tuple[Draw, ...]:
    """What the dropout at `node` draws."""
    spec = ledger.dropouts[ledger.sites[node]].spec
    return draws(spec.at(first_shape(node.meta.get("value")) or ()))


def _parents(node: fx.Node, ledger: Ledger) -> list[fx.Node] | None:
    """The tensors of which `node` is a function, element by element; None where it is none."""
    if node in ledger.sites:
        drawn, site = _draws(node, ledger), ledger.dropouts[ledger.sites[node]]
        followed = drawn and not any(draw.fill for draw in drawn)
        return node.all_input_nodes[site.operand : site.operand + 1] if followed else None
    if node in ledger.silent:
        return list(inputs(node))[:1]
    if any(isinstance(value, (int, float)) and value < -HUGE for value in node.args):  # leaves positions out
        return None
    if _operation(node) is not None:
        sources = [source for source in inputs(node) if one_number(source, ledger) is None]
        shape = first_shape(node.meta.get("value"))
        same = all(first_shape(source.meta.get("value")) == shape for source in sources)
        return sources if same and sources else None
    return stacked(node)


def _trees(node: fx.Node, ledger: Ledger) -> Iterator[Tree]:
    """The ways to see `node` as a function of one tensor, the nearest first.

    Whatever lies on the latest tensor of those that are left to be followed lies on all ways to `node` once
    it is the only one.
    """
    left, rows, ways = {node}, dict[fx.Node, int](), dict[fx.Node, list[fx.Node]]()
    constants: dict[fx.Node, Tensor] = {}
    for _ in range(DEEP):
        latest = max(left, key=ledger.order.__getitem__)
        if latest is not node and len(left) == 1:
            scales = {site: ledger.dropouts[row].spec.scale for site, row in rows.items()}
            yield Tree(node, latest, dict(ways), dict(rows), scales, dict(constants))
            if latest in ledger.measured:  # a trained norm knows it better than what lies before
                return
        parents = _parents(latest, ledger)
        if parents is None:
            return
        if latest in ledger.sites:
            rows[latest] = ledger.sites[latest]
        ways[latest] = parents
        constants |= {n: v for n in inputs(latest) if (v := one_number(n, ledger)) is not None}
        left = (left - {latest}) | set(parents)


def as_one_function(call: Call) -> State | None:
    """The result of an operation on several tensors that are functions of one; None where they are not.

    Without a dropout on the way, of the nearest such tensor that takes more than a few values; with one, of
    the farthest, whose values are the most normal.
    """
    several = sum(one_number(node, call.ledger) is None for node in inputs(call.node)) > 1
    if not several and stacked(call.node) is None:
        return None
    found: Tree | None = None
    for tree in _trees(call.node, call.ledger):
        if not isinstance(call.ledger.results.get(tree.root), State):
            continue
        many = len(set(tree.rows.values())) > math.log2(MOST_DRAWS)
        if found is not None and (many or not (tree.rows or function_name(found.root.target) in _STEPS)):
            break
        found = tree
    if found is None or len(set(found.rows.values())) > math.log2(MOST_DRAWS):
        return None
    x = of_a_single(call.ledger.results[found.root])
    if found.rows:
        return _over_draws(found, x, call.ledger)
    f = found.function({})
    return through(x, f) if x.before_relu is not None else pointwise(x, moments_by_quadrature(f))


def _over_draws(tree: Tree, x: State, ledger: Ledger) -> State:
    """A component for each combination of draws."""
    x = x.collapse()
    normal = below_rectifier(x)
    base, rectified = (x, False) if normal is None else (normal, True)

    def of_base(of_root: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return (lambda t: of_root(t.clamp(min=0))) if rectified else of_root

    rows = sorted(set(tree.rows.values()))
    combined = _combined(rows, ledger)
    probability = torch.tensor([each for each, _ in combined], dtype=torch.float64)
    every, test_mode = of_base(tree.functions([drawn for _, drawn in combined])), of_base(tree.function({}))
    functions = [of_base(tree.function(drawn)) for _, drawn in combined]

    def mean(values: Tensor, weights: Tensor = probability) -> Tensor:
        """Mean over the combinations that have a weight."""
        result: Tensor = torch.einsum("c,c...->...", (weights / weights.sum()).to(values.dtype), values)
        return result

    def energy(row: int) -> Callable[[Tensor], Tensor]:
        """Variance over the draws of one dropout of the mean over those of the others."""
        taken = [drawn[row] for _, drawn in combined]
        each = [probability * torch.tensor([one is draw for one in taken]) for draw in dict.fromkeys(taken)]

        def value(t: Tensor) -> Tensor:
            values = every(t)
            overall = mean(values)
            return sum(((mean(values, w) - overall) ** 2 * float(w.sum()) for w in each), torch.zeros(()))

        return value

    parts = []
    for f in functions:
        moments = moments_by_quadrature(f)
        sign = np.where(moments(base.mean, base.var)[2] < 0, -1.0, 1.0)
        part = pointwise(base, moments)
        parts.append((part.mean[0], part.dev[0], sign[0] * part.sig[0], part.var[0]))
    means, devs, sigs, variances = (np.stack(column) for column in zip(*parts, strict=True))
    y = pointwise(base, moments_by_quadrature(lambda t: mean(every(t))))
    test = pointwise(base, moments_by_quadrature(test_mode))
    for row in rows:
        y = with_noise(y, x, pointwise(x, moments_by_quadrature(energy(row))).mean[0], ledger.over[row], row)
    y = replace(
        y,
        t_mean=test.t_mean,
        t_dev=test.t_dev,
        t_var=test.t_var,
        prob=probability.numpy(),
        mean=means,
        dev=devs,
        sig=sigs,
        var=variances,
        **MOMENTS_ALONE,
    ).balanced()
    if len(rows) > 1:
        return y.collapse()
    return replace(
        y,
        mask=ledger.over[rows[0]],
        source=rows[0],
        levels=_levels(test_mode, functions),
    )


def _combined(rows: Sequence[int], ledger: Ledger) -> list[tuple[float, dict[int, Draw]]]:
    """The combinations of draws with their probabilities: masks that are made of the same draws agree."""
    each = [_drawn_together(group, ledger) for group in _by_sources(rows, ledger)]
    return [
        (
            math.prod(probability for probability, _ in parts),
            {row: draw for _, drawn in parts for row, draw in drawn.items()},
        )
        for parts in itertools.product(*each)
    ]


def _by_sources(rows: Sequence[int], ledger: Ledger) -> list[list[int]]:
    """Dropouts in groups of those that are made of the same draws."""
    groups: dict[Any, list[int]] = {}
    for row in rows:
        sources = ledger.dropouts[row].sources
        groups.setdefault(min(sources, key=ledger.order.__getitem__) if sources else row, []).append(row)
    return list(groups.values())


def _drawn_together(rows: Sequence[int], ledger: Ledger) -> list[tuple[float, dict[int, Draw]]]:
    """The combinations of draws of dropouts that are made of the same ones, or of a single dropout."""
    masks = masks_together(rows, ledger) if len(rows) > 1 else None
    if masks is None:
        combined = itertools.product(*(_draws(ledger.dropouts[row].node, ledger) for row in rows))
        return [
            (math.prod(draw.probability for draw in drawn), dict(zip(rows, drawn, strict=True)))
            for drawn in combined
        ]
    means = [ledger.dropouts[row].spec.mask_mean for row in rows]
    factors = torch.stack([mask * (mean / mask.mean()) for mask, mean in zip(masks, means, strict=True)])
    values, counts = torch.unique(factors, dim=1, return_counts=True)
    if len(counts) > MOST_TOGETHER:
        stretches = factors.tensor_split(MOST_TOGETHER, dim=1)
        values, counts = torch.stack([one.mean(1) for one in stretches], 1), torch.ones(MOST_TOGETHER)
    probabilities = (counts / counts.sum()).tolist()
    each = [_of_factors(column, probabilities) for column in values.tolist()]
    return [
        (probability, {row: drawn[factor] for row, drawn, factor in zip(rows, each, column, strict=True)})
        for probability, column in zip(probabilities, values.T.tolist(), strict=True)
    ]


def _of_factors(factors: Sequence[float], probabilities: Sequence[float]) -> dict[float, Draw]:
    """A mask's draws, one for each of its factors."""
    total = dict.fromkeys(factors, 0.0)
    for factor, probability in zip(factors, probabilities, strict=True):
        total[factor] += probability
    return {factor: Draw(probability, factor) for factor, probability in total.items()}


def _levels(
    test: Callable[[Tensor], Tensor], functions: list[Callable[[Tensor], Tensor]]
) -> tuple[float, ...]:
    """`State.levels`, where all functions are multiples of the test-mode one; () where they are not."""
    t = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    plain, values = test(t), [f(t) for f in functions]
    factors = [float(value[3] / plain[3]) if plain[3] else math.nan for value in values]
    same = all(torch.allclose(value, factor * plain) for value, factor in zip(values, factors, strict=True))
    return tuple(factors) if same else ()
