"""`dropout-lint fix` as it is typed: stdout is the diff, stderr the words, and the exit status."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest
from cli_project import cli, run_in

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
    assert "predicted worst Δ, expected of each network once it is trained: 0." in written.err
    assert "measured worst Δ: 0." in written.err and "→ 1.00" in written.err
    after = (project / "net.py").read_text()
    assert after.index("self.bn(x)") < after.index("x = self.drop(x)")

    again = run_in(project, "fix", "net.py:Net", "--write")
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to fix" in again.stderr and (project / "net.py").read_text() == after


def test_the_proof_does_not_load_torch_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    done = cli("fix", "net.py:Net", "--write", cwd=project)
    assert done.returncode == 0 and "checked: eval-mode outputs are bit-identical" in done.stderr
    loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line]
    assert loaded.count("torch") == 1
    assert (project / "net.py").read_text() != MODEL


def test_ignored_findings_are_left_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project / "ignored.py"
    file.write_text(
        MODEL.replace("self.drop = nn.Dropout(p)", "self.drop = nn.Dropout(p)  # dropout-lint: ignore[DL101]")
    )
    assert run(["fix", "ignored.py:Net"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "nothing to fix" in captured.err


@pytest.mark.slow
def test_without_a_target_they_are_the_configured_ones(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["fix"]) == 2
    assert "try `dropout-lint fix path/to/model.py`" in capfd.readouterr().err
    (project / "pyproject.toml").write_text(
        '[tool.dropout-lint]\ntargets = ["net.py:Net", "net.py:Net(p=0.3)"]\n'
    )
    assert run(["fix", "--write"]) == 0
    told = capfd.readouterr().err
    assert told.count("wrote net.py") == 1 and "net.py:Net(p=0.3): nothing to fix" in told
    assert (project / "net.py").read_text() != MODEL


TWO = """\
    from torch import nn


    class Block(nn.Sequential):
        def __init__(self, width):
            super().__init__(nn.Linear(width, 32), nn.Dropout(0.5), nn.BatchNorm1d(32), nn.ReLU())


    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block(8)
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            return self.head(self.block(x))


    class Second(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(8, 16)
            self.drop = nn.Dropout(0.3)
            self.norm = nn.BatchNorm1d(16)
            self.out = nn.Linear(16, 4)
            self.block = Block(8)
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            return self.head(self.block(x)) + self.out(self.norm(self.drop(self.stem(x))).relu())
"""


@pytest.mark.slow
def test_every_model_of_files_and_folders_is_written(project: Path) -> None:
    """Each as its file is by then: the second model has a block that the first one's fix edited."""
    (project / "nets").mkdir()
    (project / "nets" / "two.py").write_text(textwrap.dedent(TWO))
    (project / "broken.py").write_text("import no_such_module_anywhere\n")
    done = run_in(project, "fix", "net.py", "nets", "broken.py", "--write", "--input", "4x8")
    assert done.returncode == 2  # --input does not fit net.py, and broken.py cannot be imported
    assert "no_such_module_anywhere" in done.stderr
    assert done.stderr.count("wrote nets/two.py") == 2, done.stderr
    assert (project / "net.py").read_text() == MODEL
    assert done.stdout.count("--- a/nets/two.py") == 2
    clean = run_in(project, "nets", "--input", "4x8")
    assert clean.returncode == 0, clean.stdout
    again = run_in(project, "fix", "nets", "--write", "--input", "4x8")
    assert (again.returncode, again.stdout) == (0, "")


def test_files_without_models_are_no_error_where_that_is_allowed(project: Path) -> None:
    (project / "util.py").write_text("WIDTH = 3\n")
    assert run_in(project, "fix", "util.py").returncode == 2
    done = run_in(project, "fix", "util.py", "--allow-empty")
    assert (done.returncode, done.stdout) == (0, "") and "nothing to fix" in done.stderr
    both = run_in(project, "fix", "util.py", "net.py", "--allow-empty", "--write")
    assert both.returncode == 0 and "wrote net.py" in both.stderr


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


def test_what_is_left_after_a_written_fix_counts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "rnn.py").write_text(
        textwrap.dedent(
            """\
            import torch
            from torch import nn

            example_inputs = (torch.randn(4, 10, 16),)


            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.rnn = nn.LSTM(16, 32, num_layers=2, dropout=0.5, batch_first=True)
                    self.drop = nn.Dropout(0.5)
                    self.norm = nn.BatchNorm1d(32)
                    self.head = nn.Linear(32, 4)

                def forward(self, x):
                    y = self.rnn(x)[0][:, -1]
                    return self.head(self.norm(self.drop(y)))
            """
        )
    )
    assert run(["fix", "rnn.py:Net", "--write"]) == 1
    told = capsys.readouterr().err
    assert "wrote rnn.py" in told and "left rnn (DL102)" in told
    assert "linted again: 1 finding is left, nothing new is found" in told
    assert run(["rnn.py:Net", "-q"]) == 1


