"""Walks through a page of documentation: writes the files that it shows and runs its commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
INSTALLS = ("git init", "pip install")


def transcript(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown below it."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def looks_like(shown: str) -> re.Pattern[str]:
    """A pattern of what a block shows, where a line `…` stands for lines that are left out."""
    lines = [r"(?:.*\n)*?" if line == "…" else re.escape(line) + r"\n" for line in shown.splitlines()]
    return re.compile("".join(lines) + r"\s*")


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


def bash(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What a command prints, on either stream."""
    done = subprocess.run(
        ["bash", "-c", f"{{ {command}\n}} 2>&1"],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    return done.stdout


def walk(section: str, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Do what a section shows, and return its commands.

    Files are written (the paragraph before begins with the name), diffs of a line applied (to `net.py` where
    none is named), commands run, and what they print held against what is shown.
    """
    ran = []
    parts = section.split("```")
    for words, fenced in zip(parts[:-1:2], parts[1::2], strict=True):
        language, _, block = fenced.partition("\n")
        named = re.match(r"`([\w./-]+)`", (words.strip().splitlines() or [""])[-1])
        if language == "diff":
            file = folder / (named[1] if named else "net.py")
            old, new = (line[1:] for line in block.splitlines())
            text = file.read_text()
            assert old in text
            file.write_text(text.replace(old, new))
        elif language != "console":
            assert named, words
            (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / named[1]).write_text(block)
        else:
            for command, shown in transcript(block):
                missing = shutil.which(command.split()[0], path=environment["PATH"]) is None
                if command.startswith(INSTALLS) or (missing and command.startswith("check-jsonschema")):
                    continue
                printed = bash(command, folder, environment)
                assert looks_like(shown).fullmatch(printed), f"$ {command}\n{printed}"
                ran.append(command)
    return ran
