"""Calls that were recorded with a mode baked in become modules that follow `train()` and `eval()`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from dropout_lint.fixes.graph.dropmodules import class_name, free_name, make
from dropout_lint.fixes.modules import module_at
from dropout_lint.layers import is_dropout_function
from dropout_lint.trace.traced import Trace

# Arguments of torch functions that hold the mode, with their values in eval mode.
MODES: dict[str, tuple[str, Any]] = {
    "batch_norm": ("training", False),
    "instance_norm": ("use_input_stats", False),
    "rrelu": ("training", False),
    "multi_head_attention_forward": ("training", False),
    "scaled_dot_product_attention": ("dropout_p", 0.0),
}


class InMode(nn.Module):
    """Calls a function with one argument that has one value in train mode and another in eval mode.

    It has no parameters, so it adds nothing to a state_dict; it is pickled by the function's import path.
    """

    def __init__(self, module: str, function: str, argument: str, train: Any, eval_: Any) -> None:
        super().__init__()
        self.path = (module, function)
        self.argument = argument
        self.values = (eval_, train)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The function's value, with the argument of the current mode."""
        function = getattr(importlib.import_module(self.path[0]), self.path[1])
        kwargs[self.argument] = self.values[int(self.training)]
        result: Tensor = function(*args, **kwargs)
        return result

    def extra_repr(self) -> str:
        off, on = self.values
        return f"{'.'.join(self.path)}, {self.argument}={on} in train mode, {off} in eval mode"


def follow_mode(trace: Trace, *, norms: bool = True) -> int:
    """Exchange, in place in `trace.graph` and `trace.model`, every baked-in mode for a module.

    A functional dropout that drops in train mode alone becomes a dropout module. Other functions with a mode
    argument become `InMode` modules; for a functional norm one cannot see in a recording made in train mode
    whether its `training=True` was `self.training` or a constant, so the caller checks eval outputs and
    repeats with `norms=False` where they differ.

    Returns:
        number of exchanged calls.
    """
    sites = {site.node: site for site in trace.dropouts}
    count = 0
    for node in list(trace.graph.nodes):
        if node.op != "call_function":
            continue
        module: nn.Module | None
        site = sites.get(node)
        if site is not None and is_dropout_function(node.target):
            kind = class_name(site.spec)
            if kind is None or not site.active_in_train or site.active_in_eval:
                continue
            module = make(kind, site.spec.p, site.spec)
            if site.spec.inplace:
                vars(module)["inplace"] = True
            args: tuple[Any, ...] = (node.all_input_nodes[0],)
            kwargs: dict[str, Any] = {}
        else:
            if site is not None and site.active_in_eval:
                continue
            built = _in_mode(node, norms)
            if built is None:
                continue
            module, args, kwargs = built
        owner = module_at(trace.model, str(node.meta.get("owner") or ""))
        name = free_name(
            owner, "dropout" if site is not None and not site.inside else str(node.target.__name__)
        )
        module.training = owner.training
        owner._modules[name] = module
        prefix = str(node.meta.get("owner") or "")
        with trace.graph.inserting_before(node):
            new = trace.graph.call_module(f"{prefix}.{name}" if prefix else name, args, kwargs)
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        trace.graph.erase_node(node)
        count += 1
    return count


def _in_mode(node: fx.Node, norms: bool) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]] | None:
    function = node.target
    name = getattr(function, "__name__", "")
    found = MODES.get(name)
    if found is None or not callable(function) or (not norms and name in ("batch_norm", "instance_norm")):
        return None
    argument, off = found
    public = getattr(F, name, None)
    if public is not function:
        return None
    bound = _bind(public, node, argument)
    if bound is None:
        return None
    value, args, kwargs = bound
    if isinstance(value, fx.Node) or value == off:
        return None
    return InMode("torch.nn.functional", name, argument, value, off), args, kwargs


def _bind(
    function: Callable[..., Any], node: fx.Node, argument: str
) -> tuple[Any, tuple[Any, ...], dict[str, Any]] | None:
    """Value of one argument, and the call without it; None where it was not given."""
    kwargs = dict(node.kwargs)
    if argument in kwargs:
        value = kwargs.pop(argument)
        return value, node.args, kwargs
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:  # builtins carry no signature; SDPA's order is part of its documentation
        names = ["query", "key", "value", "attn_mask", "dropout_p", "is_causal"]
    if argument not in names or names.index(argument) >= len(node.args):
        return None
    position = names.index(argument)
    for later, value in zip(names[position + 1 :], node.args[position + 1 :], strict=False):
        kwargs[later] = value
    return node.args[position], node.args[:position], kwargs
