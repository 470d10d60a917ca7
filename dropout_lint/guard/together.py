"""A change to the whole process that several threads may want at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager


class Together:
    """The first that comes inside makes the change, the last that leaves takes it back.

    Args:
        change: gives a context in which the process is changed.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[object]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._inside = 0
        self._changed = ExitStack()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """A context in which the process is changed."""
        with self._lock:
            if not self._inside:
                self._changed.enter_context(self._change())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._changed.close()
