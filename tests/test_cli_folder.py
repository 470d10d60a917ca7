"""Folders as targets: what is found in them, and what could not be looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_project import INPUT, MODEL, table

from dropout_lint.cli import run


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


@pytest.mark.parametrize(
    ("kinds", "jobs"), [*(([kind], []) for kind in BROKEN), ([*BROKEN], ["-j", "2"])], ids=str
)
def test_what_of_a_folder_could_not_be_looked_at_is_noted_and_fails_when_strict(
    here: Path, capsys: pytest.CaptureFixture[str], kinds: list[str], jobs: list[str]
) -> None:
    (here / "nets").mkdir()
    (here / "nets" / "ok.py").write_text(CLEAN)
    for kind in kinds:
        (here / "nets" / f"bad_{kind}.py").write_text(BROKEN[kind][0])
    causes = [BROKEN[kind][1] for kind in kinds]
    for _ in range(2):  # the second time from the cache
        assert run(["nets", *INPUT, *jobs]) == 0
        out, err = capsys.readouterr()
        assert all(f"Note: nets/bad_{kind}.py" in out for kind in kinds)
        assert all(cause in " ".join(out.split()) for cause in causes)
        assert err == ""
    assert run(["nets", *INPUT, *jobs, "--strict", "--output-format", "concise"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and all(cause in err for cause in causes)
    assert "\nhelp: mend it, or leave out `strict`" in err
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
