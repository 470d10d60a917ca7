"""`check --validate`: models measured beside the prediction, in this process or in processes of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cli_project import run_in

MODEL = """
import os
import time

import torch
from torch import nn


class Net(nn.Module):
    example_input = torch.zeros(4, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(0.5)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.bn(self.drop(self.conv(x)))


def of_weights(then):
    class Measured(Net):
        def forward(self, x):
            if self.conv.weight.is_meta or type(x) is not torch.Tensor:
                return super().forward(x)
            then()
            return super().forward(x)

    return Measured


Hangs = of_weights(lambda: time.sleep(1000))
Crashes = of_weights(os.abort)
"""


def check(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, object]]]:
    (folder / "net.py").write_text(MODEL)
    done = run_in(folder, *arguments, "--validate", "--output-format", "json", "--no-cache")
    return done, json.loads(done.stdout)["targets"] if done.stdout else []


@pytest.mark.slow
def test_a_measurement_that_takes_longer_than_the_timeout_leaves_the_findings(tmp_path: Path) -> None:
    done, (target,) = check(tmp_path, "net.py:Hangs", "--timeout", "8")
    assert (done.returncode, done.stderr) == (1, "")
    note = "not measured: linting and measuring took longer than 8 s; raise --timeout"
    assert (target["status"], target["notes"]) == ("ok", [note])
    assert target["findings"] and not target["measurements"]


@pytest.mark.slow
def test_a_measurement_that_takes_the_process_along_leaves_the_other_targets(tmp_path: Path) -> None:
    done, (crashes, good) = check(tmp_path, "net.py:Crashes", "net.py:Net", "-j", "2")
    assert done.returncode == 1, done.stderr
    note = "not measured: the process that worked it out died (SIGABRT)"
    assert (crashes["status"], crashes["notes"]) == ("ok", [note])
    assert crashes["findings"] and not crashes["measurements"]
    assert good["measurements"]


@pytest.mark.slow
def test_a_measurement_is_the_same_kind_of_thing_in_a_process_of_its_own(tmp_path: Path) -> None:
    _, (here,) = check(tmp_path, "net.py:Net")
    _, (there,) = check(tmp_path, "net.py:Net", "-j", "2")
    for key in ("findings", "predictions", "notes"):
        assert here[key] == there[key]
    assert [entry["norm"] for entry in here["measurements"]] == ["bn"]  # type: ignore[index,attr-defined]
    assert here["measurements"][0]["delta"] == pytest.approx(  # type: ignore[index]
        there["measurements"][0]["delta"],  # type: ignore[index]
        abs=0.05,
    )
