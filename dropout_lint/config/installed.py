"""Which files belong to installed packages, whose code is not the project's to change."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path

SITES = ("site-packages", "dist-packages")
"""Names of the folders that packages are installed into."""


def is_installed(file: str) -> bool:
    """Whether a file belongs to an installed package or to Python itself."""
    path = Path(file)
    return any(site in path.parts for site in SITES) or any(map(path.is_relative_to, _standard_library()))


def short(file: str) -> str:
    """How reports name a file: `timm/models/resnet.py` if it is installed, `ast.py` if it is Python's own.

    Any other stays as it is, which is relative to the current directory.
    """
    parts = Path(file).parts
    at = max((index for index, part in enumerate(parts) if part in SITES), default=-1)
    if 0 <= at < len(parts) - 1:
        return Path(*parts[at + 1 :]).as_posix()
    own = next((folder for folder in _standard_library() if Path(file).is_relative_to(folder)), None)
    return file if own is None else Path(file).relative_to(own).as_posix()


@cache
def _standard_library() -> tuple[str, ...]:
    return tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
