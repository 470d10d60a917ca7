"""Take the attribute that a target names and make a model of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dropout_lint.errors import TargetError
from dropout_lint.guard.arguments import as_graph
from dropout_lint.inputs.values import holds_tensor
from dropout_lint.loading.arguments import called, check_arguments
from dropout_lint.loading.compat import with_schemas
from dropout_lint.loading.downloads import OFFLINE_HINT, is_offline_error, loaders
from dropout_lint.loading.elsewhere import modules_with
from dropout_lint.loading.hollow import weightless
from dropout_lint.loading.parse import Call
from dropout_lint.loading.usercode import UserCodeError, user_code

BY_NAME = ("create_model", "get_model", "build_model")  # what builds a model by its name is often called so


@dataclass
class Made:
    """A model, the example inputs that came with it (None where none did), and what to say about it.

    `unseen` are those of the notes that tell of what could not be looked at beside it.
    """

    model: nn.Module
    inputs: Any = None
    notes: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


class NotAModelError(TargetError):
    """What was built is no module, and holds none."""


def functions_in(owner: Any) -> str:
    """The functions that a module or class holds itself, for a hint."""
    home = getattr(owner, "__name__", None)
    found = [
        item
        for item in _public(owner)
        if inspect.isfunction(value := getattr(owner, item, None)) and value.__module__ == home
    ]
    return "it has " + ", ".join(f"`{item}`" for item in found[:8]) if found else "it has no function"


def look_up(owner: Any, call: Call, source: str, *, others: Callable[[Any], str] | None = None) -> Any:
    """Follow `Class.method` from a module.

    Args:
        owner: the module.
        call: what to take from it.
        source: the module's name, for messages.
        others: what it has instead, in words, where no name is near; None for what builds models.

    Raises:
        TargetError: an attribute is not there; names the nearest.
    """
    value = owner
    for index, name in enumerate(call.attrs):
        try:
            with user_code(f"reading `{name}` of `{source}`"):
                value = getattr(value, name)
        except UserCodeError as error:
            if isinstance(error.__cause__, AttributeError):
                where = ".".join([source, *call.attrs[:index]]) if index else source
                hint = _in_module(owner, call, source) if index == 0 else _near_attribute(value, name)
                raise TargetError(
                    f"`{where}` has no attribute `{name}`", hint or (others or _builders)(value)
                ) from None
            raise
    return value


def _in_module(owner: Any, call: Call, source: str) -> str:
    """What to type instead of what a module lacks, "" where nothing suggests itself."""
    homes = modules_with(owner, call.attrs) if isinstance(owner, ModuleType) else []
    hint = _did_you_mean([f"{home}:{call.text}" for home in homes[:3]])
    by_name = next((item for item in BY_NAME if inspect.isfunction(getattr(owner, item, None))), None)
    named = f'if `{by_name}` knows that name: `{source}:{by_name}("{call.path}")`' if by_name else ""
    return hint or _near_attribute(owner, call.attrs[0]) or named


def _did_you_mean(texts: Sequence[str]) -> str:
    return f"did you mean {' or '.join(f'`{text}`' for text in texts)}?" if texts else ""


def _near_attribute(owner: Any, name: str) -> str:
    return _did_you_mean(get_close_matches(name, _public(owner), n=3, cutoff=0.6))


def _public(owner: Any) -> list[str]:
    return [item for item in dir(owner) if not item.startswith("_")]


def _builders(owner: Any) -> str:
    public = _public(owner)
    models = [
        item for item in public if _may_build(getattr(owner, item, None), getattr(owner, "__name__", None))
    ]
    if models:
        return "it has " + ", ".join(f"`{item}`" for item in models[:8])
    return "it has nothing that builds a model"


def _may_build(value: Any, home: str | None) -> bool:
    if isinstance(value, nn.Module):
        return True
    return (inspect.isclass(value) or inspect.isfunction(value)) and getattr(
        value, "__module__", None
    ) == home


def make(value: Any, call: Call, text: str, ways: Sequence[str]) -> Made:
    """A model from a factory, a class, a model, or one of these with example inputs.

    Args:
        value: the attribute.
        call: its arguments, the names in them found (see `with_names`).
        text: the target, for messages.
        ways: how to build, best first (see `hollow`).

    Raises:
        TargetError: it cannot be called that way, raises, or gives no module.
    """
    pair = None
    if isinstance(value, (tuple, list)):
        value, pair = _split_pair(value, text)
    value = as_graph(value)
    if isinstance(value, nn.Module):
        if call.called:
            raise TargetError(
                f"`{text}` calls a model that is built already", f"drop the arguments: `{call.path}`"
            )
        return Made(value, pair)
    if not callable(value):
        raise TargetError(
            f"`{call.path}` is {_a(value)}, not a model, a class or a factory",
            "name an nn.Module, or something that returns one when it is called",
        )
    check_arguments(value, call, text)
    notes: list[str] = []
    made = with_schemas(lambda: _build(lambda: called(_now(value), call), text, ways, notes), notes)
    return _taken(made, pair, text, notes)


def _now(value: Callable[..., Any]) -> Callable[..., Any]:
    """A class's method as it is by now: `from_pretrained` is another one while nothing is fetched."""
    if inspect.ismethod(value) and inspect.isclass(value.__self__):
        current: Callable[..., Any] = getattr(value.__self__, value.__name__, value)
        return current
    return value


