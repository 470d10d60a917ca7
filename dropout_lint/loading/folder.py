"""Which files of a folder are worth importing, by their names and their source alone."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from torch import nn

from dropout_lint.loading.importing import shown
from dropout_lint.loading.usercode import first_line

_SKIPPED_FOLDERS = {
    "__pycache__", "site-packages", "node_modules", "build", "dist", "tests", "test", "venv", "env", "docs",
}  # fmt: skip
_SKIPPED_FILES = {"setup.py", "conftest.py", "noxfile.py", "__main__.py"}
_OTHER_BASES = (
    "object", "Exception", "Error", "Warning", "Enum", "Flag", "ABC", "Protocol", "NamedTuple", "TypedDict",
    "Dataset", "Sampler", "Loader", "Callback", "TestCase", "Optimizer", "Scheduler", "Function", "Config",
    "Struct",
)  # fmt: skip
SKIPPED_FUNCTIONS = ("main", "train", "test", "evaluate", "demo", "run")
# files of torch.nn.modules whose classes have no parameters, but for those with `reset_parameters`
_PARAMETERLESS = {
    "activation", "channelshuffle", "distance", "dropout", "flatten", "fold", "loss", "padding",
    "pixelshuffle", "pooling", "upsampling",
}  # fmt: skip

Makes = Callable[[ast.expr], bool]


@dataclass
class Passed:
    """What gave no model, each as a sentence.

    Attributes:
        notes: all of it.
        unseen: those of the notes that tell of what could not be looked at: a file that is no Python or
            cannot be imported, a candidate that raises. What is no model, or needs arguments, is not among
            them.
    """

    notes: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def add(self, what: str, why: str, *, unseen: bool = False) -> None:
        """Note that `what` was passed over."""
        note = f"{what} was passed over: {why}"
        self.notes.append(note)
        if unseen:
            self.unseen.append(note)


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
    if not _may_hold_models(tree):
        return False
    if any(_trains(node) for node in tree.body):
        passed.add(shown(file), "it trains as soon as it is imported; name the file to lint it")
        return False
    return True


def _may_hold_models(tree: ast.Module) -> bool:
    """Whether the source defines a class or a factory that could be a candidate, or builds a model."""
    nodes = list(_at_module_level(tree.body))
    known = _names_of_torch_nn(nodes)
    makers = {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        and (_is_annotated(node) or returns_made(node, lambda value: _is_layer(value, known)))
    }

    def makes(value: ast.expr) -> bool:
        called = value.func if isinstance(value, ast.Call) else None
        return _is_layer(value, known) or (isinstance(called, ast.Name) and called.id in makers)

    return any(_may_be_model(node, makes) for node in nodes)


def _at_module_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that an import runs, those inside `if`, `try` and `with` too."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)) and not _is_main_guard(node):
            yield from _at_module_level(node.body)
        if isinstance(node, (ast.If, ast.Try)) and not _is_main_guard(node):
            yield from _at_module_level(node.orelse)
        if isinstance(node, ast.Try):
            for part in (*(handler.body for handler in node.handlers), node.finalbody):
                yield from _at_module_level(part)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _may_be_model(node: ast.stmt, makes: Makes) -> bool:
    if isinstance(node, ast.ClassDef):
        bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        return any(not base.endswith(_OTHER_BASES) for base in bases)
    if isinstance(node, ast.FunctionDef):
        return _is_annotated(node) or (_may_be_factory(node) and returns_made(node, makes))
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        return _binds_public_name(node) and any(makes(_unchained(value)) for value in _items(node.value))
    return False


def _is_annotated(node: ast.FunctionDef) -> bool:
    return node.returns is not None and "Module" in ast.unparse(node.returns)


def _may_be_factory(node: ast.FunctionDef) -> bool:
    """Whether it is public and can be called without arguments."""
    given = node.args
    optional = (
        len(given.defaults) == len(given.posonlyargs) + len(given.args) and None not in given.kw_defaults
    )
    return optional and not node.name.startswith(("_", *SKIPPED_FUNCTIONS))


def _binds_public_name(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [item for target in targets for item in _items(target) if isinstance(item, ast.Name)]
    return any(not name.id.startswith("_") for name in names)


def _items(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, (ast.Tuple, ast.List)) else [node]


def _unchained(value: ast.expr) -> ast.expr:
    """`nn.Sequential(…)` of `nn.Sequential(…).eval()`."""
    while (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and isinstance(value.func.value, ast.Call)
    ):
        value = value.func.value
    return value


def _names_of_torch_nn(nodes: Sequence[ast.stmt]) -> dict[str, str]:
    """Names that a file's imports bind → what they are, for torch, torch.nn and what is in that."""
    known: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                known[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names = list(vars(nn)) if alias.name == "*" and node.module == "torch.nn" else [alias.name]
                known.update({(alias.asname or name): f"{node.module}.{name}" for name in names})
    return {name: meant for name, meant in known.items() if f"{meant}.".startswith("torch.")}


def _is_layer(value: ast.expr, known: Mapping[str, str]) -> bool:
    """Whether it is a call of a class of torch.nn that may have parameters, as a loss has none."""
    if not isinstance(value, ast.Call):
        return False
    head, dot, rest = ast.unparse(value.func).partition(".")
    package, _, name = f"{known.get(head, '')}{dot}{rest}".rpartition(".")
    if package != "torch.nn" and not package.startswith("torch.nn.modules"):
        return False
    return _may_have_parameters(vars(nn).get(name))


def _may_have_parameters(kind: object) -> TypeGuard[type[nn.Module]]:
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        return False
    resets = hasattr(kind, "reset_parameters") or hasattr(kind, "_reset_parameters")
    return resets or kind.__module__.rpartition(".")[2] not in _PARAMETERLESS


def returns_made(function: ast.FunctionDef, makes: Makes) -> bool:
    """Whether a `return` gives what `makes` says is a model, at once or by a name; it may come in a tuple."""
    made = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and makes(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            value = (
                node.value.elts[0] if isinstance(node.value, ast.Tuple) and node.value.elts else node.value
            )
            if makes(value) or (isinstance(value, ast.Name) and value.id in made):
                return True
    return False


def _trains(node: ast.stmt) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or _is_main_guard(node):
        return False
    return any(
        isinstance(item, ast.Attribute) and item.attr in ("backward", "fit") for item in ast.walk(node)
    )
