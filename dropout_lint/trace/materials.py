"""What a recording computes with: meta tensors (no memory, no arithmetic), FakeTensors, or real ones."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _device

CPU = torch.device("cpu")
META = torch.device("meta")


class ValueRead(Exception):
    """The model reads a value that these tensors do not have (`.item()`, `bool(tensor)`)."""


class Materials:
    """How parameters, buffers, inputs and constants are represented while a model is recorded.

    Attributes:
        name: `meta`, `fake` or `cpu`, as the report shows it.
        device: the device that tensors are created on.
        has_values: whether a model may read values.
    """

    name = "meta"
    device = META
    has_values = False

    def __init__(self) -> None:
        self._twins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The context that the forward pass runs in."""
        yield

    def twin(self, tensor: torch.Tensor) -> torch.Tensor:
        """The stand-in for a tensor of the model; the same one each time."""
        known = self._twins.get(id(tensor))
        if known is None or known[0] is not tensor:
            known = (tensor, self._make(tensor))
            self._twins[id(tensor)] = known
        return known[1]

    def parameter(self, parameter: nn.Parameter) -> nn.Parameter:
        """The stand-in for a parameter, tied ones staying tied."""
        known = self._twins.get(id(parameter))
        if known is None or known[0] is not parameter:
            twin = nn.Parameter(self._make(parameter), requires_grad=parameter.requires_grad)
            known = (parameter, twin)
            self._twins[id(parameter)] = known
        assert isinstance(known[1], nn.Parameter)
        return known[1]

    def release(self) -> None:
        """Let go of the stand-ins: what recorded with them may be held by an error, or in a circle."""
        self._twins.clear()

    def _make(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)

    def fits(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` can be computed with as it is."""
        return tensor.is_meta

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """A new tensor of the same shape: what an operation that keeps the shape would return."""
        if tensor.is_meta and tensor.layout is torch.strided and tensor.is_contiguous():
            return self._make(tensor)  # on meta tensors, `empty_like` is written in Python
        return torch.empty_like(tensor)

    def contiguous_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """As `like`, for the operations (layer norm) whose result is contiguous whatever its input is."""
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)

    def input(self, tensor: torch.Tensor) -> torch.Tensor:
        """The stand-in for an example input."""
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=META)


class Fake(Materials):
    """FakeTensors on CPU: slower than meta tensors, but every device check and small constant works."""

    name = "fake"
    device = CPU

    def __init__(self) -> None:
        super().__init__()
        from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._class = FakeTensor

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        logger = logging.getLogger("torch._subclasses.fake_tensor")
        disabled, logger.disabled = logger.disabled, True  # a failed attempt is ours to report
        try:
            with self._mode:
                yield
        finally:
            logger.disabled = disabled

    def _make(self, tensor: torch.Tensor) -> torch.Tensor:
        with self._mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CPU)

    def fits(self, tensor: torch.Tensor) -> bool:
        return isinstance(tensor, self._class)

    def input(self, tensor: torch.Tensor) -> torch.Tensor:
        with self._mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=CPU)


class Real(Materials):
    """Real tensors on CPU: for models whose control flow depends on values."""

    name = "cpu"
    device = CPU
    has_values = True

    def __init__(self) -> None:
        super().__init__()
        self._normal = _Normal()

    def _make(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._plausible(tensor) if tensor.is_meta else tensor.detach().to(CPU, copy=True)

    def fits(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == "cpu"

    def input(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._make(tensor)

    def _plausible(self, tensor: torch.Tensor) -> torch.Tensor:
        """For a tensor that has no values: normal ones, weights of variance 1/fan-in, ones for vectors."""
        shape, dtype = tensor.shape, tensor.dtype
        if not dtype.is_floating_point:
            return torch.zeros(shape, dtype=dtype)
        if tensor.dim() < 2:
            return torch.ones(shape, dtype=dtype)
        values = self._normal.fill(torch.empty(shape, dtype=dtype))
        fan_in = max(1, math.prod(shape[1:]))
        return values.mul_(fan_in**-0.5) if isinstance(tensor, nn.Parameter) else values


class _Normal:
    """Standard normal numbers, the same million again and again: a big model is made as fast as copied."""

    def __init__(self) -> None:
        self._at = 0

    def fill(self, tensor: torch.Tensor) -> torch.Tensor:
        """Fill a contiguous tensor with the numbers that come next."""
        numbers, left = _million(), tensor.view(-1)
        while len(left):
            part = numbers[self._at : self._at + len(left)]
            left[: len(part)] = part
            self._at, left = (self._at + len(part)) % len(numbers), left[len(part) :]
        return tensor


@functools.cache
def _million() -> torch.Tensor:
    # a prime: rows of any length that are alike lie a million rows apart
    return torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))


def device_constructors() -> frozenset[Callable[..., Any]]:
    """The functions that create a tensor from nothing and take a `device`."""
    return frozenset(_device._device_constructors())
