"""Whether calling something that is loaded gives a model, by its annotation or source: nothing is called."""

from __future__ import annotations

import ast
import builtins
import inspect
import types
import typing
from collections import ChainMap
from collections.abc import Mapping
from functools import partial
from types import FunctionType
from typing import Any

from torch import nn

from dropout_lint.loading.naming import WITHOUT_MODELS
from dropout_lint.loading.returns import Function, May, of_unknown_call, what_returns

_DEEPEST = 4  # calls that are followed; behind them nobody can tell
_LOOKED_AT = 50  # entries of a registry
_UNKNOWN = object()
_PLAIN = WITHOUT_MODELS | {"torch"}
"""Packages whose own classes are no models, but for those that derive from `nn.Module`."""
_LOADERS = {"torch.hub.load", "torch.serialization.load", "torch.jit._serialization.load"}


def builds(value: Any, path: tuple[Any, ...] = ()) -> May:
    """Whether calling `value` gives a module.

    Args:
        value: a class, a function, a `functools.partial` of one, or anything else that is callable.
        path: the functions whose source asks.
    """
    if isinstance(value, partial):
        return builds(value.func, path)
    if inspect.isclass(value):
        return May.SURELY if issubclass(value, nn.Module) else May.NOT
    owner = getattr(value, "__self__", None)
    if inspect.ismethod(value) and inspect.isclass(owner) and issubclass(owner, nn.Module):
        return May.SURELY if _is_constructor(value) else May.PERHAPS
    function = function_of(value)
    if function is None:
        return May.PERHAPS if callable(value) and not inspect.isbuiltin(value) else May.NOT
    if inspect.iscoroutinefunction(function):
        return May.NOT
    said = _by_annotation(function)
    return _by_source(function, path) if said is None else said


def function_of(value: Any) -> FunctionType | None:
    """The Python function behind a callable, through methods and decorators that name what they wrap."""
    try:
        inner = inspect.unwrap(getattr(value, "__func__", value))
    except Exception:  # it wraps itself, or is an object that answers to any name in its own way
        return None
    return inner if isinstance(inner, FunctionType) else None


def _is_constructor(method: types.MethodType) -> bool:
    owner = method.__self__.__name__  # type: ignore[attr-defined]  # it is a class: `builds` has asked
    return of_unknown_call(f"{owner}.{method.__name__}") is May.LIKELY


def _by_annotation(function: FunctionType) -> May | None:
    """What a function is annotated to return; None where that leaves it open."""
    try:
        said = function.__annotations__.get("return", _UNKNOWN)
        if isinstance(said, str):
            said = _evaluated(said, function.__globals__)
    except Exception:  # an annotation is the user's code, and may need what only type checkers import
        return None
    return None if said is _UNKNOWN else _annotated(said)


def _evaluated(text: str, names: dict[str, Any]) -> Any:
    try:
        return eval(text, names)  # as `typing.get_type_hints` does it
    except Exception:
        last = text.strip("'\"").rpartition(".")[2]
        return nn.Module if "Module" in text else getattr(nn, last, _UNKNOWN)


def _annotated(said: Any) -> May | None:
    origin, inside = typing.get_origin(said), typing.get_args(said)
    if origin in (typing.Union, types.UnionType, typing.Annotated, tuple):
        found = [_annotated(item) for item in inside]
        best = max((item for item in found if item is not None), default=None)
        return None if best is May.NOT and None in found else best
    if said is None or origin is not None:
        return May.NOT
    if not inspect.isclass(said) or said is object:
        return None
    if issubclass(said, nn.Module):
        return May.SURELY
    return May.NOT if said.__module__.partition(".")[0] in _PLAIN else None


def _by_source(function: FunctionType, path: tuple[Any, ...]) -> May:
    tree = source_of(function)
    if tree is None or len(path) >= _DEEPEST:
        return May.PERHAPS
    if function in path:
        return May.NOT  # it gives what its other returns give
    names = _names(function)
    given = May.PERHAPS if path else May.NOT
    return what_returns(tree, lambda node: _judged(node, names, (*path, function)), given)


def source_of(function: FunctionType) -> Function | None:
    """The syntax tree of a function; None where there is no source, or it is a coroutine."""
    try:
        lines = inspect.getsource(function)
        tree = ast.parse(inspect.cleandoc("\n" + lines) if lines[:1].isspace() else lines).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    if function.__name__ == "<lambda>":
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
        return found[0] if len(found) == 1 else None
    return tree if isinstance(tree, ast.FunctionDef) else None


def _names(function: FunctionType) -> Mapping[str, Any]:
    """What a function's free names mean."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    held = {}
    for name, cell in cells:
        try:
            held[name] = cell.cell_contents
        except ValueError:  # it is not bound yet
            continue
    return ChainMap(held, function.__globals__, vars(builtins))


def _judged(node: ast.expr, names: Mapping[str, Any], path: tuple[Any, ...]) -> May:
    if isinstance(node, ast.Call):
        return _of_call(node.func, names, path)
    value = looked_up(node, names)
    if value is _UNKNOWN:
        return May.PERHAPS
    return May.SURELY if isinstance(value, nn.Module) else May.NOT


def _of_call(called: ast.expr, names: Mapping[str, Any], path: tuple[Any, ...]) -> May:
    if isinstance(called, ast.Subscript):
        held = _held(looked_up(called.value, names))
        return max((builds(value, path) for value in held[:_LOOKED_AT]), default=May.PERHAPS)
    value = looked_up(called, names)
    if any(value is item for item in (getattr, next, eval)) or _full_name(value) in _LOADERS:
        return May.PERHAPS
    if _full_name(value).startswith("torch.") and not inspect.isclass(value):
        said = _by_annotation(value) if isinstance(value, FunctionType) else None
        return May.NOT if said is None else said
    found = May.PERHAPS if value is _UNKNOWN else builds(value, path)
    return of_unknown_call(ast.unparse(called)) if found is May.PERHAPS else found


def _held(table: Any) -> list[Any]:
    if isinstance(table, dict):
        return list(table.values())
    return list(table) if isinstance(table, (list, tuple)) else []


def _full_name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__name__', '')}"


def looked_up(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of a dotted name, or a mark that there is none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, _UNKNOWN)
    if isinstance(node, ast.Attribute):
        owner = looked_up(node.value, names)
        try:
            return _UNKNOWN if owner is _UNKNOWN else getattr(owner, node.attr, _UNKNOWN)
        except Exception:  # a lazy module imports what is not here
            return _UNKNOWN
    return _UNKNOWN
