"""Code that runs only in training is seen where train mode can be run at all, and else said to be unseen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.trace import trace

VECTOR = torch.randn(4, 8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.drop, self.bn = nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        x = self.fc(x)
        if self.training:
            self.prepare(x, y)
            x = self.drop(x)
        return self.bn(x)

    def prepare(self, x: torch.Tensor, y: torch.Tensor | None) -> None:
        """What this model does first in training."""


class ReadsValues(Net):
    def prepare(self, x: torch.Tensor, y: torch.Tensor | None) -> None:
        assert torch.ones(1).add(1).item() != 0


class WantsTargets(Net):
    def prepare(self, x: torch.Tensor, y: torch.Tensor | None) -> None:
        assert y is not None, "targets are\nneeded"


def test_training_that_needs_values_is_run_with_real_tensors() -> None:
    found = trace(ReadsValues(), Inputs((VECTOR,)))
    assert found.method == "cpu"
    assert [site.name for site in found.dropouts] == ["drop"]
    assert not found.partial


def test_training_that_cannot_be_run_is_said_to_be_unseen() -> None:
    found = trace(WantsTargets(), Inputs((VECTOR,)))
    assert found.method == "meta-eval"
    assert found.partial
    assert found.opaque[0].name == "code that runs only in training"
    assert found.opaque[0].reason == "train mode could not be run: AssertionError: targets are"
    assert not found.unused, "whether training calls it is not known"


def test_above_the_parameter_limit_no_real_tensors_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropout_lint.trace.chain.REAL_PARAMETER_LIMIT", 10)
    found = trace(ReadsValues(), Inputs((VECTOR,)))
    assert found.method == "meta-eval"
    assert "ValueRead" in found.opaque[0].reason
