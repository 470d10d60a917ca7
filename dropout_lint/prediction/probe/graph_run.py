"""A trace's graph, run once for several modes side by side: draws of the masks, and test mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from dropout_lint.inputs.values import replaced
from dropout_lint.layers.dropouts import RATIO_ARGUMENTS
from dropout_lint.trace.noise_by_hand import is_random
from dropout_lint.trace.traced import DropoutSite, NormSite, Trace, module_of

Beside = tuple[Any, ...]
"""What a node returned, once for each mode; the same object throughout where no noise has come to it."""
TRAINING = (5, "training")
"""Where functional norms take whether they normalise by the batch: position and keyword."""


class GraphRun:
    """Runs the graph of a trace in each of several modes, one node after the other.

    Norms that normalise by stored statistics do so in every mode, so that nothing of the model is changed.

    Args:
        trace: a graph that computes what the model computes.
        draws: for each mode, whether its dropouts drop.
        at_norm: is given such a norm and its input in each mode, and returns what is to be normalised.
    """

    def __init__(
        self, trace: Trace, draws: Sequence[bool], at_norm: Callable[[NormSite, Beside], Beside]
    ) -> None:
        self.trace = trace
        self.draws = draws
        self._at_norm = at_norm
        self._dropouts = {site.node: site for site in trace.dropouts if site.active_in_train}
        self._scales = {site.scale for site in trace.dropouts if site.scale is not None}
        self._norms = {site.node: site for site in trace.norms if site.spec.shifts}

    def run(self, inputs: Mapping[fx.Node, Any]) -> None:
        """Run it all on these values of the placeholders."""
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
        if node.op == "get_attr":
            return (self._attribute(str(node.target)),) * count
        beside = [self._arguments(node, env, mode) for mode in range(count)]
        if node in self._norms:
            read = self._at_norm(self._norms[node], tuple(args[0] for args, _ in beside))
            beside = [((x, *args[1:]), kwargs) for x, (args, kwargs) in zip(read, beside, strict=True)]
            quiet = all(x is read[0] for x in read)
        else:
            quiet = node not in self._dropouts and not is_random(node)
            quiet = quiet and all(env[source][0] is env[source][-1] for source in node.all_input_nodes)
        if quiet:
            return (self._call(node, *beside[0], draws=False),) * count
        if node in self._dropouts:  # in place, a draw would change what the others drop
            beside = [_copied(arguments) for arguments in beside]
        called = zip(beside, self.draws, strict=True)
        return tuple(self._call(node, *arguments, draws=draws) for arguments, draws in called)

    def _arguments(self, node: fx.Node, env: Mapping[fx.Node, Beside], mode: int) -> tuple[Any, Any]:
        return (
            fx.map_arg(node.args, lambda source: env[source][mode]),
            fx.map_arg(node.kwargs, lambda source: env[source][mode]),
        )

    def _call(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], *, draws: bool) -> Any:
        site = self._dropouts.get(node)
        draws = draws or (site is not None and site.active_in_eval)
        if node in self._norms and node.op == "call_function":
            args, kwargs = _with_argument(args, kwargs, TRAINING, False)
        if not draws:
            if site is not None and not site.inside:
                return _operand(node, site, args, kwargs)
            if node in self._scales:
                return args[0]
            if site is not None and node.op == "call_function":
                args, kwargs = _with_argument(args, kwargs, RATIO_ARGUMENTS[node.target], 0.0)  # type: ignore[index]
        if node.op == "call_module":
            module = module_of(self.trace.model, node)
            assert module is not None
            with _in_mode(module, site is not None and draws):
                return module(*args, **kwargs)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)

    def _attribute(self, name: str) -> Any:
        if name in self.trace.constants:
            return self.trace.constants[name]
        value: Any = self.trace.model
        for part in name.split("."):
            value = getattr(value, part)
        return value


def _operand(node: fx.Node, site: DropoutSite, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a dropout passes on in test mode."""
    given = zip((*node.args, *node.kwargs.values()), (*args, *kwargs.values()), strict=True)
    source = node.all_input_nodes[site.operand]
    return next(value for of, value in given if of is source)


def _with_argument(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], place: tuple[int, str], value: object
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    position, name = place
    if position < len(args):
        return (*args[:position], value, *args[position + 1 :]), dict(kwargs)
    return args, {**kwargs, name: value}


def _copied(arguments: tuple[Any, Any]) -> tuple[Any, Any]:
    args, kwargs = (replaced(value, Tensor.clone) for value in arguments)
    return args, kwargs


@contextmanager
def _in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    before = [(one, one.training) for one in module.modules()]
    for one, _ in before:
        one.training = training
    try:
        yield
    finally:
        for one, was in before:
            one.training = was


def channels_last(x: Tensor) -> Tensor:
    """(samples and positions, C) of a norm's input (N, C, …)."""
    return x.transpose(1, -1).flatten(0, -2)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """(C,) mean and variance of each channel of (N, C, …)."""
    variance, mean = torch.var_mean(channels_last(x).float(), 0, correction=0)
    return mean, variance
