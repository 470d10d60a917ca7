"""Δ of the trained network at every norm: from its checkpoint, or what training is expected to lead to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from torch import fx, nn

from dropout_lint.errors import UsageError
from dropout_lint.prediction.bounds import at_most, of_loud_data, only_mask
from dropout_lint.prediction.expected import STRONG, TYPICAL, WEAK, together
from dropout_lint.prediction.interval import interval
from dropout_lint.prediction.ledger import Walk, begun, delta_at, finite, kept, walked
from dropout_lint.prediction.ops import Ledger
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.probe import AT_MOST, Seen, probe
from dropout_lint.prediction.shifts import NormShift, Prediction
from dropout_lint.prediction.unknown import blind_norms, causes_at, with_unknowns
from dropout_lint.terms import NOT_FINITE, Basis, nearness
from dropout_lint.trace.traced import NormSite, Trace


def predict(
    trace: Trace,
    *,
    basis: Literal["auto", "initialisation", "weights", "checkpoint"] = "auto",
    initially: bool = True,
    intervals: bool = True,
    shares: bool = True,
    probe_at_most: float = AT_MOST,
) -> Prediction:
    """Δ = Var_test / Var_train at the input of every norm, and each dropout's share in the shortfall.

    No data: moments are carried from node to node, and inputs are taken as standardised, smooth over
    positions and louder at some than at others, as images are. Δ is that of the trained network: from its
    checkpoint, else what training is expected to make of it, with an interval. A trained network that is
    small enough is run as well, on inputs recovered from its norms' statistics (`probe`), and its Δ is what
    that run shows.

    Args:
        trace: a traced model. Every node's shape is read from its meta data.
        basis: what to work from. `initialisation`: shapes alone; `weights`: for `delta_initial` the values
            of untrained weights too; `checkpoint`: trained weights, and the running variances of the batch
            norms, which are Var_train. `auto` takes the best there is.
        initially: work out `delta_initial` as well, where there is no checkpoint.
        intervals: work out the intervals of what is expected; without them it costs a third.
        shares: work out each dropout's share; without them it costs little more than half, and
            `Prediction.shared` gives them later.
        probe_at_most: multiplications that the run of a trained network may cost; 0 for no run.

    Raises:
        UsageError: `basis` asks for values that the model does not have (it is on the meta device).
    """
    have = available_basis(trace.model)
    chosen = have if basis == "auto" else basis
    if chosen not in ("initialisation", "weights", "checkpoint"):
        raise UsageError(
            f"unknown basis {basis!r}", "use one of auto, initialisation, weights and checkpoint"
        )
    if have == "initialisation" and chosen != "initialisation":
        raise UsageError(
            f"basis {basis!r} needs weights, but the model is on the meta device",
            "load a checkpoint, or build the model on the CPU, or use basis='initialisation'",
        )
    if chosen == "checkpoint":
        ledger = walked(trace, real=True, trained=True, shares=shares).ledger
        if finite(ledger):
            seen = probe(trace, _probed(trace, ledger), probe_at_most, _causes(ledger) if shares else ())
            norms = tuple(
                shift_at(site, ledger, "checkpoint", seen.get(site.node), shares=shares)
                for site in trace.norms
            )
            shared = None if shares else partial(predict, trace, basis=basis, probe_at_most=probe_at_most)
            prediction = Prediction("checkpoint", norms, dict(ledger.fallbacks), shared)
            found = with_unknowns(trace, prediction, ledger)
            if any(shift.unknown for shift in found.norms):  # weights of 0 may have taken noise away
                found = with_unknowns(trace, prediction, ledger, kept(trace))
            return found
    unusable, start = chosen == "checkpoint", None
    if initially and chosen == "weights":
        start = kept(trace, real=True)
        if not finite(start):
            unusable, start = True, None
    others = (WEAK, STRONG) if intervals else ()
    untrained = (None,) if initially and start is None else ()
    walk = walked(trace, training=together(TYPICAL, *others, *untrained), shares=shares)
    return _expected(trace, walk, start, unusable=unusable)


def _probed(trace: Trace, ledger: Ledger) -> dict[fx.Node, NormSite]:
    """The norms behind dropout whose Δ a run tells better than the file: that of case (a), where one dropout
    stands between all that is without noise and the norm, the file tells exactly (Li et al. 2019, Eq. 6).
    """
    return {
        site.node: site
        for site in trace.norms
        if site.spec.shifts and site.node in ledger.noisy and only_mask(site, ledger) is None
    }


def _causes(ledger: Ledger) -> list[str]:
    """Dropouts, by name, whose shares are to be told apart: those of norms that another reaches too."""
    found: dict[str, None] = {}
    for _, causes in ledger.shifts.values():
        names = dict.fromkeys(
            drop.name for drop, part in zip(ledger.dropouts, causes, strict=True) if part > 0
        )
        if len(names) > 1:
            found |= names
    return list(found)


def _expected(trace: Trace, walk: Walk, start: Ledger | None, *, unusable: bool) -> Prediction:
    """Δ that training is expected to lead to; with that of other trainings its interval, and Δ at the start.

    Args:
        trace: what was walked over.
        walk: of the training that is expected, of those that bound the interval, and of none.
        start: with the values that weights have at the start, where the walk has none of them.
        unusable: the model has values that are not finite, which tells nothing.
    """
    ledger, *others = walk.ledger.singles or (walk.ledger,)
    bounds = [other for other in others if other.training is not None]
    start = start or next((other for other in others if other.training is None), None)
    fallbacks = dict(ledger.fallbacks)
    if unusable:
        fallbacks[NOT_FINITE] = 1
    norms = []
    for site in trace.norms:
        shift = shift_at(site, ledger, "trained-estimate", shares=walk.shares)
        if shift.delta is None:
            norms.append(shift)
            continue
        delta, *ends = (delta_at(site, other) for other in (ledger, *bounds))
        around = interval(delta, at_most(site, ledger), *ends, *of_loud_data(site, ledger))
        norms.append(
            replace(
                shift,
                interval=around if bounds else None,
                delta_initial=None if start is None else delta_at(site, start),
            )
        )
    found = with_unknowns(trace, Prediction("trained-estimate", tuple(norms), fallbacks), ledger)
    if walk.shares:
        return found
    return replace(found, shared=lambda: _expected(trace, walk.shared_out(), start, unusable=unusable))


class Along:
    """Δ that training is expected to lead to at the norms of a trace, without intervals and shares: each is
    worked out when it is asked for, with what lies before it.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._sites = {site.node.name: site for site in trace.norms if site.spec.shifts}
        self._walk = begun(trace, training=TYPICAL, shares=False)

    def __iter__(self) -> Iterator[str]:
        """The norms that remember a variance, by the names of their nodes, in the order of the data."""
        return iter(self._sites)

    def delta(self, name: str) -> float | None:
        """Δ at one of them; None where it is unknown, and at others."""
        site = self._sites.get(name)
        if site is None:
            return None
        shift = shift_at(site, self._walk.on(site.node).ledger, "trained-estimate", shares=False)
        told = causes_at(self._trace, site.node, self._blind, (self._walk.ledger,))
        return None if told else shift.delta

    @cached_property
    def _blind(self) -> Mapping[fx.Node, str]:
        return blind_norms(self._trace)

    @cached_property
    def prediction(self) -> Prediction:
        """The same at all norms; `Prediction.shared` gives it with shares."""
        unusable = available_basis(self._trace.model) == "checkpoint"
        return _expected(self._trace, self._walk.on(), None, unusable=unusable)


