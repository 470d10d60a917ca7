"""Many targets in processes of their own: the order is kept, a crash or a hang is one target's matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dropout_lint.cli import run
from dropout_lint.runs import processes as workers

ROOT = Path(__file__).parents[1]

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
    open(f"started-{os.getpid()}", "w").close()
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


def test_what_the_processes_kept_is_used_by_the_next_run(here: Path) -> None:
    """However it is started: folders that it searches for modules are part of what a result is kept under."""
    command = [sys.executable, "-m", "dropout_lint", "net.py:bad", "net.py:good", "--output-format", "json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", str(ROOT), str(here / "lib")])}

    def lint(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], cwd=here, env=environment, text=True, capture_output=True, check=False
        )
        return done.stdout

    first = lint("-j", "2")
    kept = {file: file.stat().st_mtime_ns for file in here.glob(".dropout_lint_cache/*.json")}
    assert len(kept) == 2
    assert lint("-j", "2") == lint() == first
    assert {file: file.stat().st_mtime_ns for file in here.glob(".dropout_lint_cache/*.json")} == kept


@pytest.mark.slow
def test_a_hang_ends_and_the_next_target_is_looked_at(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["net.py:hanging", "none.py:x", "--timeout", "3", "--output-format", "json", "--no-cache"]) == 2
    )
    targets = json.loads(capfd.readouterr().out)["targets"]
    assert "took longer than 3 s" in targets[0]["error"]
    assert targets[1]["target"] == "none.py:x"
    assert targets[1]["status"] == "error"


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_takes_the_processes_along(here: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dropout_lint", "net.py:hanging", "-j", "2", "--no-cache"],
        cwd=here, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    started: list[Path] = []
    for _ in range(1200):
        started = list(here.glob("started-*"))
        if started:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "\ninterrupted\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(started[0].name.removeprefix("started-")), 0)


def test_a_worker_that_cannot_start_loses_no_target(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.sys, "executable", str(here / "no-python"))
    assert run(["net.py:good", "net.py:bad", "-j", "2", "--output-format", "json", "--no-cache"]) == 2
    targets = json.loads(capfd.readouterr().out)["targets"]
    assert [target["status"] for target in targets] == ["error", "error"]
    assert "no-python" in targets[0]["error"]
