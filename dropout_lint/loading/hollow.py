"""Build models without giving their weights values, so that a model of any size fits in ordinary memory.

Four ways, the first that works:

- `hollow`: parameters and large tensors on the meta device, everything small as it is, so that builders that
  read values (`linspace(...).tolist()`, anchors, index tables) work and buffers keep theirs;
- `meta`: everything under `torch.device("meta")`;
- `cpu`: with values, but without those that would have to be fetched;
- `weights`: as the user's code says.
"""

from __future__ import annotations

import math
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dropout_lint.guard.alone import PATCHING
from dropout_lint.guard.unloaded import unloaded
from dropout_lint.loading.birthplace import TORCH
from dropout_lint.loading.downloads import nothing_downloaded

LARGE = 1 << 20
"""Tensors of this many elements and more have no values in a `hollow` build."""

_LAYERS = str(Path(TORCH) / "nn") + "/"
_FILLED = frozenset({torch.zeros, torch.ones, torch.rand, torch.randn, torch.empty})
_FACTORIES = _FILLED | {
    torch.full,
    torch.arange,
    torch.linspace,
    torch.logspace,
    torch.eye,
    torch.randint,
    torch.randperm,
    torch.tensor,
    torch.as_tensor,
    torch.asarray,
    torch.scalar_tensor,
    torch.hann_window,
    torch.hamming_window,
}
_WRITES_STATISTICS = frozenset({nn.functional.batch_norm, nn.functional.instance_norm})
_META = torch.device("meta")


class Devices(TorchFunctionMode):
    """Sends tensors where they can live: an accelerator that is not there becomes the CPU.

    Args:
        large: elements from which a new tensor goes to the meta device; infinity for none.
        layers: whether the parameters of torch.nn's layers are made on the meta device.
    """

    def __init__(self, large: float = math.inf, layers: bool = False) -> None:
        super().__init__()
        self.large = large
        self.layers = layers

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            kwargs = _with_present_device(kwargs)
            if func in _FILLED and kwargs.get("device") is None and self._weightless(func, args, kwargs):
                kwargs = {**kwargs, "device": _META}
        elif func is torch.Tensor.to:
            args = (args[0], *(_present(value) for value in args[1:]))
            kwargs = _with_present_device(kwargs)
        elif func is torch.Tensor.cuda and not torch.cuda.is_available():
            return args[0]
        if not self.layers:
            return func(*args, **kwargs)
        if func in _WRITES_STATISTICS:
            args, kwargs = _together(args, kwargs) or (args, kwargs)
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            # A builder that runs a part of its model to learn a shape: values meet what has none.
            moved = None if _writes(func, kwargs) else _together(args, kwargs)
            if moved is None:
                raise
            return func(*moved[0], **moved[1])

    def _weightless(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if self.layers and func is torch.empty and sys._getframe(2).f_code.co_filename.startswith(_LAYERS):
            return True
        return self.large < math.inf and _elements(args, kwargs) >= self.large


def _writes(func: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    """Whether a function writes into its first argument: what it should get must not be lost quietly."""
    name = getattr(func, "__name__", "")
    return "out" in kwargs or name.startswith(("__set", "__i")) or (name.endswith("_") and name[-2:] != "__")


def _together(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Arguments on the meta device where some are and some are not, else None."""
    devices: set[str] = set()
    moved: tuple[tuple[Any, ...], dict[str, Any]] = _on_meta((args, kwargs), devices)
    return moved if devices == {"cpu", "meta"} else None


def _on_meta(value: Any, devices: set[str]) -> Any:
    """`value` with its tensors on the meta device; the devices that they were on are added to `devices`."""
    if isinstance(value, torch.Tensor):
        devices.add(value.device.type)
        return value.to(_META)
    if type(value) in (tuple, list):
        return type(value)(_on_meta(item, devices) for item in value)
    if type(value) is dict:
        return {key: _on_meta(item, devices) for key, item in value.items()}
    return value


def _elements(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    size: Any = kwargs.get("size", args)
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    return math.prod(item for item in size if isinstance(item, int))


def _with_present_device(kwargs: dict[str, Any]) -> dict[str, Any]:
    device = kwargs.get("device")
    return kwargs if device is None else {**kwargs, "device": _present(device)}


def _present(value: Any) -> Any:
    """`value`, or the CPU where it names an accelerator that this machine does not have."""
    if isinstance(value, (str, torch.device)):
        kind = str(value).partition(":")[0]
        if kind in _ABSENT and _ABSENT[kind]():
            return torch.device("cpu")
    elif isinstance(value, int) and not isinstance(value, bool) and not torch.accelerator.is_available():
        return torch.device("cpu")
    return value


_ABSENT: dict[str, Callable[[], bool]] = {
    "cuda": lambda: not torch.cuda.is_available(),
    "mps": lambda: not torch.backends.mps.is_available(),
    "xpu": lambda: not torch.xpu.is_available(),
}


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Parameters lose their values as they are registered."""
    original = nn.Module.register_parameter
    thread = threading.get_ident()
    moved: dict[int, tuple[weakref.ref[nn.Parameter], nn.Parameter]] = {}

    def register_parameter(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        mine = threading.get_ident() == thread
        if mine and type(param) is nn.Parameter and not param.is_meta:
            known = moved.get(id(param))
            if known is None or known[0]() is not param:
                hollow = nn.Parameter(param.detach().to(_META), requires_grad=param.requires_grad)
                moved[id(param)] = known = (weakref.ref(param), hollow)
            param = known[1]
        original(self, name, param)

    nn.Module.register_parameter = register_parameter  # type: ignore[method-assign]  # while this lasts
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]  # as it was


@contextmanager
def weightless(way: str, notes: list[str]) -> Iterator[None]:
    """Build inside this.

    Args:
        way: `hollow`, `hollow-small` (large buffers keep their values), `meta`, `cpu` or `weights`.
        notes: what was left out is said here.
    """
    with ExitStack() as stack:
        stack.enter_context(PATCHING)
        stack.enter_context(unloaded())
        if way != "weights":
            stack.enter_context(nothing_downloaded(notes))
        if way == "meta":
            stack.enter_context(_META)
        if way.startswith("hollow"):
            stack.enter_context(parameters_on_meta())
        stack.enter_context(Devices(LARGE if way == "hollow" else math.inf, way.startswith("hollow")))
        yield
