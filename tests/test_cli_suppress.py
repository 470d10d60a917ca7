"""Ignore comments, `--add-ignores` and the baseline, from the command line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from cli_project import INPUT, MODEL, edit, table

from dropout_lint.cli import run


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
