"""Putting a model on stage for one recording, and leaving it as it was on every way out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dropout_lint.trace.generators import SEED, fixed
from dropout_lint.trace.materials import Materials


@contextlib.contextmanager
def preserved(model: nn.Module, seed: int = SEED) -> Iterator[None]:
    """Put every module's class, attributes and hooks back afterwards; chance plays no part in between."""
    saved = [(module, _snapshot(module)) for module in model.modules()]
    with fixed(model, seed):
        try:
            yield
        finally:
            for module, snapshot in saved:
                _restore(module, snapshot)


@contextlib.contextmanager
def staged(model: nn.Module, materials: Materials, train: bool, seed: int = SEED) -> Iterator[dict[int, str]]:
    """Swap every parameter and buffer for its stand-in and set the mode; undo all of it afterwards.

    Generators start from `seed`.

    Yields:
        `id(stand-in)` → qualified name, for parameters and buffers.
    """
    names: dict[int, str] = {}
    with preserved(model, seed):
        for prefix, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            dot = f"{prefix}." if prefix else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    twin = materials.parameter(parameter)
                    module._parameters[name] = twin
                    names.setdefault(id(twin), dot + name)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    twin_buffer = materials.twin(buffer)
                    module._buffers[name] = twin_buffer
                    names.setdefault(id(twin_buffer), dot + name)
        model.train(train)
        try:
            yield names
        finally:
            materials.release()


def _snapshot(module: nn.Module) -> tuple[type, dict[str, Any], dict[str, Any]]:
    """Class, attributes, and shallow copies of the containers among them (caches that a forward fills)."""
    attributes = module.__dict__
    copies = {name: value.copy() for name, value in attributes.items() if type(value) in _CONTAINERS}
    return type(module), dict(attributes), copies


_CONTAINERS = (dict, list, set, type(nn.Module()._forward_hooks))


def _restore(module: nn.Module, snapshot: tuple[type, dict[str, Any], dict[str, Any]]) -> None:
    cls, attributes, copies = snapshot
    if type(module) is not cls:  # a lazy module changes its class at its first call
        module.__class__ = cls
    for name, copy in copies.items():
        container = attributes[name]
        if not container and not copy:
            continue
        container.clear()
        container.extend(copy) if isinstance(container, list) else container.update(copy)
    module.__dict__.clear()
    module.__dict__.update(attributes)
