"""A trace's graph, run once for several modes side by side: draws of the masks, and test mode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from dropout_lint.guard.modes import test_mode
from dropout_lint.inputs.values import replaced
from dropout_lint.layers.signatures import NORMS, RATIOS_INSIDE, put
from dropout_lint.prediction.ops.samples import Unrunnable
from dropout_lint.trace.draws import ARRAYS, VALUES, is_random
from dropout_lint.trace.traced import NormSite, Trace, function_of, given_for, module_of

Beside = tuple[Any, ...]
"""What a node returned, once for each mode; the same object throughout where no noise has come to it."""


class GraphRun:
    """Runs the graph of a trace in each of several modes, one node after the other.

    Norms that normalise by stored statistics do so in every mode, so that nothing of the model is changed.

    Args:
        trace: a graph that computes what the model computes.
        draws: for each mode, whether its dropouts drop.
        at_norm: is given such a norm and its input in each mode, and returns what is to be normalised.
        off: dropouts, by name, that drop in no mode. The others draw as they do beside them.
    """

    def __init__(
        self,
        trace: Trace,
        draws: Sequence[bool],
        at_norm: Callable[[NormSite, Beside], Beside],
        off: Collection[str] = (),
    ) -> None:
        self.trace = trace
        self.draws = draws
        self._at_norm = at_norm
        self._off = off
        self._dropouts = {site.node: site for site in trace.dropouts if site.active_in_train}
        self._scales = {site.scale: site for site in trace.dropouts if site.scale is not None}
        self._norms = {site.node: site for site in trace.norms if site.spec.shifts}

    def run(self, inputs: Mapping[fx.Node, Any]) -> None:
        """Run it all on these values of the placeholders.

        Raises:
            Unrunnable: an operation does not take them.
        """
        env: dict[fx.Node, Beside] = {}
        last = {source: node for node in self.trace.graph.nodes for source in node.all_input_nodes}
        for node in self.trace.graph.nodes:
            if node.op == "output":
                return
            env[node] = self._node(node, env, inputs)
            for source in node.all_input_nodes:
                if last[source] is node:
                    env.pop(source, None)

    def _node(self, node: fx.Node, env: Mapping[fx.Node, Beside], inputs: Mapping[fx.Node, Any]) -> Beside:
        count = len(self.draws)
        if node.op == "placeholder":
            return (inputs[node],) * count
        if VALUES in node.meta:  # what chance made in Python
            return tuple(_drawn(node) for _ in range(count))
        if node.op == "get_attr":
            return (self.trace.held(str(node.target)),) * count
        if node in self._norms:
            site = self._norms[node]
            assert site.source is not None
            env = {**env, site.source: self._at_norm(site, env[site.source])}
        own = node in self._dropouts or node in self._scales or is_random(node)
        if not own and all(env[source][0] is env[source][-1] for source in node.all_input_nodes):
            return (self._call(node, env, 0),) * count
        return tuple(self._call(node, env, mode) for mode in range(count))

    def _call(self, node: fx.Node, env: Mapping[fx.Node, Beside], mode: int) -> Any:
        args: tuple[Any, ...] = fx.map_arg(node.args, lambda source: env[source][mode])
        kwargs: dict[str, Any] = dict(fx.map_arg(node.kwargs, lambda source: env[source][mode]))
        site = self._dropouts.get(node)
        owner = self._scales.get(node, site)
        off = owner is not None and owner.name in self._off
        draws = self.draws[mode] or (site is not None and site.active_in_eval)
        if owner is not None and (off or not draws) and not (site is not None and site.inside):
            if site is not None and draws:  # what it draws is what comes before the others' draws
                self._tried(node, args, kwargs, True)
            source = node.all_input_nodes[0 if site is None else site.operand]
            value = given_for(source, node, args, kwargs)
            return value if site is None or site.spec.scale == 1 else value * site.spec.scale
        if node in self._norms and node.target in NORMS:
            args = put(args, kwargs, NORMS[node.target].by_batch, False)
        drops = site is not None and draws and not off
        if site is not None and not drops and node.target in RATIOS_INSIDE:
            args = put(args, kwargs, RATIOS_INSIDE[node.target], 0.0)
        return self._tried(node, args, kwargs, drops)

    def _tried(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], drops: bool) -> Any:
        if node in self._dropouts:  # in place, a draw would change what the others drop
            args, kwargs = replaced(args, Tensor.clone), replaced(kwargs, Tensor.clone)
        try:
            return self._computed(node, args, kwargs, training=drops)
        except Exception as error:  # the user's operations, on inputs that the user did not give
            raise Unrunnable(f"{type(error).__name__}: {error}") from error

    def _computed(
        self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool
    ) -> Any:
        if node.op == "call_module":
            module = module_of(self.trace.model, node)
            assert module is not None
            with test_mode(module, lambda _: training):
                return module(*args, **kwargs)
        return function_of(node)(*args, **kwargs)


def _drawn(node: fx.Node) -> Any:
    """A number, or an array, as chance makes it."""
    choices = node.meta.get(ARRAYS) or node.meta[VALUES]
    chosen = choices[int(torch.randint(len(choices), ()))]
    return chosen if ARRAYS in node.meta else float(chosen)


def moments(x: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """(C,) mean and variance of each channel of (N, C, …).

    Raises:
        Unrunnable: it is of another form.
    """
    if x.dim() < 2 or x.shape[1] != channels or not x.is_floating_point():
        raise Unrunnable(f"a norm of {channels} channels reads {tuple(x.shape)}, {x.dtype}")
    variance, mean = torch.var_mean(x.transpose(1, -1).flatten(0, -2).float(), 0, correction=0)
    return mean, variance
