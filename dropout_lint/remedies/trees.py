"""Nested outputs taken apart and put together again: what pytree knows, and plain dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


def flatten(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves of `tree`, and what builds it again from as many others.

    A dataclass that holds no tensor, at whatever depth, is one leaf and stays the object that it is.
    """
    outer, spec = pytree.tree_flatten(tree)
    parts = [_parts(leaf) for leaf in outer]
    leaves = [leaf for inner, _ in parts for leaf in inner]

    def build(values: list[Any]) -> Any:
        rest = iter(values)
        return pytree.tree_unflatten([make([next(rest) for _ in inner]) for inner, make in parts], spec)

    return leaves, build


def _parts(leaf: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    if not dataclasses.is_dataclass(leaf) or isinstance(leaf, (Tensor, type)):
        return [leaf], lambda values: values[0]
    names = [field.name for field in dataclasses.fields(leaf) if hasattr(leaf, field.name)]
    leaves, build = flatten([getattr(leaf, name) for name in names])
    if not any(isinstance(value, Tensor) for value in leaves):
        return [leaf], lambda values: values[0]

    def rebuilt(values: list[Any]) -> Any:
        # not `dataclasses.replace`: that runs `__post_init__`, and refuses fields that `__init__` lacks
        other = copy.copy(leaf)
        for name, value in zip(names, build(values), strict=True):
            object.__setattr__(other, name, value)
        return other

    return leaves, rebuilt
