"""What the README shows is run: Python blocks and the first ten minutes; its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sarif_schema import problems

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_python_blocks_run(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})


def test_the_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


INSTALLS = ("git init", "pip install")


def transcript(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown below it."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def looks_like(shown: str) -> re.Pattern[str]:
    """A pattern of what a block shows, where a line `…` stands for lines that are left out."""
    lines = [r"(?:.*\n)*?" if line == "…" else re.escape(line) + r"\n" for line in shown.splitlines()]
    return re.compile("".join(lines) + r"\s*")


@pytest.fixture
def newcomer(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """An empty folder beside a checkout, and an environment in which everything is installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for program, start in {
        "dropout-lint": "from dropout_lint.cli import main; main()",
        "pre-commit": "from pre_commit.main import main; raise SystemExit(main())",
    }.items():
        (programs / program).write_text(f"#!{sys.executable}\n{start}\n")
        (programs / program).chmod(0o755)
    (tmp_path / "dropout-lint").symlink_to(ROOT)
    folder = tmp_path / "project"
    folder.mkdir()
    who = {
        f"GIT_{role}_{what}": "test@example.com"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    return folder, {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **who,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PRE_COMMIT_HOME": str(tmp_path / "store"),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_first_ten_minutes_go_as_shown(newcomer: tuple[Path, dict[str, str]]) -> None:
    pytest.importorskip("pre_commit")
    folder, environment = newcomer

    def bash(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", f"{command} 2>&1"],
            cwd=folder,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        return done.stdout

    bash("git init -q")
    section = README.split("## In ten minutes\n")[1].split("\n## ")[0].split("```")
    ran = []
    for words, fenced in zip(section[:-1:2], section[1::2], strict=True):
        language, _, block = fenced.partition("\n")
        if language == "diff":
            old, new = (line[1:] for line in block.splitlines())
            text = (folder / "net.py").read_text()
            assert old in text
            (folder / "net.py").write_text(text.replace(old, new))
        elif language != "console":
            named = re.match(r"`([\w.-]+)`", words.strip().splitlines()[-1])
            assert named, words
            (folder / named[1]).write_text(block)
            continue
        for command, shown in transcript(block):
            missing = shutil.which(command.split()[0], path=environment["PATH"]) is None
            if command.startswith(INSTALLS) or (missing and command.startswith("check-jsonschema")):
                continue
            printed = bash(command)
            assert looks_like(shown).fullmatch(printed), f"$ {command}\n{printed}"
            ran.append(command)
    assert len(ran) >= 6
    assert problems(json.loads((folder / "../net.sarif").read_text())) == []
    assert bash("git log --format=%s") == "a net\n"
    assert "DL102" in (folder / "../report.html").read_text()
