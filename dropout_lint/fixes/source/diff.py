"""Unified diffs that `git apply` accepts."""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path


def unified(before: str, after: str, name: str, context: int = 3, *, new: bool = False) -> str:
    """The diff of one file, which may be a new one; "" where nothing changed.

    Lines end at "\\n" alone: `str.splitlines` would also split at form feeds and other separators that git
    takes for text. A missing final newline is marked as git does it.
    """
    if before == after:
        return ""
    tab = "\t" if " " in name else ""
    lines = difflib.unified_diff(
        _lines(before),
        _lines(after),
        "/dev/null" if new else f"a/{name}{tab}",
        f"b/{name}{tab}",
        n=context,
        lineterm="\n",
    )
    parts = []
    for line in lines:
        parts.append(line)
        if not line.endswith("\n"):
            parts.append("\n\\ No newline at end of file\n")
    return "".join(parts)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    ended = [f"{line}\n" for line in lines[:-1]]
    return ended + ([lines[-1]] if lines[-1] else [])


def shown_name(path: Path) -> str:
    """The name of a file in a diff: from the top of its git repository, else from the current directory."""
    try:
        found = subprocess.run(
            ["git", "-C", str(path.parent), "rev-parse", "--show-toplevel"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        top = Path(found.stdout.strip()) if found.returncode == 0 else Path.cwd()
    except (OSError, subprocess.TimeoutExpired):
        top = Path.cwd()
    try:
        name = path.resolve().relative_to(top.resolve())
    except ValueError:
        name = Path(os.path.relpath(path.resolve(), Path.cwd()))
        if ".." in name.parts:
            return str(path.resolve()).lstrip("/")
    return name.as_posix()
