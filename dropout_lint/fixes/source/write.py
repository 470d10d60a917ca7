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
    """The edit of one file, or a new file (`raw` None)."""

    path: Path
    raw: RawText | None
    after: str

    @property
    def before(self) -> str:
        """The text as it was."""
        return "" if self.raw is None else self.raw.text

    def old(self) -> bytes | None:
        """The bytes as they were, None of a new file."""
        return None if self.raw is None else self.raw.to_bytes(self.raw.text)

    def new(self) -> bytes:
        """The bytes as they are to be."""
        return self.after.encode() if self.raw is None else self.raw.to_bytes(self.after)


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
            if (target.read_bytes() if target.exists() else None) != change.old():
                raise FixError(f"{change.path} changed while it was being fixed", "run the command again")
            staged.append((_stage(target, change.new()), target))
        for change, (temporary, target) in zip(changes, staged, strict=True):
            temporary.replace(target)
            done.append(change)
    except BaseException as error:
        for change in done:
            with contextlib.suppress(OSError):
                target, old = change.path.resolve(), change.old()
                if old is None:
                    target.unlink()
                else:
                    _stage(target, old).replace(target)
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
        if target.exists():
            shutil.copymode(target, temporary)
        else:
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return temporary
