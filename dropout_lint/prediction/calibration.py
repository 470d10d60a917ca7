"""What trained batch norms tell of the tensors further up.

A norm's running mean and variance are those of the tensor it reads, in train mode. They say as much of what
that tensor was made from: through a mask, of the parts of a concat, and through pointwise functions and
pools of the weight layer's output before them, whose own mean and variance follow by inversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import fx

from dropout_lint.layers.reestimated import is_reestimated
from dropout_lint.prediction.inversion import inverse, is_homogeneous
from dropout_lint.prediction.ops import Call, function_name
from dropout_lint.prediction.ops.activation import moments_of
from dropout_lint.prediction.ops.base import first_shape, transfer_of
from dropout_lint.prediction.ops.norm import calibrated, values
from dropout_lint.prediction.quadrature import Array, MomentFunction
from dropout_lint.prediction.state import State
from dropout_lint.trace.traced import DropoutSite, Trace, module_of

LEAST_BEFORE = 0.01
"""Least share of a norm's variance that is taken for what a mask before it left of its input."""
ROUNDS = 2
"""How often a table of what lies between a weight layer and its norm is made."""
PLACES = np.array([-4.0, -3.0, -2.25, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 30.0])
"""Mean over deviation of a weight layer's output, for that table."""
FARTHEST = 6
"""Operations between a weight layer and its norm that are gone through."""
Statistics = tuple[Array, Array]
"""(C,) mean and variance of each channel in train mode."""


def measured(trace: Trace, dropouts: Iterable[DropoutSite]) -> dict[fx.Node, Statistics]:
    """What trained batch norms tell of the tensors they read, and of the parts of a concat they read."""
    found: dict[fx.Node, Statistics] = {}
    through: dict[fx.Node, Statistics] = {}
    masks = {site.node: site for site in dropouts if not site.inside}
    for site in trace.norms:
        source, statistics = site.source, trace.statistics(site)
        if not site.spec.tracks or source is None or statistics is None:
            continue
        if is_reestimated(module_of(trace.model, site.node)):
            continue
        mean, var = map(values, statistics)
        if mean is None or var is None or np.all(var == 1):
            continue
        var = np.maximum(var, 1e-12)
        found.setdefault(source, (mean, var))
        if (
            source in masks
            and masks[source].spec.rescales
            and masks[source].spec.scale == 1
            and source.args
            and isinstance(source.args[0], fx.Node)
        ):
            # the mask has mean 1: E[x²m²] = (1 + s)·E[x²]
            before = (var + mean**2) / (1 + masks[source].spec.mask_variance) - mean**2
            if np.all(before > LEAST_BEFORE * var):
                through.setdefault(source.args[0], (mean, before))
        for part, start, width in _stretches(source):
            stretch = slice(start, start + width)
            through.setdefault(part, (mean[stretch], var[stretch]))
    return {**through, **found}


def _stretches(node: fx.Node) -> Iterator[tuple[fx.Node, int, int]]:
    """The parts of a concat over channels, with first channel and number of channels."""
    shape = first_shape(node.meta.get("value"))
    parts = node.args[0] if node.args else None
    if (
        function_name(node.target) not in ("cat", "concat")
        or not isinstance(parts, (tuple, list))
        or not shape
    ):
        return
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if dim not in (1, 1 - len(shape)):
        return
    start = 0
    for part in parts:
        size = first_shape(part.meta.get("value")) if isinstance(part, fx.Node) else None
        if size is None or len(size) < 2:
            return
        yield part, start, size[1]
        start += size[1]


@dataclass(frozen=True)
class Chain:
    """Operations of one input each, from a weight layer's output to the tensor that a trained norm reads.

    Attributes:
        layer: the weight layer's node.
        calls: the operations, in the order of the data.
    """

    layer: fx.Node
    calls: tuple[Call, ...]


