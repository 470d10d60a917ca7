"""Origins of tensors that come from nowhere: scripted functions, vmap and custom kernels make them unseen.

Below the level of functions every operation is still dispatched; following the dispatch is slow, so it is
done only in a second recording, when the first one lost a tensor.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

from dropout_lint.trace.bindings import Bindings
from dropout_lint.trace.values import tensors_in


def made_from(*origins: torch.Tensor) -> torch.Tensor:
    """Stands in the graph for code that could not be followed; it can't be run.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("this part of the model could not be followed, so its graph can't be run")


class Origins(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Which recorded nodes every dispatched result depends on."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As `Witness`."""
        return False

    def __init__(self, bindings: Bindings) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self._bindings = bindings
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], tuple[fx.Node, ...]]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        origins: dict[fx.Node, None] = {}
        for tensor in (*tensors_in(args), *tensors_in(kwargs)):
            node = self._bindings.lookup(tensor)
            origins.update(dict.fromkeys((node,) if node is not None else self.of(tensor)))
        if origins:
            for tensor in tensors_in(result):
                self._known[id(tensor)] = (weakref.ref(tensor), tuple(origins))
        return result

    def of(self, tensor: torch.Tensor) -> tuple[fx.Node, ...]:
        """The nodes that `tensor` depends on; none where it was not made from recorded tensors."""
        known = self._known.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else ()
