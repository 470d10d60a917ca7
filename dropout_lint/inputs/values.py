"""The tensors inside an input, whatever holds them: tuples, lists, dicts, dataclasses, graphs, any object.

Inputs of real models are often objects (a graph batch, a dataclass, a namespace). They are looked into by
their attributes, and copied as their own class copies itself (`copy.deepcopy`), with other tensors in place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from dropout_lint.errors import InputError

DEPTH = 6
"""Objects and containers within one another that are looked into, so that a cycle ends."""
_CLOSED = (torch.Tensor, nn.Module, type, FunctionType, ModuleType, str, bytes, int, float, type(None))


@dataclass(frozen=True)
class Attribute:
    """A step into an object; the other steps are indices and keys."""

    name: str


def parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """The steps into `value`, each with what lies there; nothing for what is not looked into."""
    if isinstance(value, _CLOSED):
        return
    if isinstance(value, (tuple, list)):
        yield from enumerate(value)
    elif isinstance(value, dict):
        yield from value.items()
    else:
        held = dict(getattr(value, "__dict__", {}))
        for cls in type(value).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                with suppress(AttributeError):  # a slot that nothing was put into
                    held.setdefault(name, getattr(value, name))
        yield from ((Attribute(name), part) for name, part in held.items() if not name.startswith("__"))


def walk(value: Any, kind: type | tuple[type, ...] = torch.Tensor, depth: int = DEPTH) -> Iterator[Any]:
    """Everything of that kind inside `value`, in order."""
    if isinstance(value, kind):
        yield value
    elif depth:
        for _, part in parts(value):
            yield from walk(part, kind, depth - 1)


def holds_tensor(value: Any) -> bool:
    """Whether a tensor is somewhere inside."""
    return next(walk(value), None) is not None


def replaced(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """`value` with `function` applied to every tensor inside; what holds none is handed on as it is.

    Raises:
        InputError: an object that holds tensors cannot be copied.
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    if type(value) is tuple or is_named_tuple(value):
        items = [replaced(item, function) for item in value]
        return tuple(items) if type(value) is tuple else type(value)(*items)
    if type(value) is list:
        return [replaced(item, function) for item in value]
    if type(value) is dict:
        return {key: replaced(item, function) for key, item in value.items()}
    tensors = list(walk(value))
    if not tensors:
        return value
    # what `memo` has for an object's id is taken for its copy
    memo: dict[int, Any] = {id(module): module for module in walk(value, nn.Module)}
    memo.update({id(tensor): function(tensor) for tensor in tensors})
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:
        kind = type(value).__name__
        raise InputError(
            f"the input of class {kind} cannot be copied: {type(error).__name__}: {error}",
            f"give {kind} a `__deepcopy__`, or take what cannot be copied out of it",
        ) from error


def is_named_tuple(value: Any) -> bool:
    """Whether `value` is a plain named tuple, which its fields alone can make again."""
    return hasattr(value, "_fields") and type(value).__bases__ == (tuple,)


def fields(value: Any, depth: int = DEPTH) -> dict[str, Any]:
    """What an object holds by the names that its user knows: a store behind a private name is opened."""
    found: dict[str, Any] = {}
    for step, part in parts(value):
        name = step.name if isinstance(step, Attribute) else str(step)
        if depth and name.startswith("_") and not isinstance(part, torch.Tensor):
            found.update(fields(part, depth - 1))
        elif holds_tensor(part):
            found[name] = part
    return found


def describe_value(value: Any) -> str:
    """`8x3x32x32` for a tensor (`:int64` where it is not float32), nested values in brackets.

    An object is told by its class and what it holds: `Data(x=16x8, edge_index=2x40:int64)`.
    """
    if isinstance(value, torch.Tensor):
        shape = "x".join(str(int(size)) for size in value.shape) or "scalar"
        dtype = str(value.dtype).removeprefix("torch.")
        return shape if dtype == "float32" else f"{shape}:{dtype}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(describe_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe_value(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    held = ", ".join(f"{name}={describe_value(part)}" for name, part in fields(value).items())
    return f"{type(value).__name__}({held})" if held else type(value).__name__
