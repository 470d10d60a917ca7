"""The line that constructs each module: `nn.Module.__init__` is watched while a model is built."""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

from dropout_lint.guard.alone import PATCHING
from dropout_lint.inputs.example import Location

# The trailing separator keeps torchvision out of it.
TORCH = str(Path(torch.__file__).parent) + "/"
_HERE = str(Path(__file__).parent) + "/"
_MARK = "_dropout_lint_birthplace"

# Modules that outlive a build (instances at module level) keep their line for the next time they are named.
_known: dict[int, tuple[weakref.ref[nn.Module], Location]] = {}


@contextmanager
def watched() -> Iterator[None]:
    """Mark every module that is made inside with the line that made it; `harvest` collects the marks."""
    with PATCHING:
        yield from _watched()


def _watched() -> Iterator[None]:
    original = nn.Module.__init__
    thread = threading.get_ident()
    born: list[weakref.ref[nn.Module]] = []

    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        if threading.get_ident() != thread:
            original(self, *args, **kwargs)
            return
        place = _caller(self, sys._getframe(1))
        original(self, *args, **kwargs)
        if place is not None:
            self.__dict__[_MARK] = place
            born.append(weakref.ref(self))

    nn.Module.__init__ = init  # type: ignore[method-assign]  # exchanged while this lasts
    try:
        yield
    finally:
        nn.Module.__init__ = original  # type: ignore[method-assign]  # as it was
        for reference in born:
            module = reference()
            if module is not None:
                _remember(module)


def harvest(model: nn.Module) -> dict[int, Location]:
    """The line of each module of `model` by `id`; deep copies have the line of their original."""
    found: dict[int, Location] = {}
    for module in model.modules():
        _remember(module)
        entry = _known.get(id(module))
        if entry is not None and entry[0]() is module:
            found[id(module)] = entry[1]
    return found


def _remember(module: nn.Module) -> None:
    place = module.__dict__.pop(_MARK, None)
    if place is None:
        return
    key = id(module)
    _known[key] = (weakref.ref(module, partial(_drop, key)), place)


def _drop(key: int, gone: weakref.ref[nn.Module]) -> None:
    entry = _known.get(key)
    if entry is not None and entry[0] is gone:
        del _known[key]


def _caller(module: nn.Module, frame: FrameType | None) -> Location | None:
    """The innermost frame that neither is torch's own nor works on `module` itself (`super().__init__()`).

    None where this package makes the module: the class itself is the target.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_HERE):
            return None
        if not _is_torch(code.co_filename) and _first_argument(frame) is not module:
            return _location(code.co_filename, code, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return None


def _first_argument(frame: FrameType) -> Any:
    code = frame.f_code
    if code.co_argcount:
        return frame.f_locals.get(code.co_varnames[0])
    if code.co_flags & inspect.CO_VARARGS:
        given = frame.f_locals.get(code.co_varnames[code.co_kwonlyargcount])
        return given[0] if given else None
    return None


@lru_cache(maxsize=4096)
def _is_torch(file: str) -> bool:
    return file.startswith((TORCH, "<frozen"))


@lru_cache(maxsize=65536)
def _location(file: str, code: CodeType, instruction: int, line: int) -> Location:
    # The file is a key of its own: code objects of two files with the same text are equal.
    position = next(islice(code.co_positions(), instruction // 2, None), (None, None, None, None))
    start, column = position[0], position[2]
    return Location(
        file if file.startswith("<") else str(Path(file).absolute()),
        start or line,
        1 if column is None else column + 1,
    )
