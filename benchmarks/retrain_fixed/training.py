"""One training, its test error, and the Δ that it leaves at the norms."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..prediction.settings import Data
from ..prediction.truth import behind, ratios
from .subjects import Subject

SEEN = 1500
"""Rows that train mode sees while Δ is measured."""


def built(file: Path, subject: Subject, p: float, seed: int) -> nn.Module:
    """The network of a file, with the initial weights of a seed."""
    spec = importlib.util.spec_from_file_location(f"{subject.name}_{file.parent.name}", file)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(seed)
    model: nn.Module = getattr(module, subject.model)(**{subject.ratio: p})
    return model


def by_guideline(model: nn.Module, subject: Subject, p: float) -> None:
    """A network without dropout gets one dropout, behind its last norm and before the classifier.

    Li et al. 2019, Sec. 5; Kim et al. 2023, H4.
    """
    parent, _, name = subject.head.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, name, nn.Sequential(nn.Dropout(p), getattr(owner, name)))


def train(model: nn.Module, data: Data, subject: Subject, seed: int) -> None:
    """AdamW, one cycle; the order of the rows depends on the seed alone."""
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=subject.rate, weight_decay=0.01)
    steps = subject.epochs * (len(data) // subject.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, subject.rate, total_steps=steps)
    model.train()
    for _ in range(subject.epochs):
        shuffled = torch.randperm(len(data), generator=order)
        for index in shuffled[: len(data) // subject.batch * subject.batch].split(subject.batch):
            inputs, labels = data.rows(index)
            optimiser.zero_grad()
            F.cross_entropy(model(*inputs), labels).backward()
            optimiser.step()
            schedule.step()


@torch.no_grad()
def error(model: nn.Module, data: Data) -> float:
    """Per cent of the labels (of rows, or of pixels) that test mode misses."""
    model.eval()
    wrong = torch.cat([model(x).argmax(1) != y for x, y in zip(*_chunks(data), strict=True)])
    return 100 * float(wrong.float().mean())


def _chunks(data: Data) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return data.inputs[0].split(250), data.labels.split(250)


def shifts(model: nn.Module, data: Data) -> dict[str, float]:
    """Δ by brute force at each norm behind a dropout (`benchmarks/prediction/truth.py`)."""
    noisy, quiet = ratios(model, data, SEEN), ratios(model, data, 0)
    return {norm: noisy[norm] / quiet[norm] for norm in behind(model, data) if norm in noisy}
