"""The noise ledger: one walk over the traced graph, one `State` for each tensor, Δ at every norm."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from dropout_lint.inputs.values import Attribute
from dropout_lint.layers.reestimated import is_reestimated
from dropout_lint.prediction.abreast import OfOne
from dropout_lint.prediction.at_norms import blame, note_fed, note_removals, record
from dropout_lint.prediction.calibration import chain_to, measured, recalibrate
from dropout_lint.prediction.evaluation import worked_out
from dropout_lint.prediction.expected import Training, Trainings
from dropout_lint.prediction.ops import Call, Ledger, Parameter, function_name
from dropout_lint.prediction.ops.base import (
    first_shape,
)
from dropout_lint.prediction.ops.norm import calibrated
from dropout_lint.prediction.ops.sampled import constant_of
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.state import LAGS, State, constant, fresh
from dropout_lint.trace.traced import DropoutSite, NormSite, TensorInfo, Trace, module_of

DECAY = 5.0
"""Assumed correlation of an input's values at a distance of r times its size, e^{-DECAY·r}; as in natural
images.
"""
INPUT_ENERGY_VARIANCE = 0.4
"""Assumed relative variance of a natural input's local energy over the positions, which features made of it
keep, by trained weights or not (Wainwright & Simoncelli 2000, scale mixtures of Gaussians).
"""
FILLS = ("zeros", "ones", "full", "empty", "rand", "randn", "tensor")
SHAPE_ALONE = frozenset(
    {*(f"{name}_like" for name in FILLS), *(f"new_{name}" for name in FILLS), "size", "dim", "numel"}
)
"""Operations that read a tensor's shape and none of its values."""
INPUT_CHANNEL_CORRELATION = 0.8
"""Assumed squared correlation between an image's colour channels."""
MOST_COLOURS = 4
"""An input of more channels than this is taken for features, which are not alike."""


@dataclass
class Walk:
    """A walk over a trace, as far as it has gone.

    Attributes:
        ledger: what it has found.
        calls: the operations, in order.
        shares: each dropout's share at the norms is worked out.
        ahead: goes on, from norm to norm.
    """

    ledger: Ledger
    calls: Mapping[fx.Node, Call]
    shares: bool
    ahead: Iterator[fx.Node]

    def on(self, norm: fx.Node | None = None) -> Walk:
        """Go on until Δ of a norm is known; without one, to the end."""
        if norm is None or (norm in self.ledger.noisy and norm not in self.ledger.first.shifts):
            with np.errstate(all="ignore"):
                next((reached for reached in self.ahead if reached is norm), None)
        return self

    def shared_out(self) -> Walk:
        """The same with each dropout's share, of weights that no norm has measured."""
        removals: dict[fx.Node, Any] = {}
        with np.errstate(all="ignore"):
            for node, call in self.calls.items():
                _carry(node, self.ledger)
                first = call.of(self.ledger.first)
                if node in self.ledger.norms:
                    blame(first, removals)
                note_removals(first, removals)
        self.shares = True
        return self


def kept(trace: Trace, *, real: bool = False) -> Ledger:
    """A ledger that has walked over the whole trace with weights of the start, without shares."""
    return begun(trace, real=real, shares=False).on().ledger


def walked(
    trace: Trace,
    *,
    real: bool = False,
    trained: bool = False,
    training: Training | Trainings | None = None,
    shares: bool = True,
) -> Walk:
    """A walk over the whole trace; see `Ledger`."""
    return begun(trace, real=real, trained=trained, training=training, shares=shares).on()


def begun(
    trace: Trace,
    *,
    real: bool = False,
    trained: bool = False,
    training: Training | Trainings | None = None,
    shares: bool = True,
) -> Walk:
    """A walk that has not gone anywhere yet."""
    dropouts = tuple(
        site
        for site in trace.dropouts
        if site.active_in_train and not site.active_in_eval and site.spec.is_noisy
    )
    weight_layers = frozenset(
        node
        for node in trace.graph.nodes
        if isinstance(module_of(trace.model, node), (nn.Linear, nn.modules.conv._ConvNd))
    )
    results: dict[fx.Node, Any] = {}
    ledger = Ledger(
        dropouts=dropouts,
        norms={site.node: site for site in trace.norms},
        order={node: index for index, node in enumerate(trace.graph.nodes)},
        silent=frozenset(
            node
            for site in trace.dropouts
            if not site.inside
            for node in (site.node, site.scale)
            if node is not None
        ),
        real=real,
        trained=trained,
        training=training,
        results=results,
        weight_layers=weight_layers,
        layers_after={} if training is None else _layers_after(trace, weight_layers),
        measured=measured(trace, dropouts) if trained else {},
        noisy=_reached(trace, dropouts),
        reestimated=frozenset(
            site.node for site in trace.norms if is_reestimated(module_of(trace.model, site.node))
        ),
    )
    if isinstance(training, Trainings):
        ledger.singles = tuple(_single(ledger, place, one) for place, one in enumerate(training.each))
    calls: dict[fx.Node, Call] = {}
    return Walk(ledger, calls, shares, _walk(trace, ledger, results, calls, shares))


