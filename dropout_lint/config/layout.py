"""Where a project's packages lie: `src/`, and what pyproject.toml tells build tools and pytest of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any


def source_folders(root: Path, document: Mapping[str, Any]) -> list[Path]:
    """The folders that a project's modules are imported from, beside the project's own; those that exist.

    Args:
        root: the folder of the project.
        document: its pyproject.toml, {} where there is none. What is written there for another tool and is
            not of the form that the tool reads is no concern of this one.
    """
    named = [*_setuptools(document), *_hatch(document), *_poetry(document), *_others(document)]
    found: dict[Path, None] = {}
    for name in [*named, "src"]:
        folder = (root / name).resolve()
        package = (folder / "__init__.py").exists()  # then it is `src` itself that is imported
        whole = folder in (root.resolve(), folder.parent)  # a slash is its own parent
        if folder.is_dir() and not whole and not package:
            found[folder] = None
    return list(found)


def _at(document: object, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]


def _setuptools(document: Mapping[str, Any]) -> Iterator[str]:
    folders = _at(document, "tool", "setuptools", "package-dir")
    for package, folder in folders.items() if isinstance(folders, Mapping) else ():
        for text in _texts(folder):
            yield from _above(package, text)
    yield from _texts(_at(document, "tool", "setuptools", "packages", "find", "where"))


def _above(package: str, folder: str) -> Iterator[str]:
    """The folder that `package` is imported from when it lies in `folder`; none where it is renamed."""
    parts = PurePosixPath(*package.split(".")) if package else PurePosixPath()
    path = PurePosixPath(folder)
    if not package:
        yield folder
    elif path.parts[-len(parts.parts) :] == parts.parts:
        yield str(PurePosixPath(*path.parts[: -len(parts.parts)]))


def _hatch(document: Mapping[str, Any]) -> Iterator[str]:
    build = _at(document, "tool", "hatch", "build")
    for table in (build, _at(build, "targets", "wheel")):
        for package in _texts(_at(table, "packages")):
            yield str(PurePosixPath(package).parent)
        sources = _at(table, "sources")
        yield from _texts(list(sources) if isinstance(sources, Mapping) else sources)
        yield from _texts(_at(table, "dev-mode-dirs"))


def _poetry(document: Mapping[str, Any]) -> Iterator[str]:
    packages = _at(document, "tool", "poetry", "packages")
    for package in packages if isinstance(packages, list) else ():
        yield from _texts(_at(package, "from"))


def _others(document: Mapping[str, Any]) -> Iterator[str]:
    """pdm, uv, scikit-build, maturin, and pytest, which has to find the same modules."""
    yield from _texts(_at(document, "tool", "pdm", "build", "package-dir"))
    yield from _texts(_at(document, "tool", "uv", "build-backend", "module-root"))
    for package in _texts(_at(document, "tool", "scikit-build", "wheel", "packages")):
        yield str(PurePosixPath(package).parent)
    yield from _texts(_at(document, "tool", "maturin", "python-source"))
    paths = _at(document, "tool", "pytest", "ini_options", "pythonpath")
    yield from [word for text in _texts(paths) for word in text.split()]
