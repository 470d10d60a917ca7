"""Many targets in processes of their own: the order is kept, a crash or a hang is one target's matter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dropout_lint.cli import run

SOURCE = """\
import os
import time

from torch import nn


def good():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


def bad():
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))


def crashing():
    os.abort()


def hanging():
    time.sleep(600)


def leaving():
    os._exit(3)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_crashes_and_hangs_stay_with_their_target(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = [f"net.py:{name}" for name in ("bad", "crashing", "hanging", "leaving", "good")]
    assert run([*names, "-j", "2", "--timeout", "8", "--output-format", "json", "--no-cache"]) == 2
    out, err = capfd.readouterr()
    targets = json.loads(out)["targets"]
    assert [target["target"] for target in targets] == names
    assert [target["status"] for target in targets] == ["ok", "error", "error", "error", "ok"]
    assert [finding["code"] for finding in targets[0]["findings"]] == ["DL101"]
    assert "SIGABRT" in targets[1]["error"]
    assert "took longer than 8 s" in targets[2]["error"]
    assert "exit status 3" in targets[3]["error"]
    assert "net.py:hanging: took longer" in err
