"""Walking through the values that a forward pass handles: tensors inside tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dropout_lint.inputs.values import DEPTH, holds_tensor, is_named_tuple, parts
from dropout_lint.trace.traced import TensorInfo


def describe(value: Any, depth: int = DEPTH) -> Any:
    """`value` with a `TensorInfo` in place of each tensor; an object that holds some is a dict by steps."""
    if isinstance(value, (torch.Tensor, tuple, list, dict)):
        return map_tensors(value, _info)
    if depth and holds_tensor(value):
        return {step: describe(part, depth - 1) for step, part in parts(value)}
    return value


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


def tensors_in(value: Any, depth: int = 3) -> list[torch.Tensor]:
    """The tensors inside `value`, at most `depth` containers down."""
    if isinstance(value, torch.Tensor):
        return [value]
    found: list[torch.Tensor] = []
    if depth and isinstance(value, (tuple, list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, torch.Tensor):
                found.append(item)
            elif isinstance(item, (tuple, list, dict)):
                found += tensors_in(item, depth - 1)
    return found
