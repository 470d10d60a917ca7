"""The sets that predictions are judged on: never mixed, and measured as the papers do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.prediction import heldout, tuning, twelve
from benchmarks.prediction.settings import Data, settings
from benchmarks.prediction.truth import behind, ratios

INSIDE = (*tuning.NETWORKS, *twelve.NETWORKS)


def test_nothing_is_in_both_sets() -> None:
    for what in ("name", "family", "data", "optimiser"):
        shared = {getattr(n, what) for n in heldout.NETWORKS} & {getattr(n, what) for n in INSIDE}
        assert not shared, what
    keys = [setting.key for setting in settings([*heldout.NETWORKS, *INSIDE])]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_measured_delta_is_li_eq_6_on_dropout_before_a_norm(p: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 8).relu()
    model = nn.Sequential(nn.Dropout(p), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.BatchNorm1d(8))
    data = Data((x,), torch.zeros(len(x)))
    mean, variance = x.mean(), x.var()
    expected = variance / ((mean**2 + variance) / (1 - p) - mean**2)
    assert behind(model, data) == ["1", "3"]
    assert ratios(model, data, 40_000)["1"] == pytest.approx(float(expected), rel=0.02)
    assert ratios(model, data, 0)["1"] == pytest.approx(1, rel=0.02)


def test_only_norms_behind_a_mask_are_counted() -> None:
    model = nn.Sequential(
        nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4)
    )
    assert behind(model, Data((torch.randn(64, 4),), torch.zeros(64))) == ["4"]
