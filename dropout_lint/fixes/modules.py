"""Modules by their qualified names, and whose `forward` is torch's own."""

from __future__ import annotations

from torch import nn


def module_at(model: nn.Module, name: str) -> nn.Module:
    """The module with a qualified name, looked up in the tree alone (never in attributes)."""
    module = model
    for part in name.split(".") if name else ():
        child = module._modules[part]
        if child is None:
            raise KeyError(name)
        module = child
    return module


def put_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Register a module under a qualified name; what is there is replaced under all of its names."""
    parent, _, last = name.rpartition(".")
    holder = module_at(model, parent)
    module.training = holder.training
    old = holder._modules.get(last)
    if old is None:
        holder._modules[last] = module
        return
    for place in list(model.modules()):
        for key, child in place._modules.items():
            if child is old:
                place._modules[key] = module


def is_torch_forward(module: nn.Module) -> bool:
    """Whether a module's `forward` is torch's own (a Sequential, also a user's subclass of it)."""
    return str(getattr(type(module).forward, "__module__", "")).startswith("torch.nn")
