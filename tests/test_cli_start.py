"""Help, versions, rules, completion: all without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropout_lint.cli import COMMANDS, run

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["check", "--help"],
        ["rule"],
        ["rule", "DL101"],
        ["x:y", "--select", "DL999"],
        ["x:y", "--config", "none.toml"],
        ["nonsense"],
        ["check", "--show-settings"],
    ],
    ids=" ".join,
)
def test_never_imports_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom dropout_lint.cli import run\n"
        f"run({arguments!r})\nassert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_help_lists_the_commands_and_the_kinds_of_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert name in out
    assert "package.module:attr" in out
    assert "Exit status" in out


def test_help_of_check_names_every_option_of_the_design(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--help"]) == 0
    out = capsys.readouterr().out
    for option in (
        "--input",
        "--checkpoint",
        "--select",
        "--ignore",
        "--output-format",
        "--output-file",
        "--baseline",
        "--write-baseline",
        "--show-predictions",
        "--delta-threshold",
        "--exit-zero",
        "--fail-on",
        "--strict",
        "--no-cache",
        "--quiet",
        "--verbose",
        "--add-ignores",
        "--show-settings",
        "--validate",
    ):
        assert option in out, option


def test_version_has_torchs(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(["--version"]) == 0
    assert f"torch {version('torch')}" in capsys.readouterr().out


def test_rule_lists_all_and_explains_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rule"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("DL101  error    dropout-before-batch-norm")
    assert [line[:5] for line in lines] == sorted(line[:5] for line in lines)
    assert run(["rule", "dl101"]) == 0
    by_code = capsys.readouterr().out
    assert by_code.startswith("# DL101 dropout-before-batch-norm")
    assert "## Why it hurts" in by_code
    assert run(["rule", "dropout-before-batch-norm"]) == 0
    assert capsys.readouterr().out == by_code


def test_rule_lists_those_that_begin_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rule", "dl3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["DL301", "DL302", "DL303"]
    assert run(["rule", "DL3", "--output-format", "json"]) == 0
    assert [rule["code"] for rule in json.loads(capsys.readouterr().out)] == ["DL301", "DL302", "DL303"]


def test_rule_as_json_and_drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["rule", "--output-format", "json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries[0]["code"] == "DL101"
    assert "Why it hurts" in entries[0]["sections"]
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(["rule", "DL101"]) == 0
    assert "\x1b[" in capsys.readouterr().out


def test_a_projects_own_rule_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lint").mkdir()
    text = next((ROOT / "rules").glob("DL101-*.md")).read_text()
    own = text.replace('"DL101"', '"XX901"').replace('"dropout-before-batch-norm"', '"our-own"')
    (tmp_path / "lint" / "XX901-our-own.md").write_text(own)
    (tmp_path / "pyproject.toml").write_text('[tool.dropout-lint]\nrules = ["lint/"]\n')
    monkeypatch.chdir(tmp_path)
    assert run(["rule", "XX901"]) == 0
    assert capsys.readouterr().out.startswith("# XX901 our-own")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("che", ["plain,check"]),
        ("rule DL10", ["plain,DL101", "plain,DL102", "plain,DL103", "plain,DL104"]),
        ("check --output-format s", ["plain,sarif"]),
        ("models/ne", ["file,models/ne"]),
        ("check models/ne", ["file,models/ne"]),
        ("net.py:Net --stri", ["plain,--strict"]),
        ("check --fail-on w", ["plain,warning"]),
        ("check --select DL50", [f"plain,DL50{digit}" for digit in "1234"]),
        ("check --ignore DL1,dropout-on-p", ["plain,DL1,dropout-on-predictions"]),
    ],
)
def test_completion(words: str, expected: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from dropout_lint.cli import main; main()"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_DROPOUT_LINT_COMPLETE": "bash_complete",
            "COMP_WORDS": f"dropout-lint {words}",
            "COMP_CWORD": str(len(words.split())),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from dropout_lint.cli import main; main()"],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "_DROPOUT_LINT_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
    )
    assert "dropout-lint" in done.stdout
