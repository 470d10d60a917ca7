"""Functions of other packages that keep what they work out of sizes, run each time they are called.

What was kept of plain numbers tells nothing of the tensor that a size is of now: a graph recorded with it
would hold for one batch size alone, and a second recording would give another one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from dropout_lint.guard.together import Together

KEEPERS = (("einops.einops", "_reconstruct_from_shape"),)
"""Module and name of functions under `functools.lru_cache`."""


@contextmanager
def _unwrapped() -> Iterator[None]:
    kept = []
    for module, name in KEEPERS:
        owner = sys.modules.get(module)
        function = getattr(owner, name, None)
        plain = getattr(function, "__wrapped__", None)
        if plain is not None:
            kept.append((owner, name, function))
            setattr(owner, name, plain)
    try:
        yield
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)


_UNWRAPPED = Together(_unwrapped)


def uncached() -> AbstractContextManager[None]:
    """A context in which these functions keep nothing, and nothing that they have kept is used."""
    return _UNWRAPPED.inside()
