"""`dropout-lint serve` in a real session: what an editor shows after a save, and what its actions change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_project import ROOT, cli, run_in, table
from editor import Editor

pytestmark = pytest.mark.slow  # each session starts a process, and each save another

NET = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(p)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.bn("🙂" and self.drop(self.conv(x))).relu()
        return self.fc(x.mean((2, 3)))
"""
OTHER = """\
import os

from torch import nn


def build():
    open(f"built-{os.getpid()}", "w").close()
    return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
"""
TARGETS = 'targets = [{ target = "net:Net", input = ["2x3x8x8"] }, "other:build"]'
LINE = 12  # of the dropout's call, from 0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    pytest.importorskip("pygls")
    folder = tmp_path / "a project"  # with what an address has to escape
    folder.mkdir()
    (folder / ".git").mkdir()
    (folder / "net.py").write_text(NET)
    (folder / "other.py").write_text(OTHER)
    table(folder, TARGETS)
    return folder


def actions(editor: Editor, file: str, line: int, **context: Any) -> dict[str, Any]:
    """The code actions on a line, by their titles."""
    asked = {
        "textDocument": {"uri": editor.address(file)},
        "range": {"start": {"line": line, "character": 0}, "end": {"line": line, "character": 0}},
        "context": {"diagnostics": [], **context},
    }
    return {action["title"]: action for action in editor.ask("textDocument/codeAction", asked)}


def applied(text: str, edits: list[Any]) -> str:
    """`text` after edits of whole lines."""
    lines = text.splitlines(keepends=True)
    for edit in sorted(edits, key=lambda edit: edit["range"]["start"]["line"], reverse=True):
        start, end = edit["range"]["start"], edit["range"]["end"]
        assert start["character"] == end["character"] == 0
        lines[start["line"] : end["line"]] = [edit["newText"]]
    return "".join(lines)


def test_findings_are_published_and_the_fix_is_what_the_command_writes(project: Path) -> None:
    with Editor(project) as editor:
        editor.open("net.py")
        found = editor.linted()
        assert set(found) == {"net.py", "other.py"}
        (finding,) = found["net.py"]
        assert (finding["code"], finding["source"], finding["severity"]) == ("DL101", "dropout-lint", 1)
        assert finding["message"].startswith("Dropout (p = 0.5) feeds BatchNorm2d bn")
        start = NET.splitlines()[LINE].index("self.drop") + 1  # the face is two units of UTF-16
        end = start + len("self.drop(self.conv(x))")
        assert finding["range"] == {
            "start": {"line": LINE, "character": start},
            "end": {"line": LINE, "character": end},
        }
        rule = Path(finding["codeDescription"]["href"].removeprefix("file://"))
        assert rule.read_text().startswith("+++")
        assert finding["relatedInformation"][0]["location"]["range"]["start"]["line"] == 7

        offered = actions(editor, "net.py", LINE)
        assert len(offered) == 2
        assert actions(editor, "net.py", 0) == actions(editor, "net.py", LINE, only=["refactor"]) == {}
        fix = next(action for action in offered.values() if "edit" not in action)
        assert fix["title"].startswith("move drop") and fix["diagnostics"] == [finding]
        (change,) = editor.ask("codeAction/resolve", fix)["edit"]["documentChanges"]
        assert change["textDocument"] == {"uri": editor.address("net.py"), "version": 1}
        text = applied(NET, change["edits"])
        done = run_in(project, "fix", "net:Net", "--write")
        assert done.returncode == 0, done.stderr
        assert (project / "net.py").read_text() == text != NET

        editor.save("net.py", text)
        assert set(editor.linted()) == {"other.py"}
        assert len(list(project.glob("built-*"))) == 1  # it does not depend on the file
        assert editor.leave() == 0


def test_an_ignore_comment_can_be_written_and_its_finding_goes(project: Path) -> None:
    table(project, 'targets = [{ target = "net:Net", input = ["2x3x8x8"] }]')
    with Editor(project, able={}) as editor:  # one that can do little
        editor.open("net.py")
        editor.linted()
        offered = actions(editor, "net.py", LINE)
        fix, ignore = offered.values()
        assert "newText" in fix["edit"]["changes"][editor.address("net.py")][0]
        assert ignore["title"] == "ignore DL101 on this line"
        text = applied(NET, ignore["edit"]["changes"][editor.address("net.py")])
        assert text.splitlines()[LINE].endswith("  # dropout-lint: ignore[DL101]")
        editor.save("net.py", text)
        assert editor.linted() == {}
        editor.save("net.py", text.replace("nn.Dropout(p)", "nn.Identity()"))
        (idle,) = editor.linted()["net.py"]
        assert (idle["message"], idle["tags"]) == ("unused ignore of DL101", [1])


