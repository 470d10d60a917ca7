"""Import the module or file that a target names, the way its own code expects to be imported."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from dropout_lint.errors import MissingImportError, TargetError
from dropout_lint.loading.compat import with_schemas
from dropout_lint.loading.parse import Spec
from dropout_lint.loading.roots import roots
from dropout_lint.loading.usercode import UserCodeError, user_code
from dropout_lint.words import listed


def import_target(spec: Spec, notes: list[str]) -> ModuleType:
    """The module of a target.

    Raises:
        TargetError: there is no such module, or importing it fails.
    """
    importable_project()
    if spec.module is not None:
        return import_name(spec.module, notes)
    assert spec.path is not None
    return import_file(spec.path, notes)


def importable_project() -> None:
    """Make the current directory importable, as with `python -m`, for good.

    The folders of the project (see `roots`) are importable behind it.
    """
    _importable(Path.cwd())
    behind = sys.path.index(str(Path.cwd())) + 1
    for folder in reversed(roots()):
        if str(folder) not in sys.path:
            sys.path.insert(behind, str(folder))
            importlib.invalidate_caches()


def import_name(name: str, notes: list[str]) -> ModuleType:
    """Import by dotted name."""
    try:
        return _import(name, f"importing `{name}`", notes)
    except UserCodeError as error:
        raise _explained(name, error) from error.__cause__


def import_file(path: Path, notes: list[str]) -> ModuleType:
    """Import a file under the name that its package gives it; on its own where it is in none.

    A file outside any package is imported relative to the project's folders or the current directory where
    that works (`models/net.py` is `models.net`), with its own folder importable, as if it were run.
    """
    path = path.resolve()
    name = _name_in_package(path)
    if name is None:
        _importable(path.parent)
        name = _name_below_root(path)
    if name is None or not _leads_to(name, path):
        return _import_alone(path, notes)
    try:
        return _import(name, f"importing {shown(path)}", notes)
    except UserCodeError as error:
        raise _explained(name, error) from error.__cause__


def shown(path: Path) -> str:
    """A path relative to the current directory where it is below it."""
    try:
        return str(Path(os.path.realpath(path)).relative_to(Path.cwd()))  # a circle of links is no error here
    except ValueError:
        return str(path)


def _importable(folder: Path) -> None:
    text = str(folder)
    if text not in sys.path:
        sys.path.insert(0, text)
        importlib.invalidate_caches()


def _import(name: str, doing: str, notes: list[str]) -> ModuleType:
    def run() -> ModuleType:
        with user_code(doing, name):
            return importlib.import_module(name)

    return with_schemas(run, notes)


def _name_in_package(path: Path) -> str | None:
    """Dotted name of a file in a package (`__init__.py`); the folder above becomes importable."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if folder == path.parent or not all(part.isidentifier() for part in parts):
        return None
    _importable(folder)
    return ".".join(parts)


def _name_below_root(path: Path) -> str | None:
    """Its dotted name from the deepest of the project's folders that it lies in."""
    holding = [folder for folder in {*roots(), Path.cwd()} if path.is_relative_to(folder)]
    if not holding:
        return None
    deepest = max(holding, key=lambda folder: len(folder.parts))
    parts = path.relative_to(deepest).with_suffix("").parts
    return ".".join(parts) if all(part.isidentifier() for part in parts) else None


def _leads_to(name: str, path: Path) -> bool:
    """Whether importing `name` gives this file and no other that has the same name."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return _same(getattr(loaded, "__file__", None), path)
    try:
        found = importlib.util.find_spec(name)
    except Exception:  # a package on the way raises while it is imported: the import itself will say so
        return True
    return found is not None and _same(found.origin, path)


def _same(file: str | None, path: Path) -> bool:
    return file is not None and Path(file).resolve() == path


def _import_alone(path: Path, notes: list[str]) -> ModuleType:
    name = f"{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]

    def run() -> ModuleType:
        made = importlib.util.spec_from_file_location(name, path)
        assert made is not None and made.loader is not None
        module = importlib.util.module_from_spec(made)
        sys.modules[name] = module
        try:
            with user_code(f"importing {shown(path)}", str(path)):
                made.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return module

    return with_schemas(run, notes)


def _explained(name: str, error: UserCodeError) -> TargetError:
    """A target that does not exist is told apart from one that needs something that is not installed."""
    cause = error.__cause__
    if not isinstance(cause, ModuleNotFoundError) or cause.name is None:
        return error
    missing = cause.name
    if name == missing or name.startswith(missing + "."):
        kind = TargetError if "." in missing else MissingImportError  # a package that is here lacks it
        return kind(f"there is no module `{missing}`", _near_module(name, missing))
    hint = f"install what provides `{missing.partition('.')[0]}` in this environment ({sys.prefix})"
    return MissingImportError(
        f"{error.message.split(' raised ')[0]} needs `{missing}`, which is not here",
        hint,
        details=error.details,
    )


def _near_module(name: str, missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    package = sys.modules.get(parent) if parent else None
    if package is not None and hasattr(package, last) and name == missing:
        return f"`{last}` is an attribute of `{parent}`: write `{parent}:{last}`"
    if parent:
        search = list(getattr(package, "__path__", []))
        if not search:
            return f"`{parent}` is a module and holds no others"
        candidates = [item.name for item in pkgutil.iter_modules(search)]
    else:
        names = {item.name for item in pkgutil.iter_modules()}
        candidates = sorted(names - sys.stdlib_module_names)  # no model is meant there
    # among so many, a short name is always a little like some other
    near = get_close_matches(last, candidates, n=1, cutoff=0.6 if parent else 0.7)
    if near:
        return f"did you mean `{parent + '.' if parent else ''}{near[0]}`?"
    own = [str(Path.cwd()), *(shown(folder) for folder in roots() if folder != Path.cwd())]
    places = listed([*own, f"this environment ({sys.prefix})"])
    more = 'for another folder put pythonpath = ["folder"] under [tool.dropout-lint]'
    return f"modules are looked for in {places}; {more}"
