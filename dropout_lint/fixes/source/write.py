"""Write edited files: all of them or none, each atomically."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dropout_lint.errors import FixError
from dropout_lint.fixes.source.syntax import RawText


@dataclass(frozen=True)
class Change:
    """The edit of one file."""

    path: Path
    raw: RawText
    after: str

    @property
    def before(self) -> str:
        """The text as it was."""
        return self.raw.text


def write_all(changes: Sequence[Change]) -> None:
    """Write all files, keeping mode, encoding and line ends; an interruption leaves the old files.

    Raises:
        FixError: a file changed since it was read, or cannot be written; then none is changed.
    """
    staged: list[tuple[Path, Path]] = []
    done: list[Change] = []
    try:
        for change in changes:
            target = change.path.resolve()
            if target.read_bytes() != change.raw.to_bytes(change.before):
                raise FixError(f"{change.path} changed while it was being fixed", "run the command again")
            staged.append((_stage(target, change.raw.to_bytes(change.after)), target))
        for change, (temporary, target) in zip(changes, staged, strict=True):
            temporary.replace(target)
            done.append(change)
    except BaseException as error:
        for change in done:
            with contextlib.suppress(OSError):
                target = change.path.resolve()
                _stage(target, change.raw.to_bytes(change.before)).replace(target)
        for temporary, _ in staged:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError):
            raise FixError(f"cannot write: {error}", "the files stay as they were") from error
        raise


def _stage(target: Path, data: bytes) -> Path:
    """A finished temporary file beside the target."""
    number, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        shutil.copymode(target, temporary)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return temporary