def _single(ledger: Ledger, place: int, training: Training | None) -> Ledger:
    """What is known of one of several trainings; what is said of operations is said of the first."""
    _ = ledger.tied  # that of all of them
    own: dict[str, Any] = {name: {} for name in ("shifts", "fed", "noise_at")}
    if place:
        own |= {name: {} for name in ("fallbacks", "unknown", "approximate")}
    return replace(ledger, training=training, results=OfOne(ledger.results, place), **own)


def _layers_after(trace: Trace, weight_layers: Collection[fx.Node]) -> dict[fx.Node, int]:
    """Weight layers on the longest way from each node to the output."""
    after: dict[fx.Node, int] = {}
    for node in reversed(trace.graph.nodes):
        after[node] = max((after[user] + (user in weight_layers) for user in node.users), default=0)
    return after


def finite(ledger: Ledger) -> bool:
    """Whether every Δ is: weights or statistics that are not finite tell nothing."""
    return all(math.isfinite(delta) for delta, _ in ledger.shifts.values())


def delta_at(site: NormSite, ledger: Ledger) -> float:
    """Δ that a ledger found at a norm: 1 where no noise comes, or it divides by what test mode shows."""
    if site.node not in ledger.noisy or site.node in ledger.reestimated:
        return 1.0
    return ledger.shifts[site.node][0] if site.node in ledger.shifts else 1.0


def _walk(
    trace: Trace, ledger: Ledger, env: dict[fx.Node, Any], calls: dict[fx.Node, Call], shares: bool
) -> Iterator[fx.Node]:
    """Work out node by node, into `env`, the results, and `calls`; gives each norm when it is done."""
    removals: dict[fx.Node, Any] = {}
    needed = _needed(trace, ledger)
    for node in trace.graph.nodes:
        if node.op == "output" or node not in needed:
            continue
        _carry(node, ledger)
        call = _call(node, env, trace, ledger)
        if call is None:
            env[node] = _given(node, env, trace, ledger)
            continue
        first = call.of(ledger.first) if shares or node in ledger.norms else call
        if node in ledger.norms:
            for one in ledger.singles or (ledger,):
                record(first if one is ledger.first else call.of(one), one)
            if shares or ledger.trained or ledger.training is not None:
                note_fed(first)
            if shares:
                blame(first, removals)
        folded = constant_of(call)
        result = worked_out(call) if folded is None else folded
        env[node], calls[node] = result, call
        if node in ledger.measured and isinstance(result, State):
            for changed in _recalibrated(node, calls, env, ledger):
                if shares:
                    note_removals(calls[changed], removals)
            mean, variance = ledger.measured[node]
            env[node] = calibrated(env[node].on(1, len(mean)), mean, variance)
        if shares:
            note_removals(first, removals)
        if node in ledger.norms:
            yield node


def _recalibrated(
    node: fx.Node, calls: Mapping[fx.Node, Call], env: dict[fx.Node, Any], ledger: Ledger
) -> list[fx.Node]:
    """Nodes from a weight layer to `node`, where the norm that reads it has corrected their state."""
    chain = chain_to(node, calls, env, ledger.measured)
    if chain is None:
        return []
    try:
        done = recalibrate(chain, ledger.measured[node], env)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return []  # as with a transfer function: the prediction goes on without
    return [chain.layer, *(call.node for call in chain.calls[:-1])] if done else []


def _reached(trace: Trace, dropouts: Iterable[DropoutSite]) -> frozenset[fx.Node]:
    """Nodes that are dropouts, or that depend on one."""
    noisy = {site.node for site in dropouts}
    for node in trace.graph.nodes:
        if any(source in noisy for source in node.all_input_nodes):
            noisy.add(node)
    return frozenset(noisy)


