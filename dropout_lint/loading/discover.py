"""Find the models in a file or a folder.

A candidate is defined in the file itself (not imported, no leading underscore) and is

- a class that derives from `nn.Module`,
- an `nn.Module` at module level,
- a function without required arguments that is annotated to return a module, or whose `return` calls a
  class of modules or another such function (by its source, so that no function is called just to see).

A candidate that needs arguments, or raises, is passed over with a note. A class that is part of another
candidate of the same file is judged there, in its surroundings, and not on its own; so is a class whose
instance a factory returns. Modules without parameters (losses, activations) are no models.

In a folder, hidden folders, virtual environments, `site-packages`, `node_modules`, build folders, docs and
tests are not looked into, and only those files are imported whose source defines a class or function that
could be a candidate, or builds a model from torch.nn at module level, and that do not train there (see
`folder`). A file that is no Python is noted.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from dropout_lint.errors import DropoutLintError, NoModelError
from dropout_lint.loading.build import Made, make, missing_arguments
from dropout_lint.loading.folder import SKIPPED_FUNCTIONS, Passed, python_files, returns_made
from dropout_lint.loading.importing import import_target, shown
from dropout_lint.loading.parse import Call, Spec

Found = tuple[str, ModuleType, Made]


def discover(spec: Spec, ways: Sequence[str]) -> list[Found]:
    """Every model in a file or below a folder, as (target, module, model); notes are on the first.

    Raises:
        TargetError: a single file cannot be imported.
        NoModelError: no model was found; says what was passed over.
    """
    assert spec.path is not None
    passed = Passed()
    if spec.path.is_dir():
        found = [item for file in python_files(spec.path, passed) for item in _in_folder(file, ways, passed)]
    else:
        found = in_file(spec.path, ways, passed)
    if not found:
        raise NoModelError(
            f"found no model in {shown(spec.path)} that can be built without arguments",
            "name one with its arguments, `file.py:attr(kw=literal)`, or write a factory without arguments",
            details="\n".join(passed.notes) or None,
            passed=tuple(passed.notes),
            unseen=tuple(passed.unseen),
        )
    first = found[0][2]
    first.notes.extend(passed.notes)
    first.unseen.extend(passed.unseen)
    return found


def _in_folder(file: Path, ways: Sequence[str], passed: Passed) -> list[Found]:
    try:
        return in_file(file, ways, passed)
    except DropoutLintError as error:
        passed.add(shown(file), error.message, unseen=True)
        return []


def in_file(file: Path, ways: Sequence[str], passed: Passed) -> list[Found]:
    """Every model of one file, in the order of its lines; what was passed over is added to `passed`."""
    notes: list[str] = []
    module = import_target(Spec(str(file), None, file, None), notes)
    made: dict[str, Made] = {}
    failed: dict[str, str] = {}
    for name, value in _candidates(module):
        target = f"{shown(file)}:{name}"
        needed = _needs(value)
        if needed:
            passed.add(target, f"it needs {', '.join(needed)}")
            continue
        try:
            made[name] = make(value, Call((name,), called=not isinstance(value, nn.Module)), target, ways)
        except DropoutLintError as error:
            failed[name] = error.message
    inside = _inside(made)
    for name, why in failed.items():
        passed.add(f"{shown(file)}:{name}", why, unseen=vars(module)[name] not in inside)
    kept = _whole_models(module, made, inside, file, passed)
    if kept:
        next(iter(kept.values())).notes[:0] = notes
    return [(f"{shown(file)}:{name}", module, item) for name, item in kept.items()]


def _candidates(module: ModuleType) -> list[tuple[str, Any]]:
    factories = _factory_names(module)
    seen: set[int] = set()
    found = []
    for name, value in list(vars(module).items()):
        if name.startswith("_") or id(value) in seen:
            continue
        own = getattr(value, "__module__", None) == module.__name__
        is_class = (
            inspect.isclass(value) and issubclass(value, nn.Module) and own and not inspect.isabstract(value)
        )
        if is_class or isinstance(value, nn.Module) or (own and name in factories):
            seen.add(id(value))
            found.append((name, value))
    return found


def _needs(value: Any) -> list[str]:
    if isinstance(value, nn.Module):
        return []
    try:
        return missing_arguments(inspect.signature(value), Call(()))
    except (TypeError, ValueError):
        return []


def _factory_names(module: ModuleType) -> set[str]:
    """Functions of the file that return modules, by their annotation or their source."""
    functions = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, FunctionType)
        and value.__module__ == module.__name__
        and not name.startswith(("_", *SKIPPED_FUNCTIONS))
    }
    found = {name for name, value in functions.items() if _annotated(value)}
    trees = {name: tree for name, value in functions.items() if (tree := _source(value)) is not None}
    while True:
        makes = partial(_makes_model, module=module, factories=found)
        more = {name for name, tree in trees.items() if name not in found and returns_made(tree, makes)}
        if not more:
            return found
        found |= more


def _annotated(function: FunctionType) -> bool:
    returns = function.__annotations__.get("return")
    if isinstance(returns, str):
        returns = function.__globals__.get(
            returns.strip("'\""), getattr(nn, returns.rpartition(".")[2], None)
        )
    return inspect.isclass(returns) and issubclass(returns, nn.Module)


def _source(function: FunctionType) -> ast.FunctionDef | None:
    try:
        lines = inspect.getsource(function)
        tree = ast.parse(inspect.cleandoc("\n" + lines) if lines[:1].isspace() else lines).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    return tree if isinstance(tree, ast.FunctionDef) else None


def _makes_model(node: ast.expr, module: ModuleType, factories: set[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name) and node.func.id in factories:
        return True
    value: Any = _looked_up(node.func, module)
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _looked_up(node: ast.expr, module: ModuleType) -> Any:
    if isinstance(node, ast.Name):
        return vars(module).get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_looked_up(node.value, module), node.attr, None)
    return None


def _inside(made: dict[str, Made]) -> dict[Any, set[str]]:
    """Classes of modules → names of the models that hold one."""
    inside: dict[Any, set[str]] = {}
    for name, item in made.items():
        for part in item.model.modules():
            inside.setdefault(type(part), set()).add(name)
    return inside


def _whole_models(
    module: ModuleType, made: dict[str, Made], inside: dict[Any, set[str]], file: Path, passed: Passed
) -> dict[str, Made]:
    """Without the parts of others, and without modules that have no parameters."""
    kept = {}
    for name, item in made.items():
        value = vars(module).get(name)
        if inspect.isclass(value) and inside.get(value, set()) - {name}:
            continue
        if next(item.model.parameters(), None) is None:
            passed.add(f"{shown(file)}:{name}", "it has no parameters")
            continue
        kept[name] = item
    return kept
