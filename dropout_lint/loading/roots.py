"""The folder that modules are imported from beside the current one: that of the settings file."""

from __future__ import annotations

import os
from pathlib import Path

_VARIABLE = "DROPOUT_LINT_ROOT"


def set_root(folder: Path | None) -> None:
    """Let targets be imported from `folder` too, in this process and in those that it starts from now on.

    An environment variable and no entry of `sys.path`, which would come before torch is imported: a project's
    files must not hide the modules that torch asks for.
    """
    if folder is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = str(folder)


def root() -> Path | None:
    """The folder that `set_root` named."""
    folder = os.environ.get(_VARIABLE)
    return None if folder is None else Path(folder)
