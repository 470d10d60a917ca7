"""Which files of a folder are worth importing, by their names and their source alone."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dropout_lint.loading.importing import shown
from dropout_lint.loading.source import Source, is_main_guard
from dropout_lint.loading.usercode import first_line

_SKIPPED_FOLDERS = {
    "__pycache__", "site-packages", "node_modules", "build", "dist", "tests", "test", "venv", "env", "docs",
}  # fmt: skip
_SKIPPED_FILES = {"setup.py", "conftest.py", "noxfile.py", "__main__.py"}


@dataclass
class Passed:
    """What gave no model, each as a sentence.

    Attributes:
        notes: all of it.
        unseen: those of the notes that tell of what could not be looked at: a file that is no Python or
            cannot be imported, a candidate that raises. What is no model, or needs arguments, is not among
            them.
        untried: what may be or return a model, of which only a call or an import would tell.
    """

    notes: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)

    def add(self, what: str, why: str, *, unseen: bool = False) -> None:
        """Note that `what` was passed over."""
        note = f"{what} was passed over: {why}"
        self.notes.append(note)
        if unseen:
            self.unseen.append(note)

    def leave(self, file: str, names: Sequence[str], how: str | None = None) -> None:
        """Note what of a file may give a model, and was not called (or done `how`) just to see."""
        if names:
            self.untried += [f"{file}:{name}" for name in names]
            were, them, one = ("were", "them", "one") if len(names) > 1 else ("was", "it", "it")
            self.notes.append(
                f"{file}:{', '.join(names)} {were} passed over: only {how or f'calling {them}'} would tell "
                f"whether there is a model; name {one} to lint it"
            )


def python_files(folder: Path, passed: Passed, seen: set[str] | None = None) -> Iterator[Path]:
    """Files below `folder` that may hold models, in sorted order; what cannot be read goes to `passed`.

    A file or folder that links lead to more than once, or round in a circle, comes once; `seen` holds the
    real paths of those that have come.
    """
    seen = {os.path.realpath(folder)} if seen is None else seen
    # links last, so that a file is named by where it really lies
    for entry in sorted(folder.iterdir(), key=lambda item: (item.is_dir(), item.is_symlink(), item.name)):
        real = os.path.realpath(entry)
        if entry.name.startswith(".") or real in seen:
            continue
        seen.add(real)
        if entry.is_dir():
            if entry.name not in _SKIPPED_FOLDERS and not (entry / "pyvenv.cfg").exists():
                yield from python_files(entry, passed, seen)
        elif (
            (
                entry.suffix == ".py"
                and entry.name not in _SKIPPED_FILES
                and not entry.name.startswith("test_")
            )
            and not entry.stem.endswith("_test")
            and _is_to_be_imported(entry, passed)
        ):
            yield entry


def _is_to_be_imported(file: Path, passed: Passed) -> bool:
    """Whether a file may hold models, and does not train as soon as it is imported."""
    try:
        tree = ast.parse(file.read_bytes(), file.name)  # bytes: Python finds the encoding itself
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
        passed.add(shown(file), f"reading it raised {type(error).__name__}: {first_line(error)}", unseen=True)
        return False
    source = Source(tree)
    unlikely = not source.may_hold_models()
    functions, models = source.untold() if unlikely else ([], [])
    if unlikely and not functions and not models:
        return False
    if any(_trains(node) for node in tree.body):
        passed.add(shown(file), "it trains as soon as it is imported; name the file to lint it")
        return False
    passed.leave(shown(file), functions)
    passed.leave(shown(file), models, "importing the file")
    return not unlikely


def _trains(node: ast.stmt) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or is_main_guard(node):
        return False
    return any(
        isinstance(item, ast.Attribute) and item.attr in ("backward", "fit") for item in ast.walk(node)
    )
