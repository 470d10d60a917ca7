"""Where Δ cannot be predicted: behind noise that the ledger does not follow, and it is never called harmless.

Three things tell of such noise: an operation that neither a rule nor a run on samples tells of (the ledger
says so itself); a random draw that the witness saw reach the norm (`Trace.draws`) and that no dropout of the
ledger accounts for there; and, in a graph without shapes, any dropout before the norm. A graph of test mode
alone does not show what train mode does, and parts that were traced alone not what comes before them: a norm
behind no dropout may be harmless there or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace

import numpy as np
from torch import fx

from dropout_lint.prediction.ops import Ledger
from dropout_lint.prediction.shifts import NormShift, Prediction
from dropout_lint.terms import APART, NO_SHAPES, UNSEEN
from dropout_lint.trace.traced import Arrival, Trace, value_of


def with_unknowns(trace: Trace, prediction: Prediction, *ledgers: Ledger) -> Prediction:
    """`prediction` without Δ at the norms where it is not known, and with the causes there.

    Args:
        ledgers: those that followed the noise; what one of them has at a norm is followed.
    """
    blind = blind_norms(trace)
    found = (
        _unknown(shift, causes_at(trace, site.node, blind, ledgers))
        for site, shift in zip(trace.norms, prediction.norms, strict=True)
    )
    return replace(prediction, norms=tuple(found))


def causes_at(
    trace: Trace, norm: fx.Node, blind: Mapping[fx.Node, str], ledgers: Iterable[Ledger]
) -> tuple[str, ...]:
    """Why Δ is not known at a norm, beside what the ledgers say themselves; nothing where it is known.

    Args:
        blind: `blind_norms`.
        ledgers: those that followed the noise.
    """
    followed = {
        ledger.dropouts[row].node
        for ledger in ledgers
        if norm in ledger.noise_at and norm in trace.draws
        for row in np.flatnonzero(ledger.noise_at[norm] > 0).tolist()
    }
    told = list(_unaccounted(trace.draws.get(norm, ()), followed))
    return tuple(dict.fromkeys([*told, blind[norm]] if norm in blind else told))


def _unknown(shift: NormShift, causes: tuple[str, ...]) -> NormShift:
    if not causes:
        return shift
    every = tuple(dict.fromkeys((*shift.unknown, *causes)))
    return replace(shift, delta=None, interval=None, delta_initial=None, shares={}, unknown=every)


def _unaccounted(arrivals: tuple[Arrival, ...], followed: Set[fx.Node]) -> Iterator[str]:
    """The draws that reach a norm and that the ledger has no noise of there."""
    for arrival in arrivals:
        if arrival.beside or followed.isdisjoint(arrival.through):
            yield arrival.draw


def blind_norms(trace: Trace) -> dict[fx.Node, str]:
    """The norms of which a graph tells nothing, each with why: where a dropout reaches one without shapes, no
    moments come to it; where train mode was not seen, or what comes before, one may be behind noise that no
    dropout of the graph makes.
    """
    noisy = {site.node for site in trace.dropouts if site.active_in_train and site.spec.is_noisy}
    for node in trace.graph.nodes:
        if not noisy.isdisjoint(node.all_input_nodes):
            noisy.add(node)
    behind = {site.node: site.node in noisy for site in trace.norms}
    found = {norm: NO_SHAPES for norm, reached in behind.items() if reached and value_of(norm) is None}
    if trace.by_parts or trace.method.endswith("-eval"):
        why = APART if trace.by_parts else UNSEEN
        found |= {norm: why for norm, reached in behind.items() if not reached}
    return found
