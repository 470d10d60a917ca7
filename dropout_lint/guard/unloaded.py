"""Modules that torch's kernels for meta tensors load and hardly use: dynamo, sympy and what builds on it.

At the first operation whose types are promoted torch asks dynamo not to follow its own Python code, and
whether a number is one of sympy's; each check of a size asks the symbolic shapes whether plain numbers agree.
To load the three takes longer than to load torch. Where nobody has loaded them, modules stand in for them
that answer these questions alone, and load the real ones for whoever asks for anything else.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import torch.fx.experimental._config  # noqa: F401 - the symbolic shapes load it, and kernels read it

from dropout_lint.guard.together import Together

DYNAMO, SHAPES, SYMPY = "torch._dynamo", "torch.fx.experimental.symbolic_shapes", "sympy"
PACKAGES = (DYNAMO, SYMPY)
_MARK = "__dynamo_disable"  # where torch keeps what dynamo made of a function

_lock = threading.RLock()
_left_alone: list[Any] = []  # the functions that dynamo, which is not there, was said not to follow


class _StandIn(ModuleType):
    """One of the modules while it is not loaded: what it lacks is taken from the real one."""

    def __init__(self, name: str, **answers: Any) -> None:
        super().__init__(name)
        vars(self).update(answers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and not (name == "__path__" and self.__name__ in PACKAGES):
            raise AttributeError(name)  # asked by the import itself
        if self.__name__ == SHAPES and name.islower():  # torch imports more of its functions than it calls
            vars(self)[name] = found = partial(_later, name)
            return found
        return getattr(_real(self.__name__), name)


# dynamo


def _disable(function: Any = None, recursive: bool = True, **options: Any) -> Any:
    """The function itself, where torch asks for one of its own; it tells so by `wrapping`."""
    if function is None or options != {"wrapping": False}:
        return _real(DYNAMO).disable(function, recursive, **options)
    _left_alone.append(function)
    return function


# symbolic shapes


def _later(name: str, *given: Any, **options: Any) -> Any:
    answer = ANSWERS.get(name)
    if answer is not None and all(map(_is_plain, given)):
        return answer(*given)
    return getattr(_real(SHAPES), name)(*given, **options)


def _is_plain(value: Any) -> bool:
    return type(value) in (bool, int) or (isinstance(value, (tuple, list)) and all(map(_is_plain, value)))


def _itself(condition: bool, *_: Any) -> bool:
    return condition


def _are_equal(one: Any, other: Any) -> bool:
    return list(one) == list(other) if isinstance(one, (tuple, list)) else bool(one == other)


ANSWERS: dict[str, Callable[..., bool]] = {
    "expect_true": _itself,
    "guard_or_false": _itself,
    "guard_or_true": _itself,
    "guard_size_oblivious": _itself,
    "is_nested_int": lambda _: False,
    "statically_known_true": _itself,
    "sym_and": lambda *conditions: all(conditions),
    "sym_eq": _are_equal,
    "sym_or": lambda *conditions: any(conditions),
}
"""What these functions of the symbolic shapes return for bools and integers, which hold no symbol."""


# sympy


class _Expressions(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return _is_loaded(SYMPY) and isinstance(value, sys.modules[SYMPY].Basic)


class _Basic(metaclass=_Expressions):
    """All of sympy's expressions: none, while it is not loaded."""


# all three


@contextmanager
def _standing_in() -> Iterator[None]:
    stand_ins = (
        _StandIn(DYNAMO, disable=_disable),
        _StandIn(SHAPES),
        _StandIn(SYMPY, Basic=_Basic),
    )
    for module in stand_ins:
        sys.modules.setdefault(module.__name__, module)
    try:
        yield
    finally:
        for module in stand_ins:
            _remove(module.__name__)


_STAND_INS = Together(_standing_in)


def unloaded() -> AbstractContextManager[None]:
    """A context in which operations on meta tensors do not load these modules.

    Whoever imports one of them inside, the user's model for instance, gets the real one.
    """
    return _STAND_INS.inside()


def dynamo_is_loaded() -> bool:
    """Whether dynamo is loaded; what stands in for it does not count."""
    return _is_loaded(DYNAMO)


def _is_loaded(name: str) -> bool:
    return not isinstance(sys.modules.get(name), _StandIn | None)


def _real(name: str) -> ModuleType:
    with _lock:
        _remove(name)
        return importlib.import_module(name)


def _remove(name: str) -> None:
    """Take a stand-in away; torch will ask dynamo again about the functions that were left alone."""
    if not _is_loaded(name):
        sys.modules.pop(name, None)
    while name == DYNAMO and _left_alone:
        function = _left_alone.pop()
        if getattr(function, _MARK, None) is function:
            delattr(function, _MARK)
