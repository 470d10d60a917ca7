"""Where Δ cannot be predicted: at norms behind a dropout in a graph without shapes."""

from __future__ import annotations

from dataclasses import replace

from dropout_lint.prediction.shifts import Prediction
from dropout_lint.trace.traced import Trace, value_of


def with_unknowns(trace: Trace, prediction: Prediction) -> Prediction:
    """`prediction` without Δ at the norms that a dropout reaches and whose shape is not known.

    A graph without shapes carries no moments, so that Δ would come out as 1 there, which reads as harmless.
    """
    noisy = {site.node for site in trace.dropouts if site.active_in_train and site.spec.is_noisy}
    for node in trace.graph.nodes:
        if not noisy.isdisjoint(node.all_input_nodes):
            noisy.add(node)
    unknown = {site.node.name for site in trace.norms if site.node in noisy and value_of(site.node) is None}
    if not unknown:
        return prediction
    norms = tuple(
        replace(shift, delta=None, interval=None, delta_initial=None, shares={})
        if shift.node in unknown
        else shift
        for shift in prediction.norms
    )
    return replace(prediction, norms=norms)
