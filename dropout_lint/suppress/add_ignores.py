"""`--add-ignores`: write an ignore comment on the line of every finding."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dropout_lint.config.installed import SITES
from dropout_lint.errors import DropoutLintError
from dropout_lint.report.schema import Report
from dropout_lint.suppress.ignores import encoding_of, places, with_ignore


def add_ignores(report: Report) -> tuple[dict[str, list[int]], list[str]]:
    """Write the comments.

    Only files at or below the current directory are touched, never an installed package. Each file is
    replaced at once, and only where its code is the same as before.

    Returns:
        For each changed file the lines that got a comment, and one sentence for each finding that got none.

    Raises:
        DropoutLintError: a file cannot be read or written; says what was changed before it, if anything.
    """
    wanted: dict[tuple[str, int], set[str]] = {}
    skipped = []
    for target in report.targets:
        for finding in target.findings:
            own = [place for place in places(finding) if is_ours(place.file)]
            name = finding.dropout.name if finding.dropout else finding.norm.name if finding.norm else ""
            if not own:
                skipped.append(
                    f"{finding.code} at {name or target.target}: no line of this project to write on"
                )
                continue
            wanted.setdefault((own[0].file, own[0].line), set()).add(finding.code)
    files: dict[str, dict[int, set[str]]] = {}
    for (file, line), codes in sorted(wanted.items()):
        files.setdefault(file, {})[line] = codes
    changes = []
    written: dict[str, list[int]] = {}
    for file, lines in files.items():
        source = read(file)
        changed = source
        for line, codes in lines.items():
            text = with_ignore(changed.text, line, sorted(codes))
            if text is None:
                skipped.append(f"{file}:{line}: no comment can stand on this line; write it by hand")
            elif text != changed.text:
                changed = replace(changed, text=text)
                written.setdefault(file, []).append(line)
        if changed != source:
            changes.append(changed)
    write(changes)
    return written, skipped


@dataclass(frozen=True)
class Source:
    """A Python file: its text with the line ends that it has, and its encoding."""

    file: str
    text: str
    encoding: str


def read(file: str) -> Source:
    """Read a Python file.

    Raises:
        DropoutLintError: it cannot be read.
    """
    try:
        encoding = encoding_of(file)
        with Path(file).open(encoding=encoding, newline="") as stream:
            return Source(file, stream.read(), encoding)
    except (OSError, SyntaxError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise DropoutLintError(f"cannot read {file}: {reason}", "nothing was changed") from None


def is_ours(file: str) -> bool:
    """Whether a file lies below the current directory and in no environment or installed package."""
    path = Path(file)
    if path.is_absolute() or not path.is_file():
        return False
    return not {*SITES, ".venv", "venv"} & set(path.parts)


def write(changes: Sequence[Source]) -> None:
    """Put each text in the place of its file at once, permissions kept; all are ready before the first is.

    Raises:
        DropoutLintError: a file cannot be written; names those that were written before it.
    """
    with contextlib.ExitStack() as partials:
        ready = []
        for change in changes:
            with writing(change.file, ()):
                ready.append(partials.enter_context(staged(change)))
        done: list[str] = []
        for change, partial in zip(changes, ready, strict=True):
            with writing(change.file, done):
                partial.replace(change.file)
            done.append(change.file)


@contextlib.contextmanager
def writing(file: str, done: Sequence[str]) -> Iterator[None]:
    """Say of what the system refuses in the block that `file` cannot be written, and which are `done`."""
    try:
        yield
    except OSError as problem:
        rest = f"only {', '.join(done)} got comments" if done else "nothing was changed"
        raise DropoutLintError(
            f"cannot write {file}: {problem.strerror}", f"check the folder; {rest}"
        ) from None


@contextlib.contextmanager
def staged(change: Source) -> Iterator[Path]:
    """The changed file beside its old one, gone after the block unless it was put in its place."""
    path = Path(change.file)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding=change.encoding, newline="") as stream:
            stream.write(change.text)
        partial.chmod(path.stat().st_mode & 0o777)
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
