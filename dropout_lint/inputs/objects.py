"""Guessing the objects that some models take: a graph batch, a dataclass, a dict with certain keys.

What such an object holds is told by its class (fields, or the parameters of its constructor) and by what
`forward` reads of it: `data.x`, `batch["frames"]`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from dropout_lint.inputs.companions import named, with_companions
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.tabular import tabular_fields

_EMPTY = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How to make an object of the fields that it needs, with their annotations."""

    word: str
    fields: Mapping[str, Any]
    make: Callable[..., Any]


def object_inputs(
    model: nn.Module, parameters: Mapping[str, inspect.Parameter], mains: Iterator[tuple[Any, str]]
) -> Iterator[Inputs]:
    """Candidates for a `forward` whose one required argument is an object or a dict of tensors.

    Args:
        model: without wrappers.
        parameters: `forward`'s parameters.
        mains: values for the features, and where they come from.
    """
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters.values() if p.default is _EMPTY and p.kind not in variable]
    if len(needed) != 1:
        return
    kind = _kind(_annotation(model, parameters[needed[0]]), *_reads(model, needed[0]))
    if kind is None or not kind.fields:
        return
    # the features come first: the rest is worked out from them
    order = sorted(kind.fields, key=lambda name: named(name) or kind.fields[name] in (int, float, bool, str))
    fields = {
        name: inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind.fields[name])
        for name in order
    }
    tables = ((dict(found), "guessed from its columns") for found in tabular_fields(model, order))
    others = (
        (dict(zip(order, candidate.args, strict=True)), candidate.origin)
        for candidate in with_companions(model, mains, fields)
    )
    for held, origin in chain(tables, others):
        try:
            made = kind.make(**held)
        except Exception:  # a class that wants something else: other guesses are tried
            return
        yield Inputs((made,), guessed=True, origin=f"{origin}, in {kind.word}")


def _annotation(model: nn.Module, parameter: inspect.Parameter) -> Any:
    try:
        return typing.get_type_hints(type(model).forward).get(parameter.name, _EMPTY)
    except Exception:  # a name that only type checkers see
        return parameter.annotation


def _kind(annotation: Any, attributes: list[str], keys: list[str]) -> _Kind | None:
    """What an argument is by its annotation, else by what is read of it; None for a tensor."""
    told = inspect.isclass(annotation) and annotation not in (_EMPTY, object)
    if told and not _is_plain(annotation):
        return _of_class(annotation, attributes)
    if keys:
        return _Kind("a dict", dict.fromkeys(keys, _EMPTY), dict)
    if annotation is _EMPTY and any(not hasattr(torch.Tensor, name) for name in attributes):
        return _Kind("an object", dict.fromkeys(attributes, _EMPTY), SimpleNamespace)
    return None


def _is_plain(cls: type) -> bool:
    return issubclass(cls, (torch.Tensor, nn.Module, int, float, str, bytes)) or cls in (list, tuple, dict)


def _of_class(cls: type, attributes: list[str]) -> _Kind | None:
    """The fields of a dataclass, named tuple or typed dict that have no default or are read; of any other
    class the parameters of its constructor that are required or read."""
    hints = _hints(cls)
    if typing.is_typeddict(cls):
        return _Kind(f"a {cls.__name__}", hints, dict)
    try:
        taken = inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return None
    keywords = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    names = [
        name
        for name, p in taken.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and (p.default is _EMPTY or name in attributes)
    ]
    if keywords:
        names += [name for name in attributes if name not in taken and not hasattr(cls, name)]
    return _Kind(f"a {cls.__name__}", {name: hints.get(name, _EMPTY) for name in names}, cls)


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception:  # as above
        return dict(getattr(cls, "__annotations__", {}))


def _reads(model: nn.Module, name: str) -> tuple[list[str], list[str]]:
    """The attributes and the constant keys that `forward` reads of its argument, in the order of the code."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(model).forward)))
    except (OSError, TypeError, SyntaxError):
        return [], []
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found: list[tuple[int, int, str, bool]] = []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Attribute, ast.Subscript)) or id(node) in called:
            continue
        if (
            not isinstance(node.value, ast.Name)
            or node.value.id != name
            or not isinstance(node.ctx, ast.Load)
        ):
            continue
        if isinstance(node, ast.Attribute):
            found.append((node.lineno, node.col_offset, node.attr, True))
        elif isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            found.append((node.lineno, node.col_offset, node.slice.value, False))
    found.sort()
    attributes = dict.fromkeys(text for *_, text, attribute in found if attribute)
    return list(attributes), list(dict.fromkeys(text for *_, text, attribute in found if not attribute))
