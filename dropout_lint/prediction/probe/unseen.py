"""Δ at the norms of a trained network, by running its graph on inputs recovered from its statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import fx

from dropout_lint.guard.untouched import seed_everything, untouched
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.values import walk
from dropout_lint.layers.reestimated import is_reestimated
from dropout_lint.prediction.ops.samples import Unrunnable
from dropout_lint.prediction.probe.cost import calls, cost, widest
from dropout_lint.prediction.probe.graph_run import GraphRun
from dropout_lint.prediction.probe.recovered import (
    ROUNDS,
    STEPS,
    Statistics,
    Values,
    placeholders,
    recovered,
    widened,
)
from dropout_lint.prediction.probe.statistics import LEAST_VALUES, LEAST_VARIANCE, Anew, Imposed, Seen
from dropout_lint.trace.traced import NormSite, Trace, module_of, shape_of

DRAWS = 24
"""Of the masks, beside test mode: what the mean over them still has of whole samples' masks is small then."""
FEW_DRAWS = 4
"""Of the masks with a dropout off: Δ is compared with that under the same masks with all on."""
LEAST_DELTA = 1e-9
"""Of which a logarithm is taken."""
ROWS, FEW, MOST_ROWS = 16, 64, 256
"""Samples, at the least; at the least while a round of recovery can be saved instead; and at the most."""
VALUES = 2048
"""Values of a channel with a mask of their own that are aimed at: where there are few positions, or one draw
is for all of a sample's, there are more samples."""
AT_MOST = 1e11
"""Multiplications that a report may spend on it: some three seconds of one core."""
MOST_VALUES = 10**8
"""Numbers that the result of one operation may hold, all modes together."""
BACKWARD = 2
"""What a pass backward costs, in passes forward."""
Result = TypeVar("Result")


def probe(
    trace: Trace,
    norms: Mapping[fx.Node, NormSite],
    at_most: float = AT_MOST,
    without: Collection[str] = (),
) -> dict[fx.Node, Seen]:
    """Norm node → what a run showed there.

    The model is left as it was. Sums are made on one thread, so that they come out alike on every machine.

    Args:
        trace: a trained model.
        norms: the calls of norms that Δ is asked for.
        at_most: multiplications that it may cost; `math.inf` for as many as it takes.
        without: dropouts, by name, whose removal is tried as well, where that costs no more again.

    Returns:
        nothing where the graph is not the whole model, where it would cost more, or where it does not run.
    """

    def observed(plan: _Plan) -> dict[fx.Node, Seen]:
        values, imposed = plan.recovered(trace), Imposed(plan.statistics)
        with torch.no_grad():
            GraphRun(trace, [True] * DRAWS + [False], imposed).run(values)
            runs = (len(without) + 1) * (FEW_DRAWS + 1)
            raised = _raised(trace, imposed, values, without) if runs * plan.one_pass <= at_most else {}
        return {
            node: replace(seen, raised={name: log[node] for name, log in raised.items()})
            for node, seen in imposed.seen.items()
        }

    found = _first(trace, at_most, observed) if norms else None
    if found is None or not all(seen.finite for seen in found.values()):
        return {}
    return {node: seen for node, seen in found.items() if node in norms}


def recovered_inputs(trace: Trace, at_most: float = AT_MOST) -> Inputs | None:
    """Inputs for which the norms of a trained model see what they remember, to run the model itself on.

    Args:
        trace: a trained model.
        at_most: multiplications that it may cost.

    Returns:
        None where the graph is not the whole model, where it would cost more, or where it does not run.
    """
    values = _first(trace, at_most, lambda plan: tuple(plan.recovered(trace).values()))
    if values is None:
        return None
    args, names = len(trace.inputs.args), tuple(trace.inputs.kwargs)
    kwargs = dict(zip(names, values[args:], strict=True))
    return Inputs(values[:args], kwargs, origin="recovered from the statistics of the model's norms")


