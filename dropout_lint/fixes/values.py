"""Tensors in nested values: compared, moved, and made longer or wider."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dropout_lint.inputs.values import replaced, walk

SMALL = 64
"""Inputs narrower than this are doubled to see whether a model takes another size."""
STRIDE = 32
"""Larger ones grow by what vision models are apt to divide their input's size by."""


def same(left: Any, right: Any) -> bool:
    """Whether two outputs hold the same tensors, bit for bit (NaN equals NaN)."""
    ours, theirs = list(walk(left)), list(walk(right))
    return len(ours) == len(theirs) and all(equal(a, b) for a, b in zip(ours, theirs, strict=True))


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same, bit for bit (NaN equals NaN)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_floating_point():
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    return torch.equal(a, b)


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors of a nested value on a device; meta tensors get random values."""

    def moved(tensor: Tensor) -> Tensor:
        if tensor.device.type == "meta":
            fresh = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            return fresh.normal_() if fresh.is_floating_point() else fresh.zero_()
        return tensor.detach().to(device).clone()

    return replaced(value, moved)


def lengthened(value: Any, batch: int) -> Any:
    """Tensors of `batch` rows with one row more, in a nested value."""
    return replaced(value, lambda t: torch.cat([t, t[:1]]) if t.dim() and t.shape[0] == batch else t)


def widened(value: Any) -> Any:
    """Images, sequences and rows of tokens that are higher, wider or longer, in a nested value."""

    def wider(tensor: Tensor) -> Tensor:
        first = 2 if tensor.dim() > 2 and tensor.is_floating_point() else 1
        for dimension in range(first, tensor.dim()):
            size = tensor.shape[dimension]
            if size > 1:
                more = tensor.narrow(dimension, 0, size if size < SMALL else STRIDE)
                tensor = torch.cat([tensor, more], dimension)
        return tensor

    return replaced(value, wider)
