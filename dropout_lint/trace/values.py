"""Walking through the values that a forward pass handles: tensors inside tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dropout_lint.trace.traced import TensorInfo


def describe(value: Any) -> Any:
    """`value` with a `TensorInfo` in place of each tensor."""
    return map_tensors(value, _info)


def _info(tensor: torch.Tensor) -> TensorInfo:
    return TensorInfo(tuple(int(size) for size in tensor.shape), tensor.dtype)


def map_tensors(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """`value` with `function` applied to every tensor inside its tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple):
        items = [map_tensors(item, function) for item in value]
        return type(value)(*items) if is_named_tuple(value) else tuple(items)
    if isinstance(value, list):
        return [map_tensors(item, function) for item in value]
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    return value


def is_named_tuple(value: tuple[Any, ...]) -> bool:
    """Whether `value` is a plain named tuple, which its fields alone can make again."""
    return hasattr(value, "_fields") and type(value).__bases__ == (tuple,)


def tensors_in(value: Any, depth: int = 3) -> list[torch.Tensor]:
    """The tensors inside `value`, at most `depth` containers down."""
    if isinstance(value, torch.Tensor):
        return [value]
    if depth and isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item, depth - 1)]
    if depth and isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_in(item, depth - 1)]
    return []
