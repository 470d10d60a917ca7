"""The audit of public models: one model, from its target to the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.audit.linted import kept, lint
from benchmarks.audit.page import report
from benchmarks.audit.targets import Target

SHIPPED = Target("torchvision", "torchvision.models:mobilenet_v2(weights=None)")
RATES = Target("torchvision", "torchvision.models:densenet121(weights=None, drop_rate=0.2)", "drop_rate=0.2")
MISSING = Target("torchvision", "torchvision.models:nonsense()")


@pytest.mark.slow
def test_models_go_from_their_targets_to_the_page(tmp_path: Path) -> None:
    shipped, rates, missing = (lint(target, tmp_path, 120) for target in (SHIPPED, RATES, MISSING))
    assert shipped.worst is None and not shipped.loud
    assert rates.worst is not None and rates.worst < 0.95
    assert {found.code for found in rates.loud} == {"DL101"}
    assert rates.loud[0].where.startswith("torchvision/models/densenet.py:")
    assert kept(RATES, tmp_path) == rates
    text = report([shipped, rates, missing], 3)
    assert "| `densenet121` | drop_rate=0.2 |" in text
    assert "- `torchvision.models:nonsense()`: `torchvision.models` has no attribute `nonsense`" in text
