"""The hooks, run by the real pre-commit on a scratch repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("pre_commit")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("git") is None, reason="needs git")]

ROOT = Path(__file__).parents[1]

GOOD = """\
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.drop = nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(8)
        self.fc2 = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc2(self.drop(self.bn(self.fc1(x)).relu()))


example_inputs = (__import__("torch").randn(4, 4),)
"""
BAD = GOOD.replace("self.drop(self.bn(self.fc1(x)).relu())", "self.bn(self.drop(self.fc1(x)).relu())")


@dataclass
class Repository:
    folder: Path
    environment: dict[str, str]

    def call(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True, check=check
        )

    def hook(self, name: str, *arguments: str) -> None:
        extra = f", args: [{', '.join(arguments)}]" if arguments else ""
        (self.folder / ".pre-commit-config.yaml").write_text(
            f"repos:\n- repo: {self.folder.parent / 'hooks'}\n  rev: main\n  hooks: [{{id: {name}{extra}}}]\n"
        )
        self.call(sys.executable, "-m", "pre_commit", "install")

    def commit(self, **files: str) -> subprocess.CompletedProcess[str]:
        for name, text in files.items():
            (self.folder / name.replace("_DOT_", ".")).write_text(text)
        self.call("git", "add", "-A")
        return self.call("git", "commit", "-m", "change", check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A project, a repository that holds the hooks, and `dropout-lint` on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "dropout-lint"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "if 'WITHOUT_TORCH' in os.environ:\n    sys.modules['torch'] = None\n"
        "from dropout_lint.cli import main\nmain()\n"
    )
    script.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PRE_COMMIT_HOME": str(tmp_path / "store"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{
            f"GIT_{who}_{what}": "test@example.com"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    hooks = Repository(tmp_path / "hooks", environment)
    project = Repository(tmp_path / "project", environment)
    for repository in (hooks, project):
        repository.folder.mkdir()
        repository.call("git", "init", "-q", "-b", "main")
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks.folder)
    hooks.commit()
    (project.folder / ".gitignore").write_text(".dropout_lint_cache/\n__pycache__/\n")
    return project


def test_configured_targets_block_a_bad_commit_and_pass_a_good_one(repository: Repository) -> None:
    repository.hook("dropout-lint")
    table = '[tool.dropout-lint]\ntargets = ["net.py:Net"]\n'
    bad = repository.commit(net_DOT_py=BAD, pyproject_DOT_toml=table)
    assert bad.returncode == 1, bad.stderr
    assert "error[DL101]" in bad.stderr + bad.stdout
    assert repository.call("git", "rev-parse", "HEAD", check=False).returncode != 0
    good = repository.commit(net_DOT_py=GOOD)
    assert good.returncode == 0, good.stderr
    # nothing relevant changed: the hook is skipped, or answers from the cache, even where torch were missing
    repository.environment["WITHOUT_TORCH"] = "1"
    assert "Skipped" in repository.commit(README_DOT_md="x").stderr
    other = repository.commit(util_DOT_py="WIDTH = 3\n")
    assert other.returncode == 0 and "Passed" in other.stderr, other.stderr
    changed = repository.commit(net_DOT_py=GOOD.replace("0.5", "0.4"))
    assert changed.returncode == 1 and "torch" in changed.stderr + changed.stdout


def test_changed_files_are_searched_for_models(repository: Repository) -> None:
    repository.hook("dropout-lint-files")
    assert repository.commit(util_DOT_py="WIDTH = 3\n", test_net_DOT_py=BAD).returncode == 0
    bad = repository.commit(net_DOT_py=BAD)
    assert bad.returncode == 1
    assert "net.py:Net" in bad.stderr + bad.stdout


@pytest.mark.parametrize(
    ("hook", "arguments"), [("dropout-lint-fix", ["net.py:Net"]), ("dropout-lint-fix-files", [])]
)
def test_the_fix_hooks_write_and_then_pass(repository: Repository, hook: str, arguments: list[str]) -> None:
    repository.hook(hook, *arguments)
    first = repository.commit(net_DOT_py=BAD)
    assert first.returncode == 1
    assert "files were modified by this hook" in first.stderr + first.stdout
    text = (repository.folder / "net.py").read_text()
    assert text != BAD
    second = repository.commit()
    assert second.returncode == 0, second.stdout + second.stderr
