"""One model of a public package, with what it is fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Batch = Any
"""One batch in the form that `dropout_lint.lint` takes: a tensor, a tuple or a dict of arguments."""


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        name: the model, unique within its package.
        build: makes it with dropout switched on; its packages are imported inside.
        batch: draws one batch from the data.
        batches: how many make up the training data.
        passes: train-mode passes over them; models with one draw for a whole batch need more.
        linted: the part of it that is linted, where the rest only serves to measure.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], Batch]
    batches: int = 4
    passes: int = 5
    linted: Callable[[nn.Module], nn.Module] = lambda model: model

    def data(self, seed: int = 0) -> list[Batch]:
        """The training data: the same at every call."""
        generator = torch.Generator().manual_seed(seed)
        return [self.batch(generator) for _ in range(self.batches)]

    def made(self, seed: int = 0) -> nn.Module:
        """The model with its weights, the same at every call."""
        torch.manual_seed(seed)
        return self.build().train()


def call(model: nn.Module, batch: Batch) -> Any:
    """One forward pass."""
    if isinstance(batch, dict):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


def named(package: str, entries: Iterator[Entry]) -> dict[str, Entry]:
    """The entries of one package by `package/model`."""
    return {f"{package}/{entry.name}": entry for entry in entries}
