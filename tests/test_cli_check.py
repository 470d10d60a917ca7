"""`dropout-lint` as a user runs it: exit statuses, stdout and stderr, every kind of error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dropout_lint.cli import run

ROOT = Path(__file__).parents[1]

MODEL = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, p):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.drop = nn.Dropout(p)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(self.bn(self.drop(self.conv1(x))))


class Bad(nn.Module):
    def __init__(self, p=0.5, depth=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(8, p) for _ in range(depth)))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.drop(torch.relu(self.bn(self.conv(x)))).mean((2, 3)))


def loud():
    print("building")
    return Good()


def broken():
    raise ValueError("no weights here")


def interrupted():
    raise KeyboardInterrupt
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "net.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def edit(file: Path, text: str) -> None:
    """Write `file`, and let the next run in this process import it anew, as a new process would."""
    file.write_text(text)
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == str(file):
            del sys.modules[name]


INPUT = ("--input", "2x3x8x8")


def table(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.dropout-lint]\n{text}\n")


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


def test_what_the_users_code_prints_goes_to_stderr(here: Path) -> None:
    script = here / "loud.py"
    script.write_text(
        MODEL.replace('print("building")', 'print("building"); import os; os.system("echo from the shell")')
    )
    done = cli("loud.py:loud", *INPUT, "--output-format", "json", cwd=here)
    assert done.returncode == 0
    assert json.loads(done.stdout)["targets"][0]["status"] == "ok"
    assert "building" in done.stderr
    assert "from the shell" in done.stderr


def cli(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", "from dropout_lint.cli import main; main()", *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


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


def test_ignore_comment_then_unused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["net.py:Bad", *INPUT, "--add-ignores"]) == 0
    edit(here / "net.py", (here / "net.py").read_text())
    assert "added 1 ignore comment to net.py" in capsys.readouterr().err
    assert run(["net.py:Bad", *INPUT]) == 0
    assert "2 suppressed" in capsys.readouterr().out
    text = (here / "net.py").read_text()
    edit(here / "net.py", text.replace("Block(8, p)", "Block(8, 0.0)"))
    assert run(["net.py:Bad", *INPUT]) == 0
    assert "unused ignore" in capsys.readouterr().out
    assert run(["net.py:Bad", *INPUT, "--strict"]) == 1


def test_baseline_write_use_outgrow_prune(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["net.py:Bad", *INPUT, "--baseline", "known.json", "--write-baseline"]) == 0
    assert "wrote 2 known findings to known.json" in capsys.readouterr().err
    text = (here / "net.py").read_text()
    edit(here / "net.py", "# moved\n\n" + text)
    assert run(["net.py:Bad", *INPUT, "--baseline", "known.json"]) == 0
    assert "2 in the baseline" in capsys.readouterr().out
    edit(here / "net.py", text.replace("depth=2", "depth=3"))
    assert run(["net.py:Bad", *INPUT, "--baseline", "known.json"]) == 1
    edit(here / "net.py", text.replace("depth=2", "depth=1"))
    assert run(["net.py:Bad", *INPUT, "--baseline", "known.json"]) == 1
    assert "no longer occurs" in capsys.readouterr().out
    assert run(["net.py:Bad", *INPUT, "--baseline", "known.json", "--write-baseline"]) == 0
    assert run(["net.py:Bad", *INPUT, "--baseline", "known.json"]) == 0


TWO = (
    MODEL
    + """

class Other(Bad):
    def __init__(self):
        super().__init__(depth=3)
