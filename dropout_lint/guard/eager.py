"""Running compiled parts as they were written, so that their layers can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dropout_lint.guard.together import Together
from dropout_lint.guard.unloaded import dynamo_is_loaded

_STANCE = Together(lambda: torch.compiler.set_stance("force_eager"))


@contextmanager
def eager() -> Iterator[None]:
    """A context in which `torch.compile`d functions and modules run uncompiled.

    Nothing has been compiled while dynamo is not loaded, and asking would load it (over a second), so it is
    only asked where it is. The stance is the process's.
    """
    if not dynamo_is_loaded():
        yield
        return
    with _STANCE.inside():
        yield