@pytest.mark.slow
def test_a_model_that_kills_its_process_is_told(project: Path) -> None:
    killer = MODEL.replace(
        'print("user code prints")',
        "import os, pathlib\nmark = pathlib.Path('mark')\n"
        "os.kill(os.getpid(), 9) if mark.exists() else mark.touch()  # at the second import",
    )
    (project / "kills.py").write_text(killer)
    done = run_in(project, "fix", "kills.py", "net.py", "--write")
    assert done.returncode == 2
    assert "kills.py:Net: the process that fixed it was ended by signal 9" in done.stderr
    assert "wrote net.py" in done.stderr and (project / "kills.py").read_text() == killer


TWINS = textwrap.dedent(
    """\
    import torch
    from torch import nn

    example_inputs = (torch.randn(4, 3, 8, 8),)


    class Block(nn.Module):
        def __init__(self, inner, outer, p):
            super().__init__()
            self.conv = nn.Conv2d(inner, outer, 3)
            self.norm = nn.BatchNorm2d(outer)
            self.drop = DROP

        def forward(self, x):
            return self.drop(self.norm(self.conv(x)).relu())


    class Net(nn.Module):
        def __init__(self, p=0.5):
            super().__init__()
            self.one, self.two = Block(3, 8, p), Block(8, 8, p)
            self.head = nn.Conv2d(8, 4, 4)

        def forward(self, x):
            return self.head(self.two(self.one(x))).flatten(1)
    """
)


@pytest.mark.parametrize("drop", ["nn.Dropout(p)", "nn.Dropout(p if inner == 3 else 0)"], ids=["both", "one"])
def test_a_strategy_that_is_named_for_source_writes_there(project: Path, drop: str) -> None:
    """The second dropout is right, and the line that makes the wrong one makes both."""
    (project / "net.py").write_text(TWINS.replace("DROP", drop))
    told = run_in(project, "fix", "net.py:Net")
    assert told.stdout == ""
    assert "strategy" in told.stderr
    for strategy in ("uout", "reduce", "remove", "move"):
        wrote = run_in(project, "fix", "--strategy", strategy, "net.py:Net").stdout != ""
        if f"`--strategy {strategy}` would" in told.stderr:
            assert wrote, strategy
        elif f'`dl.fix(…, strategy="{strategy}")` would' in told.stderr:
            assert not wrote, strategy


def test_what_is_left_for_one_reason_is_one_line(project: Path) -> None:
    layers = "nn.Linear(8, 8), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Linear(8, 4)"
    (project / "net.py").write_text(
        f"import torch\nfrom torch import nn\n\n\ndef head():\n    return nn.Sequential({layers})\n\n\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.heads = nn.ModuleList([head() for _ in range(2)])\n\n"
        "    def forward(self, x):\n        return [head(x) for head in self.heads]\n\n\n"
        "example_inputs = (torch.randn(4, 8),)\n"
    )
    told = run_in(project, "fix", "net.py:Net").stderr
    assert told.count("by hand:") == 1
    assert "left heads.0.1, heads.1.1 (DL101): a layer behind heads.0.2 would move the index" in told


def test_a_class_that_the_project_names_as_a_dropout_is_moved_as_it_is(project: Path) -> None:
    (project / "net.py").write_text(
        textwrap.dedent(
            """\
            import torch
            from torch import nn


            class SpatialDropout(nn.Module):
                def __init__(self, p):
                    super().__init__()
                    self.p = p

                def forward(self, x):
                    if not self.training or self.p == 0:
                        return x
                    mask = x.new_empty(x.size(0), x.size(1), 1).bernoulli_(1 - self.p)
                    return x * mask / (1 - self.p)


            class Net(nn.Module):
                def __init__(self, p=0.25):
                    super().__init__()
                    self.conv, self.bn, self.fc = nn.Conv1d(4, 16, 5), nn.BatchNorm1d(16), nn.Linear(16, 3)
                    self.sdrop = SpatialDropout(p)

                def forward(self, x):
                    return self.fc(torch.relu(self.bn(self.sdrop(self.conv(x)))).mean(-1))


            example_inputs = (torch.randn(8, 4, 50),)
            """
        )
    )
    assert "name a class that does nothing else in" in run_in(project, "fix", "net.py:Net").stderr
    (project / "pyproject.toml").write_text(
        '[tool.dropout-lint.dropouts]\nSpatialDropout = { noise = "channel", p = "p" }\n'
    )
    done = run_in(project, "fix", "net.py:Net", "--write")
    assert done.returncode == 0 and "self.fc(self.sdrop(torch.relu(self.bn(self.conv(x))))" in done.stdout
    assert "Dropout1d" not in done.stdout
