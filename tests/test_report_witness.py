"""Noise that is not followed is said in every report, and two reports on the same model are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import dropout_lint as dl
from dropout_lint.cli import run

NOISY = """\
import random
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.bn = nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x):
        h = self.fc(x)
        if self.training:
            h = h * torch.distributions.Gamma(2.0, 2.0).sample(h.shape)
        return self.bn(h)


class ByChance(Net):
    def forward(self, x):
        if self.training and random.random() < 0.3:
            return x
        return self.bn(nn.functional.dropout(self.fc(x), 0.5, self.training))


class DropsInTest(nn.Dropout):
    def forward(self, x):
        return nn.functional.dropout(x, self.p, True)


def monte_carlo():
    return nn.Sequential(nn.Linear(8, 8), DropsInTest(0.5), nn.BatchNorm1d(8))


class TrainingOnly(Net):
    def forward(self, x):
        h = self.fc(x)
        return (h, self.bn(nn.functional.dropout(h, 0.5, self.training))) if self.training else h
"""


def report(capsys: pytest.CaptureFixture[str], target: str) -> dict[str, object]:
    run([target, "--input", "16x8", "--output-format", "json", "--no-cache", "--exit-zero"])
    found: dict[str, object] = json.loads(capsys.readouterr().out)["targets"][0]
    return found


def test_unknown_noise_has_no_delta_names_its_line_and_fails_strict(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(NOISY)
    line = (
        NOISY.splitlines().index("            h = h * torch.distributions.Gamma(2.0, 2.0).sample(h.shape)")
        + 1
    )
    (prediction,) = report(capsys, "net.py:Net")["predictions"]  # type: ignore[misc]
    assert prediction["delta"] is None
    assert [cause.split()[0] for cause in prediction["unknown"]] == [f"net.py:{line}"]
    assert run(["net.py:Net", "--input", "16x8", "--no-cache", "--show-predictions"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1.00" not in out
    assert out.count(f"net.py:{line}") == 1
    assert "No misplaced dropout found in 1 target; Δ unknown at 1 norm" in out
    assert run(["net.py:Net", "--input", "16x8", "--no-cache", "--strict"]) == 1


def test_what_chance_decides_is_a_note_and_no_finding_that_comes_and_goes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(NOISY)
    reports = [report(capsys, "net.py:ByChance") for _ in range(3)]
    assert reports[0] == reports[1] == reports[2]
    assert any("random.random" in note for note in reports[0]["notes"])  # type: ignore[attr-defined]


def test_a_dropout_that_always_drops_shifts_nothing_and_is_told_of(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(NOISY)
    found = report(capsys, "net.py:monte_carlo")
    assert [item["code"] for item in found["findings"]] == ["DL401"]  # type: ignore[attr-defined]
    assert [item["delta"] for item in found["predictions"]] == [1.0]  # type: ignore[attr-defined]


def test_a_path_that_test_mode_never_takes_has_no_finding(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(NOISY)
    assert report(capsys, "net.py:TrainingOnly")["findings"] == []


class Shaken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.drop, self.bn = nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a: torch.Tensor | float = torch.rand(x.shape[0], 1) if self.training else 0.5
        return self.bn(a * self.fc(x) + (1 - a) * self.drop(x))  # type: ignore[no-any-return]


def test_reports_do_not_depend_on_what_was_linted_before() -> None:
    def lint(model: nn.Module) -> str:
        return dl.lint(model, torch.ones(16, 8)).to_json()

    shaken, plain = Shaken(), nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
    first = lint(shaken), lint(plain)
    torch.rand(7)
    assert (lint(plain), lint(shaken)) == first[::-1]
    assert '"DL401"' not in first[0], "test mode has .5, and draws nothing"


class MaskedTwice(nn.Module):
    """One draw masks the input through a matrix, so that its ratio is not read, and is then a plain mask."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.fc, self.bn2 = nn.BatchNorm1d(8), nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.register_buffer("groups", torch.eye(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        prior = torch.ones(x.shape)
        if self.training:
            dropped = torch.bernoulli(0.3 * torch.ones(x.shape))
            x, prior = (1 - dropped @ self.groups) * x, 1 - dropped
        return self.bn2(self.fc(self.bn1(x)) * prior)  # type: ignore[no-any-return]  # a module's call is Any


def test_a_mask_of_unknown_ratio_stays_unknown_behind_another_use_of_its_draw() -> None:
    (target,) = json.loads(dl.lint(MaskedTwice(), torch.randn(16, 8)).to_json())["targets"]
    assert {entry["norm"]: entry["delta"] for entry in target["predictions"]} == {"bn1": None, "bn2": None}
