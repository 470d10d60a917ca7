"""Work out example inputs from a model."""
from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from dropout_lint.target.types import Inputs


def guess_inputs(model: nn.Module) -> Iterator[Inputs]:
    import torch
    yield Inputs((torch.empty(2, 3, 224, 224, device="meta"),), guessed=True)
