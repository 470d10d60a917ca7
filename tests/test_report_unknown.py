"""What the report says where Δ is not known, and where a low one is let pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dropout_lint.cli import run
from dropout_lint.prediction import predict
from dropout_lint.survey.exempt import exempt_shifts
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import trace

BATCH = """\
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn0 = nn.BatchNorm1d(7)
        self.fc, self.drop, self.bn = nn.Linear(7, 8), nn.Dropout(0.25), nn.BatchNorm1d(8)

    def forward(self, batch):
        return self.bn(self.drop(self.fc(self.bn0(batch.frame("tabular")))))
"""
RESIDUAL = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, p, place):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.place = nn.Dropout(p), place

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x)))
        if self.place == "end":
            return torch.relu(x + self.drop(self.bn2(self.conv2(h))))
        return torch.relu(x + self.bn2(self.drop(self.conv2(h))))


def build(p=0.5, place="end"):
    return nn.Sequential(nn.Conv2d(3, 8, 3), Block(p, place), Block(p, place), nn.Flatten(), nn.LazyLinear(2))
"""


def test_without_shapes_a_shift_is_unknown_and_not_harmless(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(BATCH)
    assert run(["net.py:Net", "--show-predictions", "--no-cache"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "Net, no input, 7 operations traced (symbolic)" in out
    assert "is a guess" not in out
    assert "nothing is known about Δ at bn (no shapes are known there)" in out
    assert (
        "give one with --input, lists and other objects as `example_inputs = (…,)` in the model's file" in out
    )
    assert "error[DL101]" in out and "Δ unknown at bn" in out
    assert "bn0 1.00 1.00 harmless bn unknown unknown unknown" in out, "no dropout comes before it"
    assert "bn 1.00" not in out


def test_without_shapes_strict_fails_where_no_rule_fires(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(BATCH)
    assert run(["net.py:Net", "--ignore", "DL101", "--no-cache"]) == 0
    assert run(["net.py:Net", "--ignore", "DL101", "--no-cache", "--strict"]) == 1


def test_unknown_deltas_of_a_graph_without_shapes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.drop, self.bn = nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

        def forward(self, batch: Any) -> Any:
            return self.bn(self.drop(self.fc(batch.frame("x"))))

    found = trace(Net())
    seen = survey(found, predict(found))
    assert seen.shifts[0].delta is None
    assert seen.placements[0].facts.delta is None


def test_a_shift_that_the_rules_let_pass_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "net.py").write_text(RESIDUAL)
    assert run(["net.py:build", "--input", "2x3x16x16", "--output-format", "json", "--no-cache"]) == 0
    target = json.loads(capsys.readouterr().out)["targets"][0]
    low = min(target["predictions"], key=lambda item: item["delta"])
    assert low["delta_initial"] < 0.6 and low["delta"] < 0.9
    (note,) = [note for note in target["notes"] if "guideline" in note]
    assert note.startswith("2 norms are beyond the threshold") and "dropout-lint rule DL102" in note
    assert f"worst Δ {low['delta']:.2f} (" in note
    assert f" at {low['norm']}, expected after training" in note


@pytest.mark.parametrize("call", ["build(p=0.0)", "build(p=0.01)", 'build(place="before")'])
def test_nothing_is_said_of_shifts_that_are_small_or_found(
    here: Path, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    (here / "net.py").write_text(RESIDUAL)
    run([f"net.py:{call}", "--input", "2x3x16x16", "--no-cache"])
    assert "guideline puts" not in capsys.readouterr().out


def test_no_finding_and_no_dropout_is_no_exemption() -> None:
    found = trace(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)))
    assert not exempt_shifts(survey(found, predict(found)), (), 0.95)


SINC = """\
import torch
from torch import nn

example_inputs = (torch.randn(32, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn0, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.fc, self.bn = nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, x):
        return self.bn(self.fc(torch.sinc(self.drop(self.bn0(x)))))
"""


def test_a_figure_behind_an_operation_without_a_rule_is_marked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(SINC)
    run(["net.py:Net", "--show-predictions", "--no-cache"])
    out = capsys.readouterr().out
    assert "bn   ≈ 0." in out and "bn0  1.00" in out
    assert "Δ is approximate behind sinc" in " ".join(out.split())
    run(["net.py:Net", "--output-format", "json", "--no-cache"])
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert [item["approximate"] for item in target["predictions"]] == [[], ["sinc"]]


WANTS_TARGETS = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.bn0 = nn.Linear(7, 8), nn.BatchNorm1d(8)
        self.drop, self.bn = nn.Dropout(0.25), nn.BatchNorm1d(8)

    def forward(self, x, y=None):
        h = self.fc(x)
        if self.training:
            h = h + torch.randn_like(h) * y.sum()
        return self.bn(self.drop(self.bn0(h)))
"""


def test_where_train_mode_is_not_seen_no_norm_is_harmless(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(WANTS_TARGETS)
    assert run(["net.py:Net", "--input", "4x7", "--show-predictions", "--no-cache"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "Δ at bn0 (train mode was not seen)" in out
    assert "bn0 unknown unknown unknown" in out and "bn 0.7" in out


PARTS = """\
from torch import nn


class First(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop = nn.Linear(7, 8), nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.fc(x))


class Second(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.bn0 = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.drop, self.bn = nn.Dropout(0.5), nn.BatchNorm1d(8)

    def forward(self, x):
        return self.bn(self.drop(self.bn0(self.fc(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = First(), Second()

    def forward(self, batch, settings):
        assert settings.name == "flat"
        return self.second(self.first(batch.frame(settings.name)))
"""


def test_in_parts_that_stand_alone_no_norm_is_harmless_and_no_dropout_the_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(PARTS)
    assert run(["net.py:Net", "--show-predictions", "--no-cache"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "Δ at second.bn0 (what comes before its part was not seen)" in out
    assert "second.bn0 unknown unknown unknown" in out
    assert "DL101" in out and "second.bn 0.5" in out
    assert "DL302" not in out, "the output of a part is not that of the model"
