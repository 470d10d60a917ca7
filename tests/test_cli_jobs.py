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


def test_a_crash_stays_with_its_target(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = [f"net.py:{name}" for name in ("bad", "crashing", "leaving", "good")]
    assert run([*names, "-j", "2", "--output-format", "json", "--no-cache"]) == 2
    out, err = capfd.readouterr()
    targets = json.loads(out)["targets"]
    assert [target["target"] for target in targets] == names
    assert [target["status"] for target in targets] == ["ok", "error", "error", "ok"]
    assert "DL101" in [finding["code"] for finding in targets[0]["findings"]]
    assert "SIGABRT" in targets[1]["error"]
    assert "exit status 3" in targets[2]["error"]
    assert "net.py:crashing: the process that linted it died" in err


def test_a_hang_ends_and_the_next_target_is_looked_at(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["net.py:hanging", "none.py:x", "--timeout", "3", "--output-format", "json", "--no-cache"]) == 2
    )
    targets = json.loads(capfd.readouterr().out)["targets"]
    assert "took longer than 3 s" in targets[0]["error"]
    assert targets[1]["target"] == "none.py:x"
    assert targets[1]["status"] == "error"
