"""Find the models in a file or a folder.

A candidate is defined in the file itself (not imported, no leading underscore) and is

- a class that derives from `nn.Module`,
- an `nn.Module` at module level, or a pair of one, or of what makes one, and example inputs,
- a function, or a `functools.partial`, that can be called without arguments and may return a module: by its
  annotation; by its source, through the functions, classes and tables that its `return` calls; or, where
  these leave it open, by its name (`build`, `make_small`, `get_model`) or that of what it calls
  (`timm.create_model`). Nothing is called just to see: what only its call would tell is named in a note.

A candidate that needs arguments, or raises, is passed over with a note. A class that is part of another
candidate of the same file is judged there, in its surroundings, and not on its own; so is a class whose
instance a factory returns. Modules without parameters (losses, activations) are no models.

In a folder, hidden folders, virtual environments, `site-packages`, `node_modules`, build folders, docs and
tests are not looked into, and only those files are imported whose source defines a class or function that
could be a candidate, or builds a model from torch.nn at module level, and that do not train there (see
`folder`). A file that is no Python is noted.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dropout_lint.errors import DropoutLintError, NoModelError
from dropout_lint.inputs.values import holds_tensor
from dropout_lint.loading.arguments import missing_arguments
from dropout_lint.loading.build import Made, NotAModelError, make
from dropout_lint.loading.factories import builds, function_of
from dropout_lint.loading.folder import Passed, python_files
from dropout_lint.loading.importing import import_target, shown
from dropout_lint.loading.naming import suggests_model
from dropout_lint.loading.parse import Call, Spec
from dropout_lint.loading.returns import May
from dropout_lint.loading.source import SKIPPED_FUNCTIONS

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
        among = " among what was tried" if passed.untried else ""
        raise NoModelError(
            f"found no model in {shown(spec.path)} that can be built without arguments{among}",
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
    untried: list[str] = []
    for name, value, may in _candidates(module):
        target = f"{shown(file)}:{name}"
        why = _why_untried(name, value, may)
        if why is not None:
            passed.add(target, why)
            continue
        if may is May.PERHAPS and not suggests_model(name):
            untried.append(name)
            continue
        try:
            made[name] = make(value, Call((name,), called=not _is_built(value)), target, ways)
        except NotAModelError as error:
            if may is May.SURELY:
                failed[name] = error.message
        except DropoutLintError as error:
            failed[name] = error.message
    inside = _inside(made)
    passed.leave(shown(file), untried)
    for name, why in failed.items():
        passed.add(f"{shown(file)}:{name}", why, unseen=vars(module)[name] not in inside)
    kept = _whole_models(module, made, inside, file, passed)
    if kept:
        next(iter(kept.values())).notes[:0] = notes
    return [(f"{shown(file)}:{name}", module, item) for name, item in kept.items()]


def _candidates(module: ModuleType) -> list[tuple[str, Any, May]]:
    """What of a file may be a model or give one, with how sure that is."""
    seen: set[int] = set()
    found: list[tuple[str, Any, May]] = []
    for name, value in list(vars(module).items()):
        if name.startswith("_") or id(value) in seen:
            continue
        may = _may_be_model(name, value, module)
        if may is not May.NOT:
            seen.add(id(value))
            found.append((name, value, may))
    return found


def _may_be_model(name: str, value: Any, module: ModuleType) -> May:
    if _is_built(value):
        return May.SURELY
    if isinstance(value, tuple):
        pair = len(value) == 2 and holds_tensor(value[1])
        return May.SURELY if pair and callable(value[0]) and builds(value[0]) is May.SURELY else May.NOT
    if inspect.isclass(value):
        own = value.__module__ == module.__name__ and not inspect.isabstract(value)
        return May.SURELY if own and issubclass(value, nn.Module) else May.NOT
    if isinstance(value, partial):
        # of a layer it is a way to make parts: `partial(nn.LayerNorm, eps=1e-6)`
        layer = getattr(value.func, "__module__", None) or ""
        return May.NOT if layer.startswith("torch.") or _needs(value) else builds(value)
    if getattr(function_of(value), "__module__", None) != module.__name__:
        return May.NOT
    may = builds(value)
    return May.NOT if may is May.PERHAPS and _needs(value) and not suggests_model(name) else may


def _is_built(value: Any) -> bool:
    """Whether it is a model, or one with its example inputs."""
    pair = isinstance(value, tuple) and len(value) == 2 and holds_tensor(value[1])
    return isinstance(value[0] if pair else value, nn.Module)


def _why_untried(name: str, value: Any, may: May) -> str | None:
    """Why a candidate is not tried; None where it may be."""
    if _is_built(value):
        return None
    needed = _needs(value[0] if isinstance(value, tuple) else value)
    if needed:
        return f"it needs {', '.join(needed)}"
    if may > May.PERHAPS and name.startswith(SKIPPED_FUNCTIONS) and not inspect.isclass(value):
        return "by its name it does more than build a model; name it to lint what it returns"
    return None


def _needs(value: Any) -> list[str]:
    try:
        return missing_arguments(inspect.signature(value), Call(()))
    except (TypeError, ValueError):
        return []


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
