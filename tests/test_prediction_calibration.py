"""What a trained norm tells of the weight layer before it, through rectifiers, other functions and pools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from brute_force import deltas, measured, smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prediction_trained import trained_alike
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.prediction.inversion import inverse
from dropout_lint.prediction.quadrature import MomentFunction, moments_by_quadrature, rectified

FUNCTIONS: dict[str, MomentFunction] = {
    "ReLU": rectified(),
    "LeakyReLU": rectified(0.1),
    "ELU": moments_by_quadrature(F.elu),
    "Softplus": moments_by_quadrature(F.softplus),
    "GELU": moments_by_quadrature(F.gelu),
    "SiLU": moments_by_quadrature(F.silu),
    "Tanh": moments_by_quadrature(torch.tanh),
}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FUNCTIONS)), st.floats(-1.5, 3.0), st.floats(0.2, 2.0))
def test_the_variable_found_has_the_moments_that_were_asked_for(name: str, mean: float, sd: float) -> None:
    moments = FUNCTIONS[name]
    wanted, variance, _, _ = moments(np.array([mean * sd]), np.array([sd**2]))
    start = (np.array([mean * sd + 0.3]), np.array([1.7 * sd**2]))
    again, spread, _, _ = moments(*inverse(moments, wanted, variance, start))
    assert again == pytest.approx(wanted, abs=0.03 * np.sqrt(variance[0]))
    assert spread == pytest.approx(variance, rel=0.07)


def trained(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> nn.Module:
    """`model` after some steps of Adam on all of the data, with the running statistics of train mode."""
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    return trained_alike(model, x)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Softplus, nn.ELU])
def test_a_norm_behind_an_activation_calibrates_what_is_before_it(activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.randn(1024, 6)
    y = (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()
    blocks = [
        layer
        for inner in (6, 48, 48)
        for layer in (nn.Linear(inner, 48), activation(), nn.BatchNorm1d(48), nn.Dropout(0.4))
    ]
    model = trained(nn.Sequential(*blocks, nn.Linear(48, 4)), x, y, 100)
    truth, found = measured(model, x, passes=8), deltas(model, x[:4])
    assert found == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_a_pool_may_stand_between_as_well(pool: type[nn.Module]) -> None:
    torch.manual_seed(0)
    x = smooth(256, 2, 8, 8)
    y = (x[:, 0].mean((1, 2)) > 0).long() + 2 * (x[:, 1].std((1, 2)) > 0.8).long()
    blocks = [
        layer
        for inner in (2, 24)
        for layer in (
            nn.Conv2d(inner, 24, 3, padding=1),
            nn.ReLU(),
            pool(2),
            nn.BatchNorm2d(24),
            nn.Dropout(0.4),
        )
    ]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4))
    model = trained(nn.Sequential(*blocks, *head), x, y, 60)
    truth, found = measured(model, x, passes=8), deltas(model, x[:4])
    assert found == pytest.approx(truth, abs=0.06)
