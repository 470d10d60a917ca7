"""Who else uses a class or function that is edited: other models of the project change along with it."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import libcst as cst
from torch import nn

from dropout_lint.config.installed import SITES
from dropout_lint.config.load import display
from dropout_lint.fixes.source.edits import Edits
from dropout_lint.fixes.source.locate import is_foreign
from dropout_lint.words import numbered

MOST_FILES = 2000
IMPORT_FROM = re.compile(r"\bfrom\b([\s\\.\w]*?)\bimport\b")
SKIPPED = ("build", "dist", "node_modules", "__pycache__", *SITES)


def other_users(edits: Mapping[Path, Edits], model: nn.Module, target: str) -> list[str]:
    """Notes on the uses of edited classes and functions outside of the model, in the files of the project.

    The model's own use is proven, and so is that of `target`, which builds it; of the others it is only said
    that they change.
    """
    edited: dict[str, Path] = {}
    for path, edit in edits.items():
        for name in definitions(edit):
            edited.setdefault(name, path)
    if not edited:
        return []
    inside = {base.__name__ for module in model.modules() for base in type(module).__mro__}
    inside.add(target.rpartition(":")[2].partition("(")[0])
    found: dict[str, list[str]] = {}
    for file in files_around(edited.values()):
        for name, user, line in uses_in(file, edited, inside):
            found.setdefault(name, []).append(f"{user} ({display(file)}:{line})")
    return [
        f"{name} is used outside of this model as well, by {numbered(users, 3)}, which changes along with it"
        for name, users in found.items()
    ]


def definitions(edit: Edits) -> Iterator[str]:
    """The classes and functions of the file's top level that an edit is inside of."""
    touched = [
        *edit.changes, *edit.before, *edit.after, *edit.removed, *edit.unfolded, *edit.collapsed
    ]  # fmt: skip
    names = {}
    for node in touched:
        holder: cst.CSTNode | None = node
        while holder is not None:
            if isinstance(holder, (cst.ClassDef, cst.FunctionDef)):
                outer = holder
                names[outer.name.value] = edit.source.up(outer, (cst.ClassDef, cst.FunctionDef)) is None
            holder = edit.source.parent(holder)
    yield from (name for name, top in names.items() if top)


def files_around(paths: Iterable[Path]) -> Iterator[Path]:
    """The Python files of the project: below the current folder, and beside the edited ones."""
    seen: set[Path] = set()
    for root in dict.fromkeys([*(path.parent.resolve() for path in paths), Path.cwd()]):
        if root == Path(root.anchor):
            continue
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if not name.startswith(".") and name not in SKIPPED]
            for name in (name for name in names if name.endswith(".py")):
                file = Path(os.path.realpath(Path(folder) / name))  # bears loops of links
                if file.suffix == ".py" and file not in seen and len(seen) < MOST_FILES:
                    seen.add(file)
                    if not is_foreign(str(file)):
                        yield file
            if len(seen) >= MOST_FILES:
                return


def uses_in(file: Path, names: Mapping[str, Path], inside: set[str]) -> Iterator[tuple[str, str, int]]:
    """Each name that a file calls or subclasses, with who does it and where; the model's classes not."""
    try:
        text = file.read_text()
        named = [path for name, path in names.items() if name in text]
        if not any(file == path or _may_import(text, path) for path in named):
            return
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    known = {name for name, path in names.items() if path == file or _imported(imports, name, path)}
    for top in tree.body:
        user = getattr(top, "name", "")
        if user in inside or user in names or isinstance(top, (ast.Import, ast.ImportFrom)):
            continue
        for node in ast.walk(top):
            called = [node.func] if isinstance(node, ast.Call) else getattr(node, "bases", [])
            for callee in called:
                name = callee.attr if isinstance(callee, ast.Attribute) else getattr(callee, "id", "")
                if name in known:
                    yield name, user or "the file itself", callee.lineno


def _may_import(text: str, path: Path) -> bool:
    """Whether a text says `from … import` of a module that may lie at `path`; most need no parsing then."""
    modules = (re.sub(r"[\s\\]", "", module) for module in IMPORT_FROM.findall(text))
    return any(_may_be(module.rpartition(".")[2], path) for module in modules)


def _imported(imports: Iterable[ast.ImportFrom], name: str, path: Path) -> bool:
    """Whether one of the imports brings a name from a module that may lie at `path`."""
    return any(
        any(alias.name in (name, "*") for alias in node.names)
        and _may_be((node.module or "").rpartition(".")[2], path)
        for node in imports
    )


def _may_be(module: str, path: Path) -> bool:
    """Whether a module, by the last part of its name, is the file at `path` or a package that holds it."""
    return not module or module == path.stem or module in path.parent.parts
