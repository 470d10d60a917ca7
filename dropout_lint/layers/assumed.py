"""Dropouts whose ratio is 0 when the model is built, as of a schedule that raises it: judged at another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dropout_lint.layers.catalogue import Catalogue
from dropout_lint.layers.signatures import RATIO, argument, put


@dataclass
class Idle:
    """The dropouts with ratio 0.

    Attributes:
        ratio: what they are judged at; None where that is 0.
        names: the modules, by qualified name, and the calls of functions, as they are met.
        fixed: the modules whose ratio cannot be set.
    """

    ratio: float | None
    names: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)

    def met(self, name: str) -> None:
        """Note a call that has been recorded."""
        if name not in self.names:
            self.names.append(name)


_CURRENT: ContextVar[Idle | None] = ContextVar("idle", default=None)


@contextmanager
def idle(model: nn.Module, catalogue: Catalogue, ratio: float | None = None) -> Iterator[Idle]:
    """Inside, the dropouts of a model with ratio 0 are noted, and drop as many as `ratio` says."""
    found = Idle(ratio)
    changed: list[tuple[nn.Module, dict[str, object]]] = []
    for name, module in model.named_modules():
        spec = catalogue.dropout(module)
        if spec is None or spec.p != 0:
            continue
        before = dict(module.__dict__)
        try:
            if ratio is not None:
                catalogue.set_ratio(module, ratio)
                changed.append((module, before))
        except ValueError:
            found.fixed.append(name)
        else:
            found.names.append(name)
    token = _CURRENT.set(found)
    try:
        yield found
    finally:
        _CURRENT.reset(token)
        for module, before in changed:
            module.__dict__.update(before)


def idle_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Idle | None, tuple[Any, ...]]:
    """Who is told of a call of a dropout function, if its ratio is 0; and its arguments as it is judged."""
    current = _CURRENT.get()
    ratio = argument(args, kwargs, RATIO, 0.5)
    if current is None or not isinstance(ratio, (int, float)) or ratio != 0:
        return None, args
    return current, args if current.ratio is None else put(args, kwargs, RATIO, current.ratio)
