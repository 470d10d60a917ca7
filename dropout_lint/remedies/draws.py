"""The random draws of a real pass: what draws, on which line, in which module, how many values."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dropout_lint.trace.generators import watched
from dropout_lint.trace.values import tensors_in
from dropout_lint.trace.witness import kind_of

_OWN = tuple(str(folder) + os.sep for folder in (Path(torch.__file__).parent, Path(__file__).parents[1]))


@dataclass(frozen=True)
class Site:
    """Where something draws.

    Attributes:
        operation: `torch.bernoulli_`, `random.random`.
        file, line: the nearest line that is not torch's.
        owner: qualified name of the module whose code runs, "" for the model itself.
    """

    operation: str
    file: str
    number: int
    owner: str

    @property
    def line(self) -> tuple[str, str, int]:
        """The same draw in whatever module."""
        return self.operation, self.file, self.number

    def __str__(self) -> str:
        place = f" in `{self.owner}`" if self.owner else ""
        return f"{Path(self.file).name}:{self.number} {self.operation}{place}"


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Sees the draws of torch, and within `watching` those of Python's `random` and numpy as well.

    Attributes:
        sizes: by site, how many values each draw gave; None for one outside of torch.
    """

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.sizes: dict[Site, list[int | None]] = {}
        self._model = model
        self._names = names

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: see `Witness`."""
        return False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it is entered, draws are noted."""
        with watched(self._model, self._called), self:
            yield

    def _called(self, name: str, call: Callable[[], Any]) -> Any:
        self._note(name, None)
        return call()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = kind_of(func)
        result = func(*args, **kwargs)
        if kind.seeded and kind.draws(args, kwargs):
            self._note(f"torch.{kind.name}", next((tensor.numel() for tensor in tensors_in(result)), 0))
        return result

    def _note(self, operation: str, size: int | None) -> None:
        frame: FrameType | None = sys._getframe(2)
        place: FrameType | None = None
        owner = ""
        while frame is not None:
            if place is None and not frame.f_code.co_filename.startswith(_OWN):
                place = frame
            own = frame.f_locals.get("self")
            if isinstance(own, nn.Module) and id(own) in self._names:
                owner = self._names[id(own)]
                break
            frame = frame.f_back
        while place is None and frame is not None:  # a layer of torch's is named by the code that calls it
            place = None if frame.f_code.co_filename.startswith(_OWN) else frame
            frame = frame.f_back
        file, number = (place.f_code.co_filename, place.f_lineno) if place else ("", 0)
        self.sizes.setdefault(Site(operation, file, number, owner), []).append(size)
