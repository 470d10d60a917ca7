"""`dropout-lint fix` as it is typed: stdout is the diff, stderr the words, and the exit status."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dropout_lint.cli import run

MODEL = textwrap.dedent(
    """\
    import torch
    from torch import nn

    print("user code prints")
    example_inputs = (torch.randn(4, 3, 8, 8),)


    class Net(nn.Module):
        def __init__(self, p=0.5):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 8, 3)
            self.drop = nn.Dropout(p)
            self.bn = nn.BatchNorm2d(8)
            self.conv2 = nn.Conv2d(8, 4, 3)

        def forward(self, x):
            x = self.conv1(x)
            x = self.drop(x)
            x = torch.relu(self.bn(x))
            return self.conv2(x)
    """
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "net.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dropout_lint(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from dropout_lint.cli import run; sys.exit(run())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_show_write_and_again(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fix", "net.py:Net"]) == 1
    shown = capsys.readouterr()
    assert (project / "net.py").read_text() == MODEL
    assert shown.out.startswith("--- a/net.py\n+++ b/net.py\n") and "user code" not in shown.out
    assert "nothing was written; --write" in shown.err
    subprocess.run(["git", "apply", "--check", "-"], cwd=project, input=shown.out.encode(), check=True)

    assert run(["fix", "net.py:Net", "--write", "--validate"]) == 0
    written = capsys.readouterr()
    assert written.out == shown.out
    assert "predicted worst Δ: 0.49 → 1.00" in written.err
    assert "measured worst Δ: 0." in written.err and "→ 1.00" in written.err
    after = (project / "net.py").read_text()
    assert after.index("self.bn(x)") < after.index("x = self.drop(x)")

    again = dropout_lint("fix", "net.py:Net", "--write", cwd=project)
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to fix" in again.stderr and (project / "net.py").read_text() == after


def test_ignored_findings_are_left_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project / "ignored.py"
    file.write_text(
        MODEL.replace("self.drop = nn.Dropout(p)", "self.drop = nn.Dropout(p)  # dropout-lint: ignore[DL101]")
    )
    assert run(["fix", "ignored.py:Net"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "nothing to fix" in captured.err


def test_without_a_target_it_is_the_configured_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fix"]) == 2
    assert "try `dropout-lint fix path/to/model.py`" in capsys.readouterr().err
    settings = project / "pyproject.toml"
    settings.write_text('[tool.dropout-lint]\ntargets = ["net.py:Net", "net.py:Net(p=0.3)"]\n')
    assert run(["fix", "--write"]) == 2
    assert "name one: net.py:Net, net.py:Net(p=0.3)" in capsys.readouterr().err
    assert (project / "net.py").read_text() == MODEL
    settings.write_text('[tool.dropout-lint]\ntargets = ["net.py:Net"]\n')
    assert run(["fix", "--write"]) == 0
    assert capsys.readouterr().err.rstrip().endswith("wrote net.py")
    assert (project / "net.py").read_text() != MODEL


def test_what_cannot_be_done_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fix", "fixtures.defects:DropsEverything"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "left dropout (DL403)" in captured.err and "by hand: give it a p" in captured.err


def test_selection_and_bad_usage(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fix", "net.py:Net", "--ignore", "DL1,DL2,DL3"]) == 0
    assert run(["fix", "net.py:Net", "--strategy", "sideways"]) == 2
    assert run(["fix", "net.py:Nothing"]) == 2
    assert run(["fix", "net.py:Net", "--beta", "7"]) == 2
    assert capsys.readouterr().out == ""
