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


@cache
def _standard_library() -> tuple[str, ...]:
    return tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
