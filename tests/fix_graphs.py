"""Models as the graph fix sees them: traced, and what is found about them."""

from __future__ import annotations

import torch
from torch import nn

from dropout_lint.analysis import analyse_trace
from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.resolving import resolve
from dropout_lint.prediction import Prediction
from dropout_lint.trace import Trace, trace


def traced(target: str, *, real: bool = False) -> Trace:
    (built,) = resolve(target, prefer_meta=not real)
    return trace(built.model, built.inputs, constructed=built.constructed)


def of(model: nn.Module, *shape: int) -> Trace:
    return trace(model, Inputs((torch.randn(*shape),)))


def worst(prediction: Prediction) -> float:
    return min((shift.delta for shift in prediction.norms if shift.shifts), default=1.0)


def codes(model: nn.Module, inputs: Inputs) -> list[str]:
    return [finding.rule.code for finding in analyse_trace(trace(model, inputs)).findings]
