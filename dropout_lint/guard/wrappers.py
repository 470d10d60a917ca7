"""Wrappers around a model: what is inside, and the names that its modules have there."""

from __future__ import annotations

import torch
from torch import nn

# Prefixes that wrappers inside a model put into qualified names.
_PREFIXES = ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, DataParallel and `torch.compile` wrappers.

    Its modules have the names that every report uses. A forward through DDP would also wait for other ranks.
    """
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, torch.jit.ScriptModule):
        return None
    # in the tree alone: a user's `__getattr__` may look further
    parallel = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    return model._modules.get("module" if parallel else "_orig_mod")


def stood_for(module: nn.Module) -> nn.Module:
    """The module that an object stands for which is registered as a module and is none: it hands all that it
    is asked for on, and says that it is of the other's class.
    """
    inner = module if issubclass(type(module), nn.Module) else getattr(module.forward, "__self__", None)
    return inner if isinstance(inner, nn.Module) else module


def bare(name: str) -> str:
    """A qualified name without what wrappers inside the model put into it (`block._orig_mod.bn`)."""
    for prefix in _PREFIXES:
        name = name.replace(prefix, "")
    return name


def worn(model: nn.Module) -> str:
    """The wrappers around `model`, outermost first, as their user writes them; "" where there are none."""
    names = []
    while (inner := _inside(model)) is not None:
        kind = type(model).__name__
        names.append("torch.compile" if kind == "OptimizedModule" else kind)
        model = inner
    return " and ".join(names)
