"""Ports from other frameworks whose conventions came along, with versions, and what is told of them."""

from __future__ import annotations

import pytest
import torch

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
