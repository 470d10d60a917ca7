"""Dynamo kept unloaded: torch's kernels for meta tensors load it, which takes as long as loading torch.

At the first operation on meta tensors whose types are promoted, torch asks dynamo not to follow its own
Python code. While nobody has loaded dynamo there is nobody to follow it: a module stands in for it that
leaves such functions as they are, and loads the real one for whoever asks for anything else.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

DYNAMO = "torch._dynamo"
_MARK = "__dynamo_disable"  # where torch keeps what dynamo made of a function

_lock = threading.RLock()
_inside: list[int] = []  # the threads that are inside
_left_alone: list[Any] = []  # the functions that were left as they are


class _StandIn(ModuleType):
    def disable(self, function: Any = None, recursive: bool = True, **options: Any) -> Any:
        """The function itself where torch asks for one of its own, which it tells by `wrapping`."""
        if function is None or options != {"wrapping": False}:
            return _real().disable(function, recursive, **options)
        _left_alone.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # asked by the import itself
            raise AttributeError(name)
        return getattr(_real(), name)


def dynamo_is_loaded() -> bool:
    """Whether dynamo is loaded; what stands in for it does not count."""
    return not isinstance(sys.modules.get(DYNAMO), _StandIn | None)


@contextmanager
def dynamo_unloaded() -> Iterator[None]:
    """A context in which operations on meta tensors do not load dynamo.

    Whoever imports it inside, the user's model for instance, gets the real one.
    """
    with _lock:
        _inside.append(threading.get_ident())
        sys.modules.setdefault(DYNAMO, _StandIn(DYNAMO))
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                _remove()


def _real() -> ModuleType:
    with _lock:
        _remove()
        return importlib.import_module(DYNAMO)


def _remove() -> None:
    """Take the stand-in away; torch will ask again about the functions that were left as they are."""
    if not dynamo_is_loaded():
        sys.modules.pop(DYNAMO, None)
    while _left_alone:
        function = _left_alone.pop()
        if getattr(function, _MARK, None) is function:
            delattr(function, _MARK)