def _split_pair(value: tuple[Any, ...] | list[Any], text: str) -> tuple[Any, Any]:
    if len(value) == 2 and callable(value[0]):
        return value[0], value[1]
    raise TargetError(
        f"`{text}` is {_a(value)} of {len(value)} items, not a pair (model, inputs)",
        "name an nn.Module, a factory, or a pair of one of them and its example inputs",
    )


def _a(value: Any) -> str:
    if value is None:
        return "None"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _build(run: Callable[[], Any], text: str, ways: Sequence[str], notes: list[str]) -> Any:
    """The first way that works; the last one's failure is the user's."""
    for way in ways[:-1]:
        try:
            return _twice(run, text, way, notes)
        except UserCodeError as error:
            if not isinstance(error.__cause__, Exception):
                raise
    try:
        made = _twice(run, text, ways[-1], notes)
    except UserCodeError as error:
        if is_offline_error(error.__cause__) and len(ways) > 1:
            error.hint = OFFLINE_HINT
        raise
    if len(ways) > 1:
        notes.append(
            "built with weights on the CPU: its builder reads values that the meta device does not have"
        )
    return made


def _twice(run: Callable[[], Any], text: str, way: str, notes: list[str]) -> Any:
    """Build, and once more where that imported what reads weights and can be kept from it only now."""
    before = loaders()
    try:
        return _once(run, text, way, notes)
    except UserCodeError:
        if loaders() == before:
            raise
    return _once(run, text, way, notes)


def _once(run: Callable[[], Any], text: str, way: str, notes: list[str]) -> Any:
    with torch.random.fork_rng(devices=[]), user_code(f"building `{text}`"):
        torch.manual_seed(0)
        with weightless(way, notes):
            return run()


def _taken(made: Any, pair: Any, text: str, notes: list[str]) -> Made:
    made = as_graph(made)
    if isinstance(made, nn.Module):
        return Made(made, pair, notes)
    if isinstance(made, (tuple, list)):
        return _from_several(made, pair, text, notes)
    if inspect.iscoroutine(made):
        made.close()
    raise NotAModelError(f"`{text}` returned {_a(made)}, not an nn.Module", _return_hint(made))


def _return_hint(made: Any) -> str:
    if made is None:
        return "does the factory end with `return model`?"
    if inspect.isclass(made) and issubclass(made, nn.Module):
        return f"it returned the class {made.__name__}; return an instance, or name the class"
    held = (
        [name for name, item in vars(made).items() if isinstance(item, nn.Module)]
        if hasattr(made, "__dict__")
        else []
    )
    if held:
        return f"its attribute `{held[0]}` is a model: write a factory that returns it"
    return "return the model, or a pair (model, inputs)"


def _from_several(made: Sequence[Any], pair: Any, text: str, notes: list[str]) -> Made:
    items = [as_graph(item) for item in made]
    models = [item for item in items if isinstance(item, nn.Module)]
    if len(made) == 2 and isinstance(items[0], nn.Module) and (made[1] is None or holds_tensor(made[1])):
        return Made(items[0], pair if made[1] is None else made[1], notes)
    if len(models) == 1:
        others = ", ".join(type(item).__name__ for item in items if item is not models[0])
        notes.append(f"took the model from what it returned beside it ({others})")
        return Made(models[0], pair, notes)
    raise NotAModelError(
        f"`{text}` returned {_a(made)} with {len(models)} modules among {len(made)} items",
        "return the model, or a pair (model, inputs)",
    )
