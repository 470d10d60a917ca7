"""Layers whose name or flag says something else than what they do in the two modes."""

from __future__ import annotations

import warnings

import torch
from torch import nn

import dropout_lint as dl

X = torch.randn(8, 16)


def test_dropout_of_a_quantised_network_drops_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dropout = torch.ao.nn.quantized.Dropout(0.5)
    model = nn.Sequential(nn.Linear(16, 16), dropout, nn.BatchNorm1d(16))
    assert torch.equal(dropout.train()(X), X)
    assert not dl.lint(model, X).findings


def test_norm_that_no_longer_updates_what_test_mode_uses_is_shifted() -> None:
    """Lightning's `BaseFinetuning.freeze_module` sets the flag; training still normalises by the batch."""
    norm = nn.BatchNorm1d(16)
    norm.track_running_stats = False
    assert not torch.equal(norm.train()(X), norm.eval()(X))
    model = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), norm.train())
    assert [finding.code for finding in dl.lint(model, X).findings] == ["DL101"]


def test_norm_without_statistics_has_nothing_to_be_shifted() -> None:
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    model = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), norm)
    assert not dl.lint(model, X).findings
