"""Where the user's files import Uout from: this package, or a file of their own that holds the class."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from dropout_lint.remedies import plain_uout

OURS = "dropout_lint"
NAME = "uout"
HEADER = """\
# Written by `dropout-lint fix --vendor-uout`, so that the model needs no dropout_lint to run.
# From dropout-lint (dropout_lint/remedies/plain_uout.py), Copyright (c) 2026 the dropout-lint developers.
# MIT License: use, change and pass it on, with this notice.
"""


def text() -> str:
    """What the file holds."""
    return HEADER + Path(plain_uout.__file__).read_text(encoding="utf-8")


@dataclass
class UoutHome:
    """Where Uout is imported from.

    Attributes:
        vendor: from a file beside the one that needs it, which is written where it is not there yet.
        needs_us: files that import this package, which they did not before.
        new: the files that are to be written.
        taken: one that is there already and holds something else.
    """

    vendor: bool = False
    needs_us: set[Path] = field(default_factory=set)
    new: set[Path] = field(default_factory=set)
    taken: Path | None = None

    def package(self, path: Path) -> str:
        """The name that a file imports Uout from."""
        if not self.vendor:
            self.needs_us.add(path)
            return OURS
        own = path.resolve().with_name(f"{NAME}.py")
        if not own.exists():
            self.new.add(own)
        elif not own.is_file() or own.read_bytes() != text().encode():
            self.taken = own
        package = package_of(path)
        return f"{package}.{NAME}" if package else NAME


def package_of(path: Path) -> str:
    """The package that the module at a path was imported in, "" where it is in none."""
    place = os.path.realpath(path)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and os.path.realpath(file) == place:
            return module.__package__ or ""
    return ""