"""
)


@pytest.mark.parametrize("named", [[], ["--baseline", "known.json"]])
def test_writing_a_baseline_keeps_what_the_run_did_not_look_for(
    here: Path, capsys: pytest.CaptureFixture[str], named: list[str]
) -> None:
    spare = "self.spare = nn.Dropout(0.5)\n        self.fc"
    (here / "net.py").write_text(TWO.replace("self.fc", spare, 1))
    file = here / (named[-1] if named else ".dropout-lint-baseline.json")
    models, quiet = ["net.py:Bad", "net.py:Other"], [*INPUT, "--output-format", "json=out.json", *named]
    run([*models, *quiet, "--write-baseline"])
    whole, err = file.read_text(), capsys.readouterr().err
    codes = [entry["code"] for entries in json.loads(whole)["targets"].values() for entry in entries]
    others = len(codes) - codes.count("DL101")
    assert codes.count("DL101") == 5 and others
    assert f"wrote {len(codes)} known findings to {file.name}\n" in err
    run(["net.py:Bad", *quiet, "--write-baseline"])
    assert file.read_text() == whole
    assert "of them kept, which this run did not look for" in capsys.readouterr().err
    run([*models, *quiet, "--select", "DL101", "--write-baseline"])
    assert file.read_text() == whole
    kept = f"wrote {len(codes)} known findings to {file.name}, {others} of them kept"
    assert kept in capsys.readouterr().err
    table(here, 'targets = [{target = "net.py:Bad", select = ["DL101"]}, "net.py:Other"]')
    run([*quiet, "--write-baseline"])
    assert file.read_text() == whole
    text = (here / "net.py").read_text()
    edit(here / "net.py", text.replace("depth=2", "depth=1"))
    run([*models, *quiet, "--write-baseline"])
    assert json.loads(file.read_text())["targets"].keys() == set(models)
    assert file.read_text().count("DL101") == 4


def test_an_ignore_of_a_rule_that_a_configured_target_leaves_out_is_not_unused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = MODEL.replace("nn.Dropout(p)", "nn.Dropout(p)  # dropout-lint: ignore[DL101]")
    (here / "net.py").write_text(text)
    table(here, 'targets = [{target = "net.py:Bad", ignore = ["DL1"]}]')
    run([*INPUT])
    assert "unused ignore" not in capsys.readouterr().out


def test_ignores_that_cannot_be_written_are_one_error_and_no_bug(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "other.py").write_text(MODEL)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", refused)
        assert run(["net.py:Bad", *INPUT, "--add-ignores"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err == "error: cannot write net.py: Permission denied\nhelp: check the folder; nothing was changed\n"
    )
    before = {path.name for path in here.iterdir()}
    replace = Path.replace

    def refuse_others(path: Path, target: Path | str) -> Path:
        return refused() if Path(target).name == "other.py" else replace(path, target)  # type: ignore[func-returns-value]

    monkeypatch.setattr(Path, "replace", refuse_others)
    assert run(["net.py:Bad", "other.py:Bad", *INPUT, "--add-ignores"]) == 2
    err = capsys.readouterr().err
    assert "cannot write other.py: Permission denied\nhelp: check the folder; only net.py got comments" in err
    assert {path.name for path in here.iterdir()} == before
    assert (here / "other.py").read_text() == MODEL


def test_a_discovered_folder_lists_every_model_in_order(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = here / "models"
    package.mkdir()
    (package / "b.py").write_text(MODEL)
    (package / "a.py").write_text(MODEL.partition("def loud")[0])
    run(["models", *INPUT, "--output-format", "json"])
    names = [target["target"] for target in json.loads(capsys.readouterr().out)["targets"]]
    assert any("a.py" in name and "Bad" in name for name in names)
    assert any("b.py" in name and "Bad" in name for name in names)


CLEAN = (
    MODEL.partition("class Block")[0] + "class Good" + MODEL.partition("class Good")[2].partition("def l")[0]
)
BROKEN = {
    "syntax": ("def (\n", "SyntaxError"),
    "import": ("import nowhere_at_all\n" + CLEAN, "needs `nowhere_at_all`"),
    "constructor": (CLEAN.replace("super().__init__()", "raise ValueError('not today')"), "not today"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("jobs", [[], ["-j", "2"]])
def test_what_of_a_folder_could_not_be_looked_at_is_noted_and_fails_when_strict(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str, jobs: list[str]
) -> None:
    text, cause = BROKEN[kind]
    (here / "nets").mkdir()
    (here / "nets" / "ok.py").write_text(CLEAN)
    (here / "nets" / "bad.py").write_text(text)
    for _ in range(2):  # the second time from the cache
        assert run(["nets", *INPUT, *jobs]) == 0
        out, err = capsys.readouterr()
        assert "Note: nets/bad.py" in out and cause in " ".join(out.split())
        assert err == ""
    assert run(["nets", *INPUT, *jobs, "--strict", "--output-format", "concise"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and cause in err and "\nhelp: mend it, or leave out `strict`" in err
    assert run(["nets", *INPUT, *jobs, "--strict", "--exit-zero"]) == 0
    table(here, 'targets = [{target = "nets", strict = true}]')
    assert run([*INPUT, *jobs]) == 1


def test_a_broken_file_alone_in_a_folder_is_told_even_where_none_need_hold_a_model(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "nets").mkdir()
    (here / "nets" / "bad.py").write_text("def (\n")
    page = ["--output-format", "text", "--output-format", "html=page.html"]
    assert run(["nets", "--allow-empty", *page]) == 0
    assert "nets/bad.py was passed over" in capsys.readouterr().out
    assert "nets/bad.py was passed over" in (here / "page.html").read_text()
    assert run(["nets", "--allow-empty", "--strict"]) == 1


def test_notes_stay_when_the_first_model_of_a_folder_fails(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "nets").mkdir()
    (here / "nets" / "aa.py").write_text(
        CLEAN.replace("return self", "raise ValueError('no run') or self").replace("Good", "Fails")
        + BROKEN["constructor"][0].replace("Good", "Raises")
    )
    (here / "nets" / "zz.py").write_text(BROKEN["import"][0])
    page = ["--output-format", "text", "--output-format", "html=page.html", "--output-format", "json=a.json"]
    assert run(["nets", *INPUT, *page]) == 2
    (target,) = json.loads((here / "a.json").read_text())["targets"]
    assert target["target"] == "nets/aa.py:Fails" and target["status"] == "error"
    assert [note.partition(" was passed over")[0] for note in target["notes"]] == [
        "nets/aa.py:Raises",
        "nets/zz.py",
    ]
    for text in (capsys.readouterr().out, (here / "page.html").read_text()):
        assert "nets/aa.py:Raises was passed over" in text
        assert "nets/zz.py was passed over" in text


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
    predicted = {entry["norm"]: entry["delta"] for entry in target["predictions"]}
    assert measured["blocks.0.bn"]["delta"] == pytest.approx(predicted["blocks.0.bn"], abs=0.1)
    assert measured["blocks.0.bn"]["after_fix"] == pytest.approx(1, abs=0.02)