def _raised(
    trace: Trace, imposed: Imposed, values: Values, names: Collection[str]
) -> dict[str, dict[fx.Node, float]]:
    """Dropout → norm node → log of the factor by which its removal raises Δ, with new statistics."""

    def logs(*off: str) -> dict[fx.Node, float]:
        seed_everything(1, next(iter(imposed.corrections.values())).mean.device)
        anew = Anew(imposed.statistics, imposed.corrections)
        GraphRun(trace, [True] * FEW_DRAWS + [False], anew, off).run(values)
        return {node: math.log(max(delta, LEAST_DELTA)) for node, delta in anew.deltas.items()}

    with_all = logs() if names else {}
    return {name: {node: log - with_all[node] for node, log in logs(name).items()} for name in names}


@dataclass(frozen=True)
class _Plan:
    """What inputs are recovered from: values that say their shapes, the norms' statistics, and how long.

    Attributes:
        one_pass: what running the graph on them costs, in multiplications.
    """

    values: Values
    statistics: Statistics
    rounds: int
    one_pass: float

    def recovered(self, trace: Trace) -> Values:
        return recovered(trace, self.values, self.statistics, self.rounds)


def _first(trace: Trace, at_most: float, work: Callable[[_Plan], Result]) -> Result | None:
    """What the first plan that runs leads to."""
    for plan in _plans(trace, at_most):
        device = next(iter(plan.statistics.values()))[0].device
        threads = torch.get_num_threads()
        with untouched(trace.model, device):
            try:
                torch.set_num_threads(1)
                seed_everything(0, device)
                return work(plan)
            except Unrunnable:
                continue  # shapes that were written down for another number of samples, indices out of range
            finally:
                torch.set_num_threads(threads)
    return None


def _plans(trace: Trace, at_most: float) -> Iterator[_Plan]:
    """As many samples as are wanted and affordable; then those that the model was traced with."""
    shifting = [site for site in trace.norms if site.spec.shifts]
    modules = [module_of(trace.model, site.node) for site in shifting]
    if not shifting or not trace.runnable or any(m is not None and is_reestimated(m) for m in modules):
        return
    if any(site.spec.noise.mask.over == "batch" for site in trace.dropouts):  # one draw a batch: too few
        return
    if any(site.spec.family == "instance" for site in shifting):  # their statistics are of single samples
        return
    statistics = {
        site.node: (held[0].detach(), held[1].detach().clamp(min=LEAST_VARIANCE))
        for site in shifting
        if (held := trace.statistics(site)) is not None
    }
    if len(statistics) < len(shifting):
        return
    traced = placeholders(trace)
    samples = next((tensor.shape[0] for tensor in walk(tuple(traced.values())) if tensor.dim()), 1)
    wanted = _rows(trace, shifting)
    for rounds in range(ROUNDS, 0, -1):
        affordable = _affordable(trace, rounds, at_most, samples)
        if affordable >= min(wanted, FEW):
            break
    least = math.ceil(LEAST_VALUES / _positions(shifting))
    rows = min(wanted, affordable)
    if rows >= max(ROWS, least) and (wide := widened(trace, traced, rows)) is not None:
        yield _Plan(wide, statistics, rounds, _one_pass(trace, rows / samples))
    if affordable >= samples >= least:
        yield _Plan(traced, statistics, rounds, _one_pass(trace, 1.0))


def _one_pass(trace: Trace, more: float) -> float:
    return cost(trace) * more + calls(trace)


def _affordable(trace: Trace, rounds: int, at_most: float, samples: int) -> int:
    """Samples that time and memory allow."""
    passes = rounds * STEPS * (1 + BACKWARD) + DRAWS + 1
    time = max(0.0, at_most / passes - calls(trace)) / cost(trace)
    return int(samples * min(time, MOST_VALUES / (widest(trace) * (DRAWS + 1))))


def _rows(trace: Trace, norms: list[NormSite]) -> int:
    """Samples that give each channel of the norm with the fewest positions `VALUES` values, within bounds."""
    shared = any(site.spec.noise.whole_branch or site.spec.noise.channelwise for site in trace.dropouts)
    return min(MOST_ROWS, max(ROWS, math.ceil(VALUES / (1 if shared else _positions(norms)))))


def _positions(norms: list[NormSite]) -> int:
    """Of the norm that has the fewest, for each sample and channel."""
    return max(1, min((math.prod(_read(site)[2:]) for site in norms), default=1))


def _read(site: NormSite) -> tuple[int, ...]:
    return (shape_of(site.source) if site.source is not None else None) or ()
