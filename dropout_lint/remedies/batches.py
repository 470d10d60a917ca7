"""Where a model's batches go, and whether they can be read again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer lies; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def rereadable(batches: Iterable[Any]) -> bool:
    """Whether `batches` can be read more than once: an iterator or generator cannot."""
    return iter(batches) is not batches