def test_nothing_is_offered_for_a_text_that_is_not_saved_and_the_later_save_wins(project: Path) -> None:
    with Editor(project) as editor:
        editor.open("net.py")
        editor.linted()
        stale = next(action for action in actions(editor, "net.py", LINE).values() if "edit" not in action)
        editor.type("net.py", "\n" + NET)
        assert actions(editor, "net.py", LINE) == {}
        answer = editor.ask("codeAction/resolve", stale)  # chosen from a list that was already open
        assert "edit" not in answer
        editor.wait(lambda message: message.get("method") == "window/showMessage")
        editor.save("net.py", NET.replace("p=0.5", "p=0.7"))
        editor.save("net.py", NET.replace("p=0.5", "p=0.0").replace("Net(", "Net("))
        assert set(editor.linted()) == {"other.py"}
        assert not [item for item in editor.aside if item.get("method") == "textDocument/publishDiagnostics"]
        assert "edit" not in editor.ask("codeAction/resolve", stale)


def test_what_fails_is_told_where_it_stands_and_goes_when_it_is_mended(project: Path, tmp_path: Path) -> None:
    with Editor(project) as editor:
        editor.open("net.py")
        editor.linted()
        editor.save("net.py", NET.replace("def forward(self, x):", "def forward(self, x)"))
        (problem,) = editor.linted()["net.py"]
        assert "SyntaxError" in problem["message"] and problem["range"]["start"]["line"] == LINE - 1
        editor.save("net.py", NET.replace("nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3, groups=2)"))
        (problem,) = editor.linted()["net.py"]
        assert "ValueError" in problem["message"] and problem["range"]["start"]["line"] == 6
        assert actions(editor, "net.py", 6) == {}

        (project / "pyproject.toml").write_text("[tool.dropout-lint]\ntargets = [\n  3 4,\n]\n")
        editor.save("pyproject.toml")
        (problem,) = editor.shown("pyproject.toml")
        assert problem["range"]["start"]["line"] == 2 and "not valid TOML" in problem["message"]
        assert editor.diagnostics().keys() == {"pyproject.toml"}
        (project / "pyproject.toml").write_text('[tool.dropout-lint]\ntargets = ["gone:build"]\n')
        editor.save("pyproject.toml")
        (problem,) = editor.linted()["pyproject.toml"]
        assert problem["range"]["start"]["line"] == 1 and "there is no module `gone`" in problem["message"]

        (tmp_path / "elsewhere.py").write_text(NET)
        editor.save("../elsewhere.py")
        editor.ask("codeAction/resolve", {"title": "a request is answered after it"})
        assert not [item for item in editor.aside if item.get("method") == "window/logMessage"]


def test_a_folder_is_linted_file_by_file(project: Path) -> None:
    (project / "nets").mkdir()
    (project / "nets" / "one.py").write_text(NET)
    (project / "nets" / "two.py").write_text(OTHER)
    (project / "nets" / "runs.py").write_text(
        "import torch\n\ntorch.zeros(1, requires_grad=True).backward()\n1 / 0\n"
    )
    (project / "nets" / "needs.py").write_text(
        "import nowhere_at_all\nfrom torch import nn\n\nclass A(nn.Linear): ...\n"
    )
    table(project, 'targets = [{ target = "nets", ignore = ["DL102"] }]')
    with Editor(project) as editor:
        editor.open("nets/one.py")
        assert set(editor.linted()) == {"nets/one.py", "nets/two.py"}
        editor.save("nets/one.py", NET.replace("p=0.5", "p=0.0"))
        assert set(editor.linted()) == {"nets/two.py"}
        assert len(list(project.glob("built-*"))) == 1


def test_a_project_without_targets_is_left_alone(project: Path) -> None:
    (project / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    with Editor(project) as editor:
        message = editor.wait(lambda message: message.get("method") == "window/logMessage")
        assert message["params"]["message"].startswith("no target is configured")
        assert editor.leave() == 0
        assert not editor.aside and editor.arrived.empty()  # no message on the screen


def test_without_pygls_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pygls'] = None; from dropout_lint.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: `dropout-lint serve` needs pygls, which is not installed\n"
        "help: pip install 'dropout-lint[serve]'\n"
    )


def test_a_settings_file_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    pytest.importorskip("pygls")
    done = cli("serve", "--config", "none.toml", cwd=tmp_path, input="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no such configuration file: none.toml\n")
