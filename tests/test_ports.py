"""Ports from other frameworks whose conventions came along, with versions, and what is told of them."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import dropout_lint
from dropout_lint.loading.compat import declare_missing_schemas

IMAGES = {"pixel_values": torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
MOMENTA = [  # transformers 5.23.0: the share that TensorFlow keeps is given as the share that torch replaces
    ("EfficientNet", {"width_coefficient": 0.25, "depth_coefficient": 0.3}, 0.99),
    ("MobileNetV1", {"depth_multiplier": 0.25}, 0.9997),
    ("MobileNetV2", {"depth_multiplier": 0.25}, 0.997),
]


def lint(name: str, options: dict[str, float]) -> dropout_lint.api.LintReport:
    transformers = pytest.importorskip("transformers")
    declare_missing_schemas()
    config = getattr(transformers, f"{name}Config")(image_size=32, **options)
    return dropout_lint.lint(getattr(transformers, f"{name}Model")(config), IMAGES)


@pytest.mark.parametrize(("name", "options", "momentum"), MOMENTA)
def test_a_momentum_of_the_other_convention_forgets_at_once(
    name: str, options: dict[str, float], momentum: float
) -> None:
    (finding,) = [item for item in lint(name, options).findings if item.code == "DL503"]
    assert f"has momentum {momentum:g}: the last batch alone" in finding.message and finding.norms


def test_efficientnets_drop_connect_drops_elements() -> None:
    report = lint("EfficientNet", {**MOMENTA[0][1], "drop_connect_rate": 0.4})
    # the paper's drops whole branches (DL104); this one is dropout, called where no stride and a skip are
    assert not [item for item in report.findings if item.code == "DL104"]
    unused = [item.dropout for item in report.findings if item.code == "DL406"]
    assert unused and all(dropout is not None and dropout.kind == "Dropout" for dropout in unused)
    assert 0.8 < min(item.delta for item in report.predictions if item.delta is not None) < 0.95


def test_timms_dropblock_is_told_by_what_it_zeroes() -> None:
    # timm 1.0.31: blocks overlap and seeds lie outside of the map too, so that more is zeroed than p; what is
    # kept is divided by one number, though fewer blocks reach the corners than the middle
    declare_missing_schemas()
    drop = pytest.importorskip("timm.layers").DropBlock2d(0.1, 7)
    torch.manual_seed(0)
    drawn = drop(torch.ones(20000, 1, 14, 14)).mean(1)
    zeroed, middle = float((drawn == 0).float().mean()), float(drawn[:, 3:11, 3:11].mean())
    corners = float(drawn[:, ::13, ::13].mean())
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), drop, nn.BatchNorm2d(8))
    (finding,) = dropout_lint.lint(model, torch.randn(2, 3, 14, 14)).findings
    said = re.search(r"zeroes (\S+) of the elements, whose means are (\S+) to (\S+) by", finding.message)
    assert said is not None and finding.code == "DL104"
    assert [float(one) for one in said.groups()] == pytest.approx([zeroed, middle, corners], abs=0.012)
    assert (zeroed, middle, corners) == pytest.approx((0.21, 0.92, 1.14), abs=0.012)
