"""Where a model's batches go, and whether they can be read again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from dropout_lint.errors import UsageError
from dropout_lint.inputs.shapes import device_of


def device_for(model: nn.Module, device: torch.device | str | None) -> torch.device:
    """Where a model's batches go: `device`, or where the model is.

    Raises:
        UsageError: torch has no such device, or the model has no values.
    """
    if any(tensor.is_meta for tensor in itertools.chain(model.parameters(), model.buffers())):
        raise UsageError(
            f"the weights of {type(model).__name__} are on the meta device and have no values",
            "build it on a real device, or load its weights first",
        )
    if device is None:
        return device_of(model)
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"torch cannot use the device {str(device)!r}: {reason}", "try cpu") from error
    if where.type == "meta":
        raise UsageError("batches on the meta device have no values", "use a real device")
    return where


def rereadable(batches: Iterable[Any]) -> bool:
    """Whether `batches` can be read more than once: an iterator or generator cannot."""
    return iter(batches) is not batches
