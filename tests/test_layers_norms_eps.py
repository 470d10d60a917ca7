"""A module that is no norm may keep anything under the name `eps`."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import dropout_lint as dl
from dropout_lint.layers.norms import describe_norm


class Layer(nn.Module):
    def __init__(self, eps: object) -> None:
        super().__init__()
        self.eps = eps
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@pytest.mark.parametrize(
    "eps",
    [
        nn.Parameter(torch.zeros(1)),
        nn.Parameter(torch.ones(3)),
        nn.Parameter(torch.zeros(1, device="meta")),
        "auto",
    ],
    ids=["weight", "vector", "meta", "text"],
)
def test_eps_of_another_meaning_is_left_alone(eps: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert describe_norm(Layer(eps)) is None
    if not (isinstance(eps, torch.Tensor) and eps.is_meta):
        assert [f.code for f in dl.lint(Layer(eps), torch.randn(8, 4)).findings] == ["DL101"]


def test_eps_of_a_norm_is_read() -> None:
    spec = describe_norm(nn.BatchNorm1d(8, eps=0.5))
    assert spec is not None
    assert spec.eps == 0.5
    without = describe_norm(nn.RMSNorm(8))
    assert without is not None
    assert without.eps == 1e-5
