"""The fix without a graph: exchange submodules and keep the model's own `forward`.

For a model whose graph cannot be re-run (only partly traced, or its forward takes another way in eval mode)
this still moves, merges, exchanges and removes dropouts that are modules. A dropout in a new place becomes a
child of the layer beside it, called from a forward hook: no state_dict key changes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from dropout_lint.errors import FixError
from dropout_lint.fixes.graph.dropmodules import class_name, copy_with, free_name, make
from dropout_lint.fixes.modules import Places, module_at
from dropout_lint.fixes.plan.steps import ERASING, Anchor, Step
from dropout_lint.layers import Catalogue
from dropout_lint.trace.traced import Trace


class DropInput:
    """Forward pre-hook: drop the first input of a layer by the layer's own child `name`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        dropout = module._modules[self.name]
        assert dropout is not None
        return (dropout(args[0]), *args[1:])


class DropOutput:
    """Forward hook: drop the output of a layer by the layer's own child `name`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        dropout = module._modules[self.name]
        assert dropout is not None
        return dropout(output)


def operate(trace: Trace, steps: Sequence[Step]) -> nn.Module:
    """A deep copy of the model with the steps done on its submodules.

    Raises:
        FixError: a step needs a changed `forward`: a functional dropout, a module with several calls of which
            only some are changed, or a place that no single layer call bounds.
    """
    model = copy.deepcopy(trace.model)
    places = Places(model)
    by_node = {step.site.node: step for step in steps}
    calls: dict[str, list[fx.Node]] = {}
    for node in trace.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    for step in steps:
        site = step.site
        if site.functional or site.module is None:
            raise FixError(f"{site.name} is a call, not a module; its forward would have to change")
        doings = {_doing(by_node.get(node)) for node in calls.get(site.module, [])}
        if len(doings) > 1:
            raise FixError(f"{site.module} is called several times with different verdicts")
    for step in steps:
        assert step.site.module is not None
        old = module_at(trace.model, step.site.module)
        if step.action in ("uout", "reduce", "repair"):
            places.put(step.site.module, _module(step, old, trace.catalogue))
            continue
        places.put(step.site.module, nn.Identity())
        if step.action == "move":
            assert step.anchor is not None
            _hook(model, step.anchor, _module(step, old, trace.catalogue), calls)
    return model


def _doing(step: Step | None) -> tuple[object, ...]:
    """What is done to a call, as far as the module is concerned."""
    if step is None:
        return ("keep",)
    if step.action in ERASING:
        return ("erase",)
    return (step.action, step.value, step.kind)


def _module(step: Step, old: nn.Module, catalogue: Catalogue) -> nn.Module:
    if step.kind is not None:
        value = step.site.spec.p if step.value is None else step.value
        return make(step.kind, value, step.site.spec)
    if class_name(step.site.spec) is None and step.value is not None:
        return copy_with(old, catalogue, step.value)
    return copy_with(old, catalogue, step.value, inplace=False)


def _hook(model: nn.Module, anchor: Anchor, dropout: nn.Module, calls: dict[str, list[fx.Node]]) -> None:
    """Put a dropout on an edge: before its only user, or behind its producer if nothing else uses that."""
    users, producer = anchor.users, anchor.producer

    def once(node: fx.Node) -> bool:
        return node.op == "call_module" and len(calls[str(node.target)]) == 1

    if len(users) == 1 and once(users[0]) and users[0].args:
        layer = module_at(model, str(users[0].target))
        name = free_name(layer)
        layer.register_forward_pre_hook(DropInput(name))
    elif once(producer) and set(producer.users) <= set(users):
        layer = module_at(model, str(producer.target))
        name = free_name(layer)
        layer.register_forward_hook(DropOutput(name))
    else:
        raise FixError(f"no single layer bounds the place {anchor.place}")
    dropout.training = layer.training
    layer.add_module(name, dropout)
