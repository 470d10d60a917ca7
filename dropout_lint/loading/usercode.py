"""Running a user's code: its stdout goes to stderr, and what it raises is shown as its own."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path

from dropout_lint.errors import DropoutLintError, TargetError
from dropout_lint.loading.compat import is_schema_error

_HERE = str(Path(__file__).parent.parent) + os.sep
_SHOWN_FRAMES = 4


class UserCodeError(TargetError):
    """A user's code raised while it was imported or built; `__cause__` is what it raised."""


@contextmanager
def user_code(doing: str, argv0: str = "dropout-lint") -> Iterator[None]:
    """Run what is inside as a user's code.

    Args:
        doing: what is being done, as the start of a sentence: "importing `net`".
        argv0: what `sys.argv` holds meanwhile, so that a parser at module level sees no options.

    Raises:
        UserCodeError: it raised, or left with `sys.exit`. Ctrl-C passes through.
    """
    argv = sys.argv
    sys.argv = [argv0]
    try:
        with _stdout_to_stderr():
            yield
    except (KeyboardInterrupt, DropoutLintError):
        raise
    except SystemExit as error:
        status = 0 if error.code is None else error.code
        raise UserCodeError(
            f"{doing} called sys.exit({status!r})",
            'keep a script\'s own work under `if __name__ == "__main__":`',
            details=own_traceback(error),
        ) from error
    except (RuntimeError, ImportError) as error:
        if is_schema_error(error):
            raise
        raise _raised(doing, error) from error
    except BaseException as error:
        raise _raised(doing, error) from error
    finally:
        sys.argv = argv


def _raised(doing: str, error: BaseException) -> UserCodeError:
    return UserCodeError(
        f"{doing} raised {type(error).__name__}: {first_line(error)}", details=own_traceback(error)
    )


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "(no message)"


def own_traceback(error: BaseException) -> str:
    """The user's frames of a traceback, innermost last, and the exception.

    Frames of the tool, torch and Python are left out; those of other libraries are shown where no others are.
    """
    shown = traceback.TracebackException.from_exception(error, compact=True)
    frames = [frame for frame in shown.stack if not frame.filename.startswith(_not_shown())]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    chosen = (own or frames)[-_SHOWN_FRAMES:]
    lines = [*traceback.StackSummary.from_list(chosen).format(), *shown.format_exception_only()]
    return "\n".join(line.rstrip("\n") for line in lines)


@cache
def _not_shown() -> tuple[str, ...]:
    import torch

    standard = sysconfig.get_path("stdlib")
    folders = (_HERE, str(Path(torch.__file__).parent) + os.sep)
    # A virtual environment's site-packages lie elsewhere; without one they lie inside the standard
    # library's folder.
    inside = tuple(str(entry) + (os.sep if entry.is_dir() else "") for entry in Path(standard).iterdir())
    return (*folders, "<frozen", *(entry for entry in inside if "site-packages" not in entry))


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Python's stdout and the file descriptor below it (for printf in C and child processes)."""
    saved = _divert()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


def _divert() -> int | None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        saved = os.dup(1)
    except (OSError, ValueError):
        return None
    try:
        os.dup2(2, 1)
    except OSError:
        os.close(saved)
        return None
    return saved
