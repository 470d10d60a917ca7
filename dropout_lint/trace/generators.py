"""Random number generators under a recording: fixed, so that each comes out the same, and watched.

torch's own draws are seen where operations are dispatched; those of Python's `random` and of numpy are not:
their functions are exchanged while the model runs, wherever its code finds them: in their modules, in the
global names of its own modules, and as generator objects that it holds.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

Told = Callable[[str, Callable[[], Any]], Any]
"""Given the name of a function that draws and a call of it: returns what the code gets."""
SEED = 0
_NO_DRAWS = frozenset(
    {
        *("seed", "getstate", "setstate", "get_state", "set_state", "spawn", "test"),
        *("get_bit_generator", "set_bit_generator", "bit_generator"),
    }
)
_PASSED_OVER = (
    *("torch", "numpy", "builtins", "collections", "typing", "functools", "math", "random"),
    "dropout_lint",  # whose own wrappers stand for a forward while it is recorded
)


@contextlib.contextmanager
def fixed(model: nn.Module, seed: int = SEED) -> Iterator[None]:
    """Every generator that the model may draw from starts from a seed; afterwards it is as it was."""
    with contextlib.ExitStack() as undo:
        undo.callback(random.setstate, random.getstate())
        undo.callback(torch.set_rng_state, torch.get_rng_state())
        random.seed(seed)
        torch.default_generator.manual_seed(seed)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            undo.callback(numpy.random.set_state, numpy.random.get_state())
            numpy.random.seed(seed)
        kinds: dict[type, bool] = {}
        for holder in (*_holders(model), *(vars(module) for module in model.modules())):
            for value in list(holder.values()):
                if _is_generator(type(value), kinds):
                    restart(value, undo, seed)
        yield


def restart(value: Any, undo: contextlib.ExitStack, seed: int = SEED) -> None:
    """Start a generator object from a seed."""
    if isinstance(value, random.Random):
        undo.callback(value.setstate, value.getstate())
        value.seed(seed)
    elif isinstance(value, torch.Generator):
        undo.callback(value.set_state, value.get_state())
        value.manual_seed(seed)
    else:
        bits = value.bit_generator if hasattr(value, "bit_generator") else value._bit_generator
        undo.callback(setattr, bits, "state", bits.state)
        bits.state = type(bits)(seed).state


@contextlib.contextmanager
def watched(model: nn.Module, told: Told, seed: int = SEED) -> Iterator[None]:
    """While it is entered, `told` makes the calls of functions of `random` and numpy that draw."""
    thread = threading.get_ident()
    exchanged: list[tuple[dict[str, Any], str, Any]] = []

    def watch(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def drawn(*args: Any, **kwargs: Any) -> Any:
            call = functools.partial(function, *args, **kwargs)
            return told(name, call) if threading.get_ident() == thread else call()

        return drawn

    substitutes: dict[int, Any] = {}
    for module, prefix in _libraries():
        for name, value in list(vars(module).items()):
            if not name.startswith("_") and _draws(value, name):
                substitutes[id(value)] = watch(value, f"{prefix}.{name}")
            elif name == "default_rng":
                substitutes[id(value)] = _made(value, watch, seed)
    holders = [
        *(vars(module) for module, _ in _libraries()),
        *_holders(model),
        *(vars(module) for module in model.modules()),
    ]
    kinds: dict[type, bool] = {}
    try:
        for holder in holders:
            for name, value in list(holder.items()):
                substitute = substitutes.get(id(value))
                if _is_generator(type(value), kinds) and not isinstance(value, torch.Generator):
                    substitute = _Watched(value, watch)
                if substitute is not None and not name.startswith("__"):
                    exchanged.append((holder, name, value))
                    holder[name] = substitute
        yield
    finally:
        for holder, name, value in reversed(exchanged):
            holder[name] = value


class _Watched:
    """A generator object whose drawing methods are watched."""

    def __init__(self, generator: Any, watch: Callable[..., Any]) -> None:
        self._generator = generator
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._generator, name)
        if not callable(value) or name in _NO_DRAWS:
            return value
        kind = type(self._generator)
        return self._watch(value, f"{kind.__module__.split('.')[0]}.{kind.__name__}.{name}")


def _made(make: Callable[..., Any], watch: Callable[..., Any], fixed_seed: int) -> Callable[..., Any]:
    """`numpy.random.default_rng`: without a seed it would make another generator each time."""

    @functools.wraps(make)
    def made(seed: Any = None) -> Any:
        generator = make(fixed_seed if seed is None else seed)
        return generator if isinstance(generator, _Watched) else _Watched(generator, watch)

    return made


def _is_generator(kind: type, known: dict[type, bool]) -> bool:
    """Whether objects of a class are generators; `known` remembers it for one look through a model."""
    if kind not in known:
        known[kind] = issubclass(kind, (random.Random, torch.Generator)) or _is_numpys(kind)
    return known[kind]


def _is_numpys(kind: type) -> bool:
    return kind.__module__.startswith("numpy.random") and kind.__name__ in ("Generator", "RandomState")


def _libraries() -> list[tuple[ModuleType, str]]:
    found: list[tuple[ModuleType, str]] = [(random, "random")]
    if "numpy" in sys.modules:
        found.append((sys.modules["numpy"].random, "numpy.random"))
    return found


def _draws(value: Any, name: str) -> bool:
    """Whether a library's function draws: a method of its hidden generator."""
    owner = getattr(value, "__self__", None)
    return name not in _NO_DRAWS and (isinstance(owner, random.Random) or _is_numpys(type(owner)))


def _holders(model: nn.Module) -> list[dict[str, Any]]:
    """The global names that the code of the model sees, and those of the functions that it calls by name or
    holds.
    """
    found: dict[int, dict[str, Any]] = {}
    for kind in {type(module) for module in model.modules()}:
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] in _PASSED_OVER:
                continue
            for value in vars(base).values():
                _note(value, found)
    for module in model.modules():  # functions that it was given: an activation, a way to drop
        for value in vars(module).values():
            _note(value, found)
    for names in list(found.values()):
        for value in list(names.values()):
            _note(value, found)
    return list(found.values())


def _note(value: Any, found: dict[int, dict[str, Any]]) -> None:
    if isinstance(value, FunctionType):
        names = value.__globals__
        if str(names.get("__name__", "")).partition(".")[0] not in _PASSED_OVER:
            found.setdefault(id(names), names)
