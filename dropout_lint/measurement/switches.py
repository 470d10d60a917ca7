"""Switching one dropout off at a time, with every other random number left as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dropout_lint.layers import Catalogue
from dropout_lint.layers.dropouts import FUNCTIONS, TRAINING_DEFAULT

_TORCH = str(Path(torch.__file__).parent) + os.sep


@dataclass(frozen=True)
class Switch:
    """One dropout that can be switched off: its name as in the lint report, and the way to do it."""

    name: str
    off: Callable[[], AbstractContextManager[Any]]


def module_switches(model: nn.Module, catalogue: Catalogue) -> list[Switch]:
    """Every registered dropout with p > 0, and every attention or recurrent layer with dropout inside."""
    found = []
    for name, module in model.named_modules():
        spec = catalogue.dropout(module)
        if spec is not None:
            if spec.is_noisy:
                found.append(Switch(name, partial(_passing, module)))
        elif isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and module.dropout > 0:
            found.append(Switch(name, partial(_without_inner, module)))
    return found


def functional_switches(model: nn.Module, catalogue: Catalogue, sites: Sequence[str]) -> list[Switch]:
    """One switch for each functional dropout whose name is in `sites`."""
    return [Switch(site, partial(FunctionalDropouts, model, catalogue, off=site)) for site in sites]


@contextmanager
def _passing(module: nn.Module) -> Iterator[None]:
    """The dropout still draws its mask, so that all others draw theirs as before, and returns its input."""
    before = module.__dict__.get("forward")
    forward = module.forward

    def pass_on(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        forward(x.clone(), *args, **kwargs)
        return x

    module.__dict__["forward"] = pass_on
    try:
        yield
    finally:
        if before is None:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = before


@contextmanager
def _without_inner(module: nn.MultiheadAttention | nn.RNNBase) -> Iterator[None]:
    held = module.dropout
    module.dropout = 0.0
    try:
        yield
    finally:
        module.dropout = held


class FunctionalDropouts(TorchFunctionMode):
    """Sees the calls of torch's functional dropouts that drop something, and skips those of one site.

    A site is `owner@file.py:line`: the module whose forward makes the call and the line of the call.
    """

    def __init__(self, model: nn.Module, catalogue: Catalogue, off: str | None = None) -> None:
        super().__init__()
        self.off = off
        self.sites: list[str] = []
        self._names = {id(module): name for name, module in model.named_modules()}
        self._dropouts = {id(m) for m in model.modules() if catalogue.dropout(m) is not None}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FUNCTIONS and _drops(FUNCTIONS[func][0], args, kwargs):
            site = self._site()
            if site is not None:
                if site not in self.sites:
                    self.sites.append(site)
                if site == self.off:
                    value = args[0] if args else kwargs.pop("input")
                    func(value.clone(), *args[1:], **kwargs)
                    return value
        return func(*args, **kwargs)

    def _site(self) -> str | None:
        """Name of the call that is being made, or None inside a registered dropout module."""
        frame: FrameType | None = sys._getframe(2)
        place: str | None = None
        while frame is not None:
            code = frame.f_code
            own = frame.f_locals.get("self")
            if id(own) in self._dropouts and isinstance(own, nn.Module):
                return None
            users = not code.co_filename.startswith(_TORCH) and code.co_filename != __file__
            if users and place is None:
                place = f"{Path(code.co_filename).name}:{frame.f_lineno}"
            if isinstance(own, nn.Module) and id(own) in self._names:
                return f"{self._names[id(own)]}@{place}" if place is not None else None
            frame = frame.f_back
        return None


def _drops(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    training = kwargs.get(
        "training", kwargs.get("train", args[2] if len(args) > 2 else TRAINING_DEFAULT.get(name, True))
    )
    p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    return bool(training) and bool(p)
