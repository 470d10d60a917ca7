"""Running compiled parts as they were written, so that their layers can be seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from dropout_lint.guard.unloaded import dynamo_is_loaded

_lock = threading.Lock()
_inside: list[int] = []  # the threads that are inside
_stance = ExitStack()


@contextmanager
def eager() -> Iterator[None]:
    """A context in which `torch.compile`d functions and modules run uncompiled.

    Nothing has been compiled while dynamo is not loaded, and asking would load it (over a second), so it is
    only asked where it is. The stance is the process's: the first that needs it sets it, the last one puts
    back what was there.
    """
    if not dynamo_is_loaded():
        yield
        return
    with _lock:
        if not _inside:
            _stance.enter_context(torch.compiler.set_stance("force_eager"))
        _inside.append(threading.get_ident())
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                _stance.close()
