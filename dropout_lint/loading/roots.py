"""The folders that modules are imported from beside the current one: the project's and its settings'."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_VARIABLE = "DROPOUT_LINT_ROOTS"


def set_roots(folders: Sequence[Path]) -> None:
    """Let targets be imported from `folders` too, in this process and in those that it starts from now on.

    An environment variable and no entries of `sys.path`, which would come before torch is imported: a
    project's files must not hide the modules that torch asks for.
    """
    if folders:
        os.environ[_VARIABLE] = os.pathsep.join(str(folder) for folder in folders)
    else:
        os.environ.pop(_VARIABLE, None)


def roots() -> list[Path]:
    """The folders that `set_roots` named, in their order."""
    return [Path(folder) for folder in os.environ.get(_VARIABLE, "").split(os.pathsep) if folder]
