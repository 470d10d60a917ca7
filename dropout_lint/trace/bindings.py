"""Which node of the graph every living tensor comes from, through views and in-place changes."""

from __future__ import annotations

import operator
import weakref
from typing import Any

import torch
from torch import fx

from dropout_lint.inputs.values import DEPTH, Attribute, parts
from dropout_lint.trace.traced import TensorInfo
from dropout_lint.trace.witness import Witness


def mutated(tensor: torch.Tensor, *by: object) -> torch.Tensor:
    """`tensor` after the in-place changes `by`: the identity, which keeps order and dependence visible."""
    return tensor


class _Binding:
    """One tensor's node, the path of steps into what that node returned, and in-place changes since; and
    the draws that have reached it by what the graph shows.
    """

    __slots__ = ("drawn", "node", "path", "pending", "reference")

    def __init__(self, tensor: torch.Tensor, node: fx.Node, path: tuple[Any, ...], drawn: int) -> None:
        self.reference = weakref.ref(tensor)
        self.node = node
        self.path = path
        self.drawn = drawn
        self.pending: list[fx.Node] = []


class Bindings:
    """Tensor → node. Tensors are held weakly; an id is trusted only while its tensor lives."""

    def __init__(self, graph: fx.Graph, witness: Witness) -> None:
        self._graph = graph
        self._witness = witness
        self._bound: dict[int, _Binding] = {}
        self._views: dict[int, list[weakref.ref[torch.Tensor]]] = {}

    def bind(self, value: Any, node: fx.Node, path: tuple[Any, ...] = ()) -> None:
        """Bind every tensor inside `value`, which `node` returned."""
        if isinstance(value, torch.Tensor):
            self._bound[id(value)] = _Binding(value, node, path, self._witness.of(value))
            base = value._base
            if base is not None:
                self._views.setdefault(id(base), []).append(weakref.ref(value))
            return
        for step, part in parts(value):
            if len(path) < DEPTH:
                self.bind(part, node, (*path, step))

    def lookup(self, tensor: torch.Tensor) -> fx.Node | None:
        """The node that returns `tensor`; nodes for steps and changes are created at the first use."""
        binding = self._bound.get(id(tensor))
        if binding is None or binding.reference() is not tensor:
            return None
        for step in binding.path:
            owner, call = binding.node.meta.get("owner", ""), binding.node.meta.get("call")
            take, into = (getattr, step.name) if isinstance(step, Attribute) else (operator.getitem, step)
            binding.node = self._graph.call_function(take, (binding.node, into))
            binding.node.meta.update(owner=owner, call=call)
        if binding.path:
            binding.path = ()
            binding.node.meta["value"] = TensorInfo(tuple(tensor.shape), tensor.dtype)
        if binding.pending:
            last = binding.pending[-1]
            node = self._graph.call_function(mutated, (binding.node, *binding.pending))
            node.meta.update(
                owner=last.meta.get("owner", ""),
                call=last.meta.get("call"),
                value=TensorInfo(tuple(tensor.shape), tensor.dtype),
            )
            binding.node, binding.pending = node, []
        return binding.node

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` is bound."""
        binding = self._bound.get(id(tensor))
        return binding is not None and binding.reference() is tensor

    def unseen(self, tensor: torch.Tensor) -> int:
        """The draws that have reached `tensor` by a way that the graph does not show; said once."""
        drawn = self._witness.of(tensor)
        binding = self._bound.get(id(tensor))
        if not drawn or binding is None or binding.reference() is not tensor:
            return drawn
        unseen = drawn & ~binding.drawn
        binding.drawn |= drawn
        return unseen

    def mutate(self, tensor: torch.Tensor, by: fx.Node) -> None:
        """Say that `by` changed `tensor` in place: it, its base and the other views depend on `by` now."""
        base = tensor._base if tensor._base is not None else tensor
        affected = [base, *(view() for view in self._views.get(id(base), ()))]
        if all(other is not tensor for other in affected):
            affected.append(tensor)
        for other in affected:
            if other is not None and self.knows(other):
                binding = self._bound[id(other)]
                binding.pending.append(by)
                binding.drawn |= self._witness.of(other)
