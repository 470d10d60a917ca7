"""Modules by their qualified names, and whose `forward` is torch's own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dropout_lint.guard.wrappers import stood_for


def module_at(model: nn.Module, name: str) -> nn.Module:
    """The module with a qualified name, looked up in the tree alone (never in attributes)."""
    module = model
    for part in name.split(".") if name else ():
        child = module._modules[part]
        if child is None:
            raise KeyError(name)
        module = stood_for(child)
    return module


class Places:
    """Where each module of a tree is registered, known while modules are put into it.

    Args:
        model: the root of the tree.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._names: dict[int, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self._names.setdefault(id(module), []).append(name)

    def of(self, module: nn.Module) -> Sequence[str]:
        """The qualified names of a module."""
        return self._names.get(id(module), ())

    def put(self, name: str, module: nn.Module) -> None:
        """Register a module under a qualified name; what is there is replaced under all of its names."""
        parent, _, last = name.rpartition(".")
        holder = module_at(self.model, parent)
        module.training = holder.training
        old = holder._modules.get(last)
        names = [_joined(above, last) for above in self.of(holder)] if old is None else [*self.of(old)]
        for place in names:
            parent, _, last = place.rpartition(".")
            module_at(self.model, parent)._modules[last] = module
        self._names[id(module)] = names


def _joined(parent: str, last: str) -> str:
    return f"{parent}.{last}" if parent else last


def is_torch_forward(module: nn.Module) -> bool:
    """Whether a module's `forward` is torch's own (a Sequential, also a user's subclass of it)."""
    return str(getattr(type(module).forward, "__module__", "")).startswith("torch.nn")
