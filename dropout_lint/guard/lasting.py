"""What is loaded once and stays as long as the process: torch, above all."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext


@contextmanager
def unsearched() -> Iterator[None]:
    """No search for circles meanwhile: loading thousands of classes sets off many, and none is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def for_good() -> Iterator[None]:
    """Where torch is loaded inside, no search for circles looks at what there is by then, now or later: each
    search of all of torch takes a tenth of a second.
    """
    first = "torch" not in sys.modules
    with unsearched() if first else nullcontext():
        yield
        if first:
            gc.freeze()
