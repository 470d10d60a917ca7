"""Paths as a repository's host knows them: relative to the repository's root, with forward slashes."""

from __future__ import annotations

import os
from pathlib import Path


def root_of(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds `.git`, else the current directory."""
    here = (start or Path.cwd()).absolute()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def path_in_repository(file: str, root: Path | None = None) -> str | None:
    """`file` (relative to the current directory, or absolute) from the repository's root; None outside it."""
    root = root or root_of()
    path = Path(os.path.normpath(Path(file).absolute()))
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return None
