"""Draws a trace: its nodes, what feeds what, and which of them carry a dropout's noise."""

from __future__ import annotations

import math

from torch import fx

from dropout_lint.graph.operations import joins
from dropout_lint.layers import is_weight_layer
from dropout_lint.prediction.shifts import Prediction
from dropout_lint.report.drawing import Box, Drawing, Kind
from dropout_lint.trace.traced import Trace, module_of, shape_of

SILENT = frozenset({"getitem", "getattr", "size", "dim"})


def draw(trace: Trace, prediction: Prediction) -> Drawing:
    """The trace as boxes and edges; bookkeeping nodes (sizes, parameters) are left out and bridged.

    Noise runs from every active dropout along the edges and through norms, which rescale but do not stop it.
    """
    dropouts = {site.node: site for site in trace.dropouts}
    norms = {site.node: site for site in trace.norms}
    boxes: list[Box] = []
    edges: list[tuple[int, int]] = []
    index: dict[fx.Node, int] = {}
    sources: dict[fx.Node, list[int]] = {}
    for node in trace.graph.nodes:
        feeds = list(dict.fromkeys(number for before in node.all_input_nodes for number in sources[before]))
        called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "call")
        shape = shape_of(node)
        plain = node.op in ("call_function", "call_method")
        if node.op == "get_attr" or (plain and (called in SILENT or (shape is None and not feeds))):
            sources[node] = feeds
            continue
        module = module_of(trace.model, node)
        kind: Kind = "other"
        name, label, delta = node.name, str(called), None
        noisy = any(boxes[number].noisy for number in feeds)
        if module is not None:
            name, label = str(node.target), type(module).__name__
            if is_weight_layer(module):
                kind = "weight"
        elif plain and joins(called) and len(feeds) > 1:
            kind = "merge"
        elif node.op == "placeholder":
            kind, label = "input", "input"
        elif node.op == "output":
            kind, label = "output", "output"
        if node in dropouts:
            site = dropouts[node]
            name, label, kind = site.name, site.spec.kind, "dropout"
            if not math.isnan(site.spec.p):
                label += f" p={site.spec.p:g}"
            noisy = noisy or (site.active_in_train and site.spec.is_noisy)
        elif node in norms:
            shift = prediction.at(node.name)
            name, label, kind = norms[node].name, norms[node].spec.kind, "norm"
            if shift is not None and shift.shifts:
                delta = shift.delta
        shown = "×".join(str(int(size)) for size in shape) if shape else ""
        index[node] = len(boxes)
        sources[node] = [len(boxes)]
        edges += [(number, len(boxes)) for number in feeds]
        boxes.append(Box(name=name, label=label, kind=kind, shape=shown, delta=delta, noisy=noisy))
    return Drawing(boxes=boxes, edges=edges)