def _needed(trace: Trace, ledger: Ledger) -> set[fx.Node]:
    """Nodes that some norm behind a dropout depends on; at all other norms Δ is 1."""
    needed = {node for node in ledger.norms if node in ledger.noisy}
    for node in reversed(trace.graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return needed


def _given(node: fx.Node, env: Mapping[fx.Node, Any], trace: Trace, ledger: Ledger) -> Any:
    """What no operation makes: an input, a parameter; or a size, a device, a flag, a tuple of tensors."""
    value = node.meta.get("value")
    if node.op == "placeholder":
        return _input(value, len(ledger.dropouts))
    if node.op == "get_attr":
        tensor = trace.held(str(node.target))
        if isinstance(tensor, torch.Tensor):
            trains = isinstance(tensor, nn.Parameter)
            return Parameter(tensor.to("meta"), tensor) if trains and not ledger.real else Parameter(tensor)
        return tensor
    if isinstance(node.target, type):  # an object of these parts
        named = fx.map_arg(node.kwargs, env.get)
        return named | {Attribute(name): part for name, part in named.items()} or fx.map_arg(
            node.args, env.get
        )
    return _part(node, env, value)


def _call(node: fx.Node, env: Mapping[fx.Node, Any], trace: Trace, ledger: Ledger) -> Call | None:
    """The node with its arguments worked out, None where it is no operation on tensors."""
    value = node.meta.get("value")
    made = node.op in ("placeholder", "get_attr") or isinstance(node.target, type)
    if made or not (isinstance(value, torch.Tensor) or first_shape(value) is not None):
        return None
    module = module_of(trace.model, node)
    if module is not None and not ledger.real:
        if module not in ledger.twins:
            ledger.twins[module] = without_values(module)
        module = ledger.twins[module]
    name = type(module).__name__ if module is not None else function_name(node.target)
    args, kwargs = fx.map_arg(node.args, env.get), fx.map_arg(node.kwargs, env.get)
    return Call(node, name, args, kwargs, module, value, ledger)


def _part(node: fx.Node, env: Mapping[fx.Node, Any], value: Any) -> Any:
    """`value`, or what was worked out for a container or object inside another."""
    name = function_name(node.target)
    if name in ("getitem", "getattr") and isinstance(node.args[0], fx.Node):
        whole, step = env.get(node.args[0]), node.args[1]
        if isinstance(whole, dict):
            return whole.get(Attribute(str(step)) if name == "getattr" else step, value)
        if isinstance(whole, tuple) and isinstance(step, int) and -len(whole) <= step < len(whole):
            return whole[step]
    return value


def without_values(module: nn.Module) -> nn.Module:
    """A shallow copy of a leaf with its weights on the meta device."""
    held = (*module._parameters.values(), *module._buffers.values())
    if not module._modules and all(tensor is None or tensor.is_meta for tensor in held):
        return module
    twin: nn.Module = object.__new__(type(module))  # parametrized modules refuse to be copied
    twin.__dict__ = dict(module.__dict__)
    twin._parameters = {
        name: None if tensor is None else nn.Parameter(tensor.detach().to("meta"), False)
        for name, tensor in module._parameters.items()
    }
    twin._buffers = {
        name: None if tensor is None else tensor.detach().to("meta")
        for name, tensor in module._buffers.items()
    }
    twin._modules = {
        name: None if child is None else without_values(child) for name, child in module._modules.items()
    }
    return twin


def _input(value: Any, rows: int) -> Any:
    """Standardised inputs that are smooth over positions, and louder at some than at others."""
    if isinstance(value, (tuple, list)):
        return tuple(_input(item, rows) for item in value)
    if isinstance(value, dict):
        return {key: _input(item, rows) for key, item in value.items()}
    if not isinstance(value, TensorInfo):
        return value
    shape = tuple(int(size) for size in value.shape)
    if not value.dtype.is_floating_point:
        return constant(0.0, rows)
    axis = 1 if len(shape) > 1 else 0
    if len(shape) < 3:
        return fresh(rows, axis=axis, channels=shape[axis] if shape else 1)
    size = max(shape[2:]) if len(shape) > 3 else min(shape[1:])
    rho = np.exp(-DECAY * 2.0 ** np.arange(LAGS) / size)
    state = replace(
        fresh(rows, axis=axis, channels=shape[axis], rho=rho), energy_variance=INPUT_ENERGY_VARIANCE
    )
    colours = len(shape) > 3 and shape[axis] <= MOST_COLOURS
    return replace(state, channel_correlation=INPUT_CHANNEL_CORRELATION) if colours else state


def _carry(node: fx.Node, ledger: Ledger) -> None:
    """What is said of a node's inputs holds of the node as well, if it takes values from them."""
    if function_name(node.target) in SHAPE_ALONE or isinstance(node.meta.get("value"), (int, torch.Size)):
        return
    for said in filter(None, (ledger.unknown, ledger.approximate)):
        of_all = frozenset[str]().union(*(said.get(source, ()) for source in node.all_input_nodes))
        if of_all:
            said[node] = said.get(node, of_all) | of_all
