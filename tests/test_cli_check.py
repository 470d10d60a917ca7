"""`dropout-lint` as a user runs it: exit statuses, stdout and stderr, every kind of error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_project import INPUT, MODEL, ROOT, run_in, table

from dropout_lint.cli import run


def test_findings_give_1_and_a_report_on_stdout(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["net.py:Bad", *INPUT]) == 1
    out, err = capsys.readouterr()
    assert "error[DL101]" in out
    assert "self.bn(self.drop(self.conv1(x)))" in out
    assert "2 times on this line: blocks.0.drop, blocks.1.drop" in out
    assert out.rstrip().splitlines()[-1].startswith("Found 2 errors in 1 target")
    assert err == ""


def test_check_is_the_same_as_no_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["net.py:Bad", *INPUT])
    first = capsys.readouterr().out
    run(["check", "net.py:Bad", *INPUT])
    assert capsys.readouterr().out == first


def test_a_clean_model_gives_0(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["net.py:Good", *INPUT]) == 0
    assert "No misplaced dropout found in 1 target." in capsys.readouterr().out


def test_what_the_users_code_prints_goes_to_stderr(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = here / "loud.py"
    script.write_text(
        MODEL.replace('print("building")', 'print("building"); import os; os.system("echo from the shell")')
    )
    assert run(["loud.py:loud", *INPUT, "--output-format", "json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["targets"][0]["status"] == "ok"
    assert "building" in err
    assert "from the shell" in err


def test_one_failing_target_does_not_stop_the_others_and_2_wins(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["net.py:broken", "net.py:Bad", "nope.py:x", *INPUT, "--output-format", "json"]) == 2
    out, err = capsys.readouterr()
    targets = json.loads(out)["targets"]
    assert [target["status"] for target in targets] == ["error", "ok", "error"]
    assert len(targets[1]["findings"]) == 2
    assert "no weights here" in err
    assert err.count("error: ") == 2
    assert err.count("help: ") == 2
    assert "Traceback (most recent call last)" not in err.split("no weights here")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chekc"], ["'chekc' is no command and no target", "did you mean `dropout-lint check`?"]),
        (["check", "net.py:Bad", "--selct", "DL1"], ["--selct", "--select"]),
        (["net.py:Bad", "--select", "DL999"], ["DL999"]),
        (["net.py:Bad", "--select", ""], ["--select names no rule", "`--select DL1`"]),
        (["net.py:Bad", "--ignore", " , "], ["--ignore names no rule"]),
        (["net"], ["'net' is no command and no target", "name what to build: `net:attr`"]),
        (
            ["net.py:Bad", "--output-format", "json", "--output-format", "text"],
            ["json and text cannot both go to stdout", "give one of them a file: json=report.json"],
        ),
        (["net.py:Bad", "--output-format", "jsn"], ["unknown output format 'jsn'", "did you mean json?"]),
        (["net.py:Bad", "--output-format", "json", "--output-format", "sarif"], ["cannot both go to stdout"]),
        (["net.py:Bad", "--output-format", "json=a", "--output-file", "b"], ["--output-file"]),
        (["net.py:Bad", "--delta-threshold", "2"], ["--delta-threshold"]),
        (["net.py:Bad", "--config", "none.toml"], ["no such configuration file: none.toml"]),
        (["net.py:Bad", "--baseline", "none.json"], ["no such baseline: none.json", "--write-baseline"]),
        (["rule", "DL110"], ["DL110", "`dropout-lint rule` lists them all"]),
        ([], ["no target was named and none is configured", "path/to/model.py"]),
    ],
)
def test_bad_usage_is_one_line_a_hint_and_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "\nhelp: " in err
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_a_wrong_configuration_is_2_and_names_the_key(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here, "selct = []")
    assert run(["net.py:Bad"]) == 2
    assert "pyproject.toml: unknown key `selct`" in capsys.readouterr().err


def test_ctrl_c_is_130(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["net.py:interrupted", *INPUT]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_from_the_keyboard_is_130(here: Path) -> None:
    (here / "slow.py").write_text(
        "import time\ndef build():\n    open('started', 'w').close()\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "from dropout_lint.cli import main; main()", "slow.py:build"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (here / "started").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_closed_pipe_is_silent(here: Path) -> None:
    program = f"{sys.executable} -c 'from dropout_lint.cli import main; main()'"
    line = f"{program} net.py:Bad --input 2x3x8x8 | head -c 1 | cat"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr == ""


def test_verbose_shows_the_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["net.py:broken", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_fail_on_and_exit_zero(here: Path) -> None:
    quiet = ["--output-format", "concise", *INPUT]
    assert run(["net.py:Bad", "--exit-zero", *quiet]) == 0
    assert run(["net.py:Bad", "--ignore", "DL1,DL2", "--ignore", "dl3", *quiet]) == 0
    assert run(["net.py:Bad", "--fail-on", "error", *quiet]) == 1
    assert run(["net.py:broken", "--exit-zero", *quiet]) == 2


def test_select_and_ignore(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["net.py:Bad", "--select", "dl101,DL102", "--output-format", "json", *INPUT])
    found = json.loads(capsys.readouterr().out)["targets"][0]["findings"]
    assert {entry["code"] for entry in found} == {"DL101"}


def test_quiet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["-q", "net.py:Bad", *INPUT])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_show_predictions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["net.py:Bad", *INPUT, "--show-predictions"])
    assert "Predicted Δ at every norm" in capsys.readouterr().out


def test_configured_targets_are_linted_with_their_own_options(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(
        here,
        'output-format = "json"\ntargets = ["net.py:Good", {target = "net.py:Bad(depth=1)", '
        'input = ["4x3x6x6"], ignore = ["DL1", "DL2", "DL3"]}]',
    )
    assert run([]) == 0
    targets = json.loads(capsys.readouterr().out)["targets"]
    assert [target["target"] for target in targets] == ["net.py:Good", "net.py:Bad(depth=1)"]
    assert targets[1]["inputs"] == ["4x3x6x6"]
    assert targets[1]["findings"] == []


def test_the_command_line_wins_over_a_targets_own_options(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(here, 'targets = [{target = "net.py:Bad", input = ["4x3x6x6"], ignore = ["DL1"]}]')
    run(["net.py:Bad", "--ignore", "DL2", "--input", "2x3x8x8", "--output-format", "json"])
    target = json.loads(capsys.readouterr().out)["targets"][0]
    assert target["inputs"] == ["2x3x8x8"]
    assert {entry["code"] for entry in target["findings"]} == {"DL101"}


def test_configured_dropout_classes_are_seen(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = MODEL.replace("nn.Dropout(p)", "Noise(p)").replace(
        "class Block",
        "class Noise(nn.Module):\n    def __init__(self, rate):\n        super().__init__()\n"
        "        self.rate = rate\n\n"
        "    def forward(self, x):\n        return x * (torch.rand_like(x) > self.rate)\n\n\nclass Block",
    )
    (here / "net.py").write_text(text)
    table(here, '[tool.dropout-lint.dropouts]\nNoise = { p = "rate" }')
    assert run(["net.py:Bad", *INPUT, "--output-format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)["targets"][0]["findings"]
    assert {entry["dropout"]["kind"] for entry in found} == {"Noise"}


def test_show_settings_says_where_each_comes_from(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here, "strict = true")
    assert run(["check", "--show-settings", "--fail-on", "error"]) == 0
    out = capsys.readouterr().out
    assert "strict = true  # file" in out
    assert 'fail-on = "error"  # command line' in out
    assert "delta-threshold = 0.95  # default" in out


def test_show_settings_calls_only_that_typed_which_was(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table(here, 'strict = true\nfail-on = "warning"\ndelta-threshold = 0.9')
    (here / "sub").mkdir()
    monkeypatch.chdir(here / "sub")
    assert run(["check", "--show-settings", "--no-cache", "--delta-threshold", "0.8"]) == 0
    out = capsys.readouterr().out
    assert f'cache-dir = "{here / ".dropout_lint_cache"}"  # default' in out
    assert "cache = false  # command line" in out
    assert "delta-threshold = 0.8  # command line" in out
    assert 'fail-on = "warning"  # file' in out


@pytest.mark.parametrize("command", [["check"], ["check", "-j", "2"], ["fix"]], ids=" ".join)
def test_configured_modules_are_found_from_a_subfolder(here: Path, command: list[str]) -> None:
    table(here, 'targets = [{ target = "net:Good", input = ["2x3x8x8"] }]')
    (here / "sub" / "deep").mkdir(parents=True)
    done = run_in(here / "sub" / "deep", *command)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--delta-threshold", "abc"], "'abc' is not a number"),
        (["--jobs", "x"], "'x' is not a whole number"),
    ],
)
def test_what_is_no_number_is_told_in_plain_words(
    here: Path, capsys: pytest.CaptureFixture[str], option: list[str], told: str
) -> None:
    assert run(["net.py", *option]) == 2
    assert capsys.readouterr().err.splitlines()[0].endswith(told)


def test_at_a_terminal_a_failed_target_is_told_once(here: Path) -> None:
    pty = pytest.importorskip("pty")
    reader, terminal = pty.openpty()
    with open(reader, "rb", buffering=0) as shown:  # noqa: PTH123 - no path: a descriptor
        subprocess.run(
            [sys.executable, "-m", "dropout_lint", "net.py:broken", "net.py:Good", *INPUT, "--no-cache"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
            stdout=terminal,
            stderr=terminal,
            check=False,
        )
        os.close(terminal)
        text = " ".join(shown.read(1 << 16).decode().split())
    assert text.count("building `net.py:broken` raised ValueError: no weights here") == 1
    assert "1 target could not be linted" in text


def test_a_file_without_a_model_is_an_error_unless_allowed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "util.py").write_text("WIDTH = 3\n")
    assert run(["util.py"]) == 2
    assert "found no model in util.py" in capsys.readouterr().err
    assert run(["util.py", "--allow-empty"]) == 0
    assert capsys.readouterr().out == "Nothing to lint.\n"
    assert run(["util.py", "net.py:Bad", "--allow-empty", *INPUT]) == 1


def test_validate_measures_before_and_after_the_fix(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["net.py:Bad(depth=1)", "--input", "4x3x8x8", "--validate", "--output-format", "json"]) == 1
    target = json.loads(capsys.readouterr().out)["targets"][0]
    measured = {entry["norm"]: entry for entry in target["measurements"]}
    predicted = {entry["norm"]: entry["delta_initial"] for entry in target["predictions"]}
    assert measured["blocks.0.bn"]["delta"] == pytest.approx(predicted["blocks.0.bn"], abs=0.1)
    assert measured["blocks.0.bn"]["after_fix"] == pytest.approx(1, abs=0.02)
