"""What has to hold while a model is looked into: no other thread patches torch, and no reading changes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.parametrize import ParametrizationList

PATCHING = threading.RLock()
"""Held while a class of torch's or the modules of a model are exchanged: two threads that put back what they
found, one before the other, would leave the exchange of one of them for good.
"""


class LoneTracer(fx.Tracer):
    """`fx.Tracer` patches torch, and so sees the calls of every thread: those of others just run here."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def trace(self, *args: Any, **kwargs: Any) -> fx.Graph:
        """As `fx.Tracer` does it, while no other thread patches torch."""
        with PATCHING:
            return super().trace(*args, **kwargs)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `fx.Tracer` does it for calls of this thread."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[tuple[str, ...]]:
    """This thread alone, outside inference mode, with the parametrizations of `model` in test mode.

    A parametrization computes its weight at each reading, and in train mode some move their buffers with it
    (the power iteration of spectral norm). Inference tensors count no changes in place, so that a recording
    in inference mode would not see them.

    Yields:
        qualified names of the modules whose mode is train mode otherwise.
    """
    normal = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with PATCHING, normal:
        changed = [(name, module) for name, module in _parametrizing(model) if module.training]
        for _, module in changed:
            module.training = False
        try:
            yield tuple(name for name, _ in changed)
        finally:
            for _, module in changed:
                module.training = True


def _parametrizing(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Parametrizations, and what they hold."""
    for name, module in model.named_modules():
        if isinstance(module, ParametrizationList):
            yield from module.named_modules(prefix=name)
