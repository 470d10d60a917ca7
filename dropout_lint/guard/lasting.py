"""What is loaded once and stays as long as the process: torch, above all."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def for_good() -> Iterator[None]:
    """Where torch is loaded inside, no search for circles looks at what there is by then, now or later: it is
    all of torch, and each search of it takes a tenth of a second.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