def available_basis(model: nn.Module) -> Literal["initialisation", "weights", "checkpoint"]:
    """The best basis that `model` has the values for; running variances that are not all 1 tell a trained
    one, unless they come from so few batches that the 1 they began with is still seen: a model that tries
    its shapes out in its constructor is not trained by that.
    """
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        return "initialisation"
    return "checkpoint" if any(_is_trained(module) for module in model.modules()) else "weights"


MOST_OF_START = 0.5
"""Largest share of a running variance that may be left of its start in a trained network."""


def _is_trained(module: nn.Module) -> bool:
    variance = getattr(module, "running_var", None)
    if not isinstance(variance, torch.Tensor) or bool((variance == 1).all()):
        return False
    counted, momentum = getattr(module, "num_batches_tracked", None), getattr(module, "momentum", None)
    if not isinstance(counted, torch.Tensor) or not isinstance(momentum, float) or not 0 < momentum < 1:
        return True
    batches = int(counted)  # 0: the values were not made by batches, but read from a file
    return batches == 0 or bool((1 - momentum) ** batches <= MOST_OF_START)


def shift_at(
    site: NormSite, ledger: Ledger, basis: Basis, seen: Seen | None = None, *, shares: bool = True
) -> NormShift:
    """Δ and shares that a ledger found at a norm; with `seen`, what a run showed beside it.

    `shares`: the ledger has them; without, each dropout's noise alone is known.
    """
    unknown = tuple(sorted(ledger.unknown.get(site.node, ())))
    if unknown:
        return NormShift(site.name, site.node.name, None, basis, shifts=site.spec.shifts, unknown=unknown)
    delta = delta_at(site, ledger)
    if seen is not None:
        delta = seen.beside(delta)
    _, noise = ledger.shifts.get(site.node, (1.0, np.zeros(len(ledger.dropouts))))
    total = float(noise.sum())
    parts: dict[str, float] = {}
    if total > 0 and delta != 1:
        for drop, part in zip(ledger.dropouts, (noise / total).tolist(), strict=True):
            if part > 0:
                parts[drop.name] = parts.get(drop.name, 0.0) + part
        if seen is not None:
            parts = seen.shares_beside(parts)
    return NormShift(
        site.name,
        site.node.name,
        delta,
        basis,
        parts if shares else {},
        shifts=site.spec.shifts,
        fed=_fed(site, ledger, parts),
        approximate=() if seen is not None else tuple(sorted(ledger.approximate.get(site.node, ()))),
        probed=seen is not None,
    )


def _fed(site: NormSite, ledger: Ledger, noisy: Collection[str]) -> dict[str, tuple[float, float]]:
    """`NormShift.fed` of the dropouts whose noise comes there: of several calls the one that does most."""
    found: dict[str, tuple[float, float]] = {}
    if not noisy or site.node not in ledger.fed or site.node in ledger.reestimated:
        return found
    deltas, parts = (values.tolist() for values in ledger.fed[site.node])
    for drop, delta, part in zip(ledger.dropouts, deltas, parts, strict=True):
        most = found.get(drop.name)
        if drop.name in noisy and (most is None or nearness(delta) < nearness(most[0])):
            found[drop.name] = delta, part
    return found
