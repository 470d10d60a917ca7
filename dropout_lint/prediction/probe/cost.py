"""What running a trace's graph costs, worked out from its shapes, so that every machine decides alike."""

from __future__ import annotations

import math

from torch import fx

from dropout_lint.layers.weights import WEIGHT_FUNCTIONS, is_weight_layer
from dropout_lint.trace.traced import Trace, module_of, shape_of

MOVING = 30
"""Multiplications that reading and writing memory counts for, for each value that an operation returns."""
CALL = 1e6
"""Multiplications that take as long as calling an operation does, however small it is."""


def cost(trace: Trace) -> float:
    """Multiplications of one pass over the graph, at the number of samples that it was traced with."""
    return sum(_of(trace, node) for node in trace.graph.nodes)


def calls(trace: Trace) -> float:
    """What one pass costs beside, in multiplications: at any number of samples."""
    return CALL * len(trace.graph.nodes)


def widest(trace: Trace) -> int:
    """Numbers in the largest tensor of one pass, at that number of samples."""
    return max((math.prod(shape) for node in trace.graph.nodes if (shape := shape_of(node))), default=1)


def _of(trace: Trace, node: fx.Node) -> float:
    shape = shape_of(node)
    if shape is None or node.op in ("placeholder", "get_attr", "output"):
        return 0.0
    values = math.prod(shape)
    module = module_of(trace.model, node)
    if module is not None and is_weight_layer(module):
        weights = sum(parameter.numel() for parameter in module.parameters() if parameter.dim() > 1)
        outputs = getattr(module, "out_channels", getattr(module, "out_features", None))
        each = weights / outputs if outputs else weights * shape[0] * shape[min(1, len(shape) - 1)] / values
        return values * (each + MOVING)
    if node.op == "call_function" and node.target in WEIGHT_FUNCTIONS:
        weight = node.all_input_nodes[1] if len(node.all_input_nodes) > 1 else None
        of = shape_of(weight) if weight is not None else None
        return float(values * (math.prod(of[1:]) + MOVING)) if of else float(MOVING * values)
    return float(MOVING * values)
