"""What the command line prints, and where: the report to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TextIO

import rich_click as click

from dropout_lint.errors import DropoutLintError, UsageError


def exists(path: str) -> bool:
    """Whether `path` names something on disk (never raises)."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def wants_verbose(arguments: Sequence[str]) -> bool:
    """Whether `-v` is among the arguments, known before they are parsed."""
    return any(
        word == "--verbose"
        or (word[:1] == "-" and word[:2] != "--" and word[1:].strip("qv") == "" and "v" in word)
        for word in arguments
    )


def use_color(stream: IO[str]) -> bool:
    """`FORCE_COLOR` and `NO_COLOR` (https://no-color.org) decide, else whether `stream` is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def width_of(stream: IO[str]) -> int:
    """Columns to fill: the terminal's (between 60 and 120), and 80 where there is none."""
    if os.environ.get("COLUMNS", "").isdigit():
        return max(60, min(120, int(os.environ["COLUMNS"])))
    try:
        return max(60, min(120, os.get_terminal_size(stream.fileno()).columns))
    except (OSError, ValueError):
        return 80


def say(text: str) -> None:
    """One line to stderr."""
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def paint(text: str, code: str) -> str:
    """`text` in an ANSI style where stderr takes colour."""
    return f"\x1b[{code}m{text}\x1b[0m" if use_color(sys.stderr) else text


def report_error(problem: DropoutLintError, *, verbose: bool = False, subject: str | None = None) -> None:
    """`error: …` and `help: …` on stderr; the user's own exception below it, our traceback with `-v`."""
    start = f"{subject}: " if subject and subject not in problem.message else ""
    say(f"{paint('error', '1;31')}: {start}{problem.message}")
    if problem.details:
        for line in problem.details.rstrip().splitlines():
            say(f"  {line}")
    if problem.hint:
        say(f"{paint('help', '1;36')}: {problem.hint}")
    if verbose:
        say("".join(traceback.format_exception(problem)).rstrip())


def report_usage(problem: click.ClickException) -> None:
    """A wrong option or argument in the same two lines."""
    context = getattr(problem, "ctx", None)
    path = context.command_path if context is not None else "dropout-lint"
    message = problem.format_message()
    message = message[:1].lower() + message[1:].rstrip(".")
    # click's names for its types
    message = re.sub(r"not a valid float( range)?$", "not a number", message)
    message = re.sub(r"not a valid integer( range)?$", "not a whole number", message)
    report_error(DropoutLintError(message, f"`{path} --help` lists what is allowed"))


def is_full(problem: OSError) -> bool:
    """Whether what was written to has no room left."""
    return problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def flush() -> None:
    """Write out what is buffered; a reader that has gone is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()


def abandon_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit stays silent."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def report_stream() -> Iterator[TextIO]:
    """The real stdout, while whatever else writes to stdout (the user's code, C code) lands on stderr."""
    real = sys.stdout
    real.flush()
    try:
        number = real.fileno()
    except (OSError, ValueError):
        number = -1
    if number != 1:  # under a test runner stdout is an object without a descriptor
        sys.stdout = sys.stderr
        try:
            yield real
        finally:
            sys.stdout = real
        return
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(os.dup(saved), "w", encoding=real.encoding, errors="backslashreplace") as stream:  # noqa: PTH123 - no path: a descriptor
            try:
                yield stream
                stream.flush()
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    finally:
        with contextlib.suppress(BrokenPipeError):
            real.flush()
        os.dup2(saved, 1)
        os.close(saved)


def require_folder(path: str) -> None:
    """Refuse a file whose folder is missing: a folder that is made for a slip of the keys goes unnoticed.

    Raises:
        UsageError: the folder is missing.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise UsageError(
            f"cannot write {path}: there is no folder {folder}", "make it first, or correct the name"
        )


def write_file(path: str, text: str) -> None:
    """Write `text` to `path`, a regular file atomically; a device or pipe is written to, not replaced.

    Raises:
        DropoutLintError: the file cannot be written.
    """
    require_folder(path)
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as problem:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DropoutLintError(f"cannot write {path}: {problem.strerror}", "check the folder") from None