def chain_to(
    node: fx.Node, calls: Mapping[fx.Node, Call], env: Mapping[fx.Node, Any], known: Mapping[fx.Node, Any]
) -> Chain | None:
    """The chain that ends with `node`, None where no weight layer lies at its other end.

    Args:
        node: what the norm reads.
        calls: what has been worked out so far.
        env: its results.
        known: nodes whose own moments a norm tells: nothing is to be inferred beyond them.
    """
    found: list[Call] = []
    here = node
    while len(found) <= FARTHEST:
        state = env.get(here)
        if not isinstance(state, State) or state.components > 1 or (found and here in known):
            return None
        if state.from_weight_layer:
            return Chain(here, tuple(reversed(found))) if found else None
        call = calls.get(here)
        inputs = here.all_input_nodes
        if call is None or len(inputs) != 1 or here.args[:1] != (inputs[0],) or transfer_of(call) is None:
            return None
        found.append(call)
        here = inputs[0]
    return None


def recalibrate(chain: Chain, statistics: Statistics, env: MutableMapping[fx.Node, Any]) -> bool:
    """Give the weight layer's output the moments for which `statistics` come out at the end of the chain.

    Works out anew in `env` what lies on the chain; False, and nothing done, where channels do not match or
    no such moments are found.
    """
    mean, first = statistics[0], env[chain.layer]
    if any(env[node].channels != len(mean) for node in (chain.layer, *(call.node for call in chain.calls))):
        return False
    functions = [moments_of(call) for call in chain.calls]
    if all(function is not None for function in functions):
        known = _inverted(chain, [f for f in functions if f is not None], statistics, env)
    elif all(function is None or is_homogeneous(function) for function in functions):
        known = _looked_up(chain, first.per_channel(), statistics)
    else:
        return False
    states = _forwards(chain, calibrated(first, *known))
    if not all(np.all(np.isfinite(state.train_mean) & (state.train_var > 0)) for state in states):
        return False
    env.update(zip((chain.layer, *(call.node for call in chain.calls)), states, strict=True))
    return True


def _forwards(chain: Chain, first: State) -> list[State]:
    """`first`, the weight layer's output, and what each operation of the chain makes of it."""
    states = [first]
    for call in chain.calls:
        transfer = transfer_of(call)
        assert transfer is not None
        states.append(transfer(replace(call, args=(states[-1], *call.args[1:]))).per_channel())
    return states


def _inverted(
    chain: Chain, functions: list[MomentFunction], statistics: Statistics, env: Mapping[fx.Node, Any]
) -> Statistics:
    """Backwards through pointwise functions, one after the other."""
    mean, variance = statistics
    before = [env[node].per_channel() for node in (chain.layer, *(call.node for call in chain.calls[:-1]))]
    for function, state in zip(reversed(functions), reversed(before), strict=True):
        mean, variance = inverse(function, mean, variance, (state.train_mean, state.train_var))
    return mean, variance


def _looked_up(chain: Chain, first: State, statistics: Statistics) -> Statistics:
    """Through rectifiers and pools, which pass a factor on: mean/sd at the end depends on mean/sd at the
    start alone. It is worked out at `PLACES` and read off, and the scale follows; once more with the noise
    as it is against that scale.
    """
    mean, variance = statistics
    wanted = np.sqrt(variance)
    sigma = np.sqrt(np.maximum(first.train_var, 1e-24))
    t = first.train_mean / sigma
    for _ in range(ROUNDS):
        ends = [_forwards(chain, calibrated(first, place * sigma, sigma**2))[-1] for place in PLACES]
        deviations = np.sqrt(np.maximum(np.stack([end.train_var for end in ends]), 1e-24))
        ratios = np.maximum.accumulate(np.stack([end.train_mean for end in ends]) / deviations)
        for channel in range(len(t)):
            t[channel] = np.interp(mean[channel] / wanted[channel], ratios[:, channel], PLACES)
            sigma[channel] *= wanted[channel] / np.interp(t[channel], PLACES, deviations[:, channel])
    return t * sigma, sigma**2
