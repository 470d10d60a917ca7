"""One batch, however the user's loader hands it on, as the arguments of a forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from dropout_lint.target.types import Inputs


def arguments(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of `model.forward` that `batch` stands for.

    A tensor is the first argument; a tuple or list holds positional arguments, of which those beyond what
    `forward` takes are left out (labels, as a `DataLoader` adds them); a dict holds keyword arguments, of
    which those that `forward` does not know are left out.
    """
    if isinstance(batch, Inputs):
        return batch.args, dict(batch.kwargs)
    parameters = _parameters(model.forward)
    if isinstance(batch, Mapping):
        kinds = {parameter.kind for parameter in parameters}
        if not parameters or inspect.Parameter.VAR_KEYWORD in kinds:
            return (), {str(name): value for name, value in batch.items()}
        known = {parameter.name for parameter in parameters}
        return (), {str(name): value for name, value in batch.items() if name in known}
    if isinstance(batch, (list, tuple)):
        kinds = {parameter.kind for parameter in parameters}
        if not parameters or inspect.Parameter.VAR_POSITIONAL in kinds:
            return tuple(batch), {}
        named = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        return tuple(batch[: sum(parameter.kind in named for parameter in parameters)]), {}
    return (batch,), {}


def _parameters(forward: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return []


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer lies; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def to_device(value: Any, device: torch.device) -> Any:
    """Every tensor in a nested value, on `device`."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device, non_blocking=True), value)


def rereadable(batches: Iterable[Any]) -> bool:
    """Whether `batches` can be read more than once: an iterator or generator cannot."""
    return iter(batches) is not batches
