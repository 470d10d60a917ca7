"""The pytest fixture: passes, fails readably, and is quick to load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dropout_lint.testing import assert_no_dropout_shift

ROOT = Path(__file__).parents[1]
pytest_plugins = ["pytester"]


def good() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def bad() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 2))


def test_a_clean_model_passes_and_gives_the_report() -> None:
    report = assert_no_dropout_shift(good(), torch.randn(4, 4))
    assert report.ok
    assert [item.norm for item in report.predictions] == ["1"]


def test_a_shift_fails_with_the_report() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_no_dropout_shift(bad(), torch.randn(4, 4))
    text = str(caught.value)
    assert text.startswith("Sequential has misplaced dropout\n")
    assert "error[DL101]" in text
    assert "path   1 → 2" in text


def test_options_are_those_of_lint() -> None:
    assert_no_dropout_shift(bad(), torch.randn(4, 4), ignore=["DL1", "DL3"])
    assert_no_dropout_shift(bad(), torch.randn(4, 4), select=["DL4"])


def test_the_fixture_in_a_project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(
        """
        import torch
        from torch import nn

        def test_good(assert_no_dropout_shift):
            assert_no_dropout_shift(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), torch.randn(4, 4))

        def test_bad(assert_no_dropout_shift):
            model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4))
            assert_no_dropout_shift(model, torch.randn(4, 4))
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*AssertionError: Sequential has misplaced dropout*", "E*DL101*"])
    # the failure points at the test's own line
    assert "testing.py" not in "\n".join(line for line in result.outlines if line.startswith("E"))


def test_loading_the_plugin_imports_no_torch() -> None:
    code = "import sys, dropout_lint.pytest_plugin; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
