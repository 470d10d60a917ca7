"""Predicted beside measured Δ at every norm of a setting."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from prediction_closed import closed_forms
from prediction_measured import Case, prepared
from prediction_networks import data_of
from torch import nn

from dropout_lint.noise import predict
from dropout_lint.target.types import Inputs
from dropout_lint.trace import trace

BASES = ("initialisation", "weights", "checkpoint")


@dataclass
class Result:
    """Measured and predicted Δ at every norm of a case, for one basis."""

    case: Case
    basis: str
    measured: dict[str, float]
    predicted: dict[str, float]
    closed: dict[str, float]
    seconds: float = 0.0
    forward_seconds: float = 0.0
    fallbacks: dict[str, int] = field(default_factory=dict)

    def errors(self, which: str = "predicted") -> list[float]:
        """Absolute errors, one for each norm."""
        values: Mapping[str, float] = getattr(self, which)
        return [abs(values[name] - self.measured[name]) for name in self.measured if name in values]


def evaluate(case: Case, states: Sequence[str], cache: Path | None, passes: int) -> Iterator[Result]:
    """One result for each basis."""
    for state in states:
        yield from compared(case, state, *prepared(case, state, cache, passes))


def compared(case: Case, state: str, net: nn.Module, measured: dict[str, float]) -> Iterator[Result]:
    """One result for each basis of a network that is there."""
    x = data_of(case.model)[0]
    tr = trace(net, Inputs((x[:4],)))
    net.eval()
    with torch.no_grad():
        net(x[:1])
        start = time.perf_counter()
        net(x[:1])
        forward = time.perf_counter() - start
    net.train()
    closed = closed_forms(tr)
    for basis in ("checkpoint",) if state == "trained" else ("initialisation", "weights"):
        start = time.perf_counter()
        prediction = predict(tr, basis=basis)  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
        predicted = {shift.norm: shift.delta for shift in prediction.norms}
        yield Result(case, basis, measured, predicted, closed, seconds, forward, dict(prediction.fallbacks))
