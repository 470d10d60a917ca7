"""Reports on stdout and in files: formats side by side, colour, files that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_project import INPUT, ROOT

from dropout_lint.cli import run


def test_several_formats_in_one_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "out").mkdir()
    assert (
        run(
            [
                "net.py:Bad",
                *INPUT,
                "--output-format",
                "sarif=out/report.sarif",
                "--output-format",
                "github",
                "--output-format",
                "json=report.json",
            ]
        )
        == 1
    )
    out, err = capsys.readouterr()
    assert out.startswith("::error file=net.py,line=13,")
    assert err == "wrote out/report.sarif and report.json: 2 errors\n"
    assert json.loads((here / "out" / "report.sarif").read_text())["version"] == "2.1.0"
    assert json.loads((here / "report.json").read_text())["summary"]["error"] == 2


def test_output_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["net.py:Bad", *INPUT, "--output-file", "report.txt"])
    assert capsys.readouterr() == ("", "wrote report.txt: 2 errors\n")
    run(["net.py:Bad", *INPUT, "--output-file", "report.txt", "--quiet"])
    assert capsys.readouterr() == ("", "")
    run(["net.py:Bad", *INPUT, "--output-file", "report.txt"])
    assert "error[DL101]" in (here / "report.txt").read_text()
    assert "\x1b" not in (here / "report.txt").read_text()


def test_an_output_file_that_cannot_be_written_is_2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["net.py:Bad", *INPUT, "--output-file", "net.py/report.txt"]) == 2
    assert "cannot write net.py/report.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--output-format", "json=reports/a.json"],
        ["--output-file", "reports/a.txt"],
        ["--write-baseline", "--baseline", "reports/known.json"],
    ],
)
def test_a_missing_output_folder_is_named_and_not_made(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert run(["net.py:Bad", *INPUT, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "there is no folder reports" in err
    assert not (here / "reports").exists()


def test_two_formats_never_share_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "out").mkdir()
    both = ["--output-format", "json=a.txt", "--output-format", "sarif=out/../a.txt"]
    assert run(["net.py:Bad", *INPUT, *both]) == 2
    assert "json and sarif would both go to out/../a.txt" in capsys.readouterr().err
    assert not (here / "a.txt").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
@pytest.mark.parametrize("arguments", [["net.py:Bad", *INPUT, "--output-format", "json"], ["rule"]])
def test_a_full_disk_is_one_line_and_no_bug(here: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dropout_lint", *arguments],
            cwd=here,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the report: No space left on device\n"


def test_an_output_file_that_is_a_pipe_is_written_to(here: Path) -> None:
    pipe = here / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run(["net.py:Good", *INPUT, "--output-file", "pipe"]) == 0
        assert b"No misplaced dropout" in os.read(reader, 65536)
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("environment", "colored"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colour(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    colored: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run(["net.py:Bad", *INPUT])
    assert ("\x1b[" in capsys.readouterr().out) is colored
