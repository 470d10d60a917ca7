"""The prior for trained weights where only shapes are known: Li Eq. 12 with the published d·cos²θ.

Δ at initialisation knows nothing of width (Kim Prop. 2); Li's width effect belongs to trained weights. Table
1 gives d·cos²θ of four trained networks; it grows with the fan-in d, so a layer takes the value at its own d,
on a line in log-log through the four points and proportional to d beyond them. ρ, the correlation of the
inputs, is printed nowhere: ρ = 1 comes nearest to the measured shift ratios of Table 2 (any smaller value
makes the shifts still larger than measured), so the prior takes ρ = 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx, nn

from dropout_lint.layers import is_weight_layer
from dropout_lint.layers.weights import WEIGHT_FUNCTIONS
from dropout_lint.prediction.equations import LI_TABLE1, li_eq6, li_eq12
from dropout_lint.prediction.ops.base import Ledger, first_shape
from dropout_lint.trace.traced import DropoutSite, Trace, module_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CORRELATION = 1.0


def d_cos2(dimension: float) -> float:
    """d·cos²θ of trained weights of fan-in `dimension`, from Li Table 1."""
    rows = sorted(LI_TABLE1, key=lambda row: row.dimension)
    known = np.log([row.dimension for row in rows])
    value = np.log([row.d_cos2 for row in rows])
    x = math.log(max(dimension, 1.0))
    if x > known[-1]:
        return float(np.exp(value[-1] + x - known[-1]))
    if x < known[0]:
        return max(float(np.exp(value[0] + x - known[0])), 1.0)
    return float(np.exp(np.interp(x, known, value)))


def prior_deltas(trace: Trace, ledger: Ledger) -> dict[tuple[str, str], float]:
    """Δ "after training" for every dropout and each norm that it reaches first, by node names."""
    result: dict[tuple[str, str], float] = {}
    for site in ledger.dropouts:
        state = ledger.at_dropout.get(site.node)
        if state is None or math.isnan(site.spec.p) or site.spec.p >= 1:
            continue
        merged = state.collapse().merged()
        mean2 = float(merged.train_mean[0] ** 2 + merged.train_dev[0] ** 2)
        variance = float(merged.train_var[0])
        if variance <= 0:
            continue
        keep = 1 / (1 + site.spec.mask_variance)
        for norm, weight in _reached(trace, site, ledger):
            if weight is None:
                delta = li_eq6(math.sqrt(mean2), variance, keep)
            else:
                delta = li_eq12(math.sqrt(mean2), variance, keep, CORRELATION, d_cos2(weight))
            result[site.node.name, norm.name] = delta
    return result


def _reached(trace: Trace, site: DropoutSite, ledger: Ledger) -> Iterator[tuple[fx.Node, float | None]]:
    """Norm nodes reached first along any path, with the fan-in of the first weight layer on the way (None:
    none).
    """
    seen: set[tuple[fx.Node, bool]] = set()
    todo: list[tuple[fx.Node, float | None]] = [(user, None) for user in site.node.users]
    while todo:
        node, weight = todo.pop()
        if (node, weight is None) in seen or node.op == "output":
            continue
        seen.add((node, weight is None))
        if node in ledger.norms:
            yield node, weight
            continue
        if weight is None:
            weight = _fan_in(trace, node)
        todo += [(user, weight) for user in node.users]


def _fan_in(trace: Trace, node: fx.Node) -> float | None:
    module: Any = module_of(trace.model, node)
    if isinstance(module, nn.Module):
        if not is_weight_layer(module):
            return None
        weight = getattr(module, "weight", None)
        transposed = bool(getattr(module, "transposed", False))
        if weight is not None and weight.dim() > 1:
            shape = tuple(weight.shape)
            return float(math.prod(shape[2:]) * (shape[0] if transposed else shape[1]))
        return float(getattr(module, "embed_dim", getattr(module, "input_size", 1)))
    if node.op == "call_function" and node.target in WEIGHT_FUNCTIONS and len(node.args) > 1:
        weight_node = node.args[1]
        sizes = first_shape(weight_node.meta.get("value")) if isinstance(weight_node, fx.Node) else None
        return float(math.prod(sizes[1:])) if sizes and len(sizes) > 1 else None
    return None
