"""Whether a tensor would require a gradient in training; a recording, which has none, is asked that."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from dropout_lint.trace.traced import module_of

HOOKS = frozenset({"register_hook", "retain_grad"})
"""What a tensor can be asked only where it requires a gradient, and what waits for the backward pass."""


class Gradients:
    """The answers of one recording.

    Args:
        told: whether the model is told so; else no tensor that it makes requires a gradient, as in test mode.

    Attributes:
        answered: it was.
    """

    def __init__(self, model: nn.Module, told: bool) -> None:
        self.model, self.told = model, told
        self.answered = False
        self._known: dict[fx.Node, bool] = {}

    def required(self, node: fx.Node | None) -> bool:
        """Whether parameters that require gradients lie upstream of `node`."""
        found = self.told and node is not None and self._reach(node)
        self.answered |= found
        return found

    def _reach(self, last: fx.Node) -> bool:
        for node in last.graph.nodes:
            if node not in self._known:
                self._known[node] = self._learns(node) or (
                    not _is_detached(node) and any(self._known.get(item) for item in node.all_input_nodes)
                )
            if node is last:
                break
        return self._known[last]

    def _learns(self, node: fx.Node) -> bool:
        if node.op == "get_attr":
            try:
                value: Any = operator.attrgetter(str(node.target))(self.model)
            except AttributeError:  # a constant that the graph holds beside the model's own
                return False
            return isinstance(value, torch.Tensor) and value.requires_grad
        module = module_of(self.model, node)
        return module is not None and any(item.requires_grad for item in module.parameters())


def _is_detached(node: fx.Node) -> bool:
    return str(node.target) in ("detach", "data") or (node.target is getattr and node.args[1] == "data")
