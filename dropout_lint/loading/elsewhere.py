"""Where else in its package a name is, for the hint about a target whose module lacks it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from inspect import getattr_static
from pathlib import Path
from types import ModuleType
from typing import Any

MOST_FILES = 500  # a hint is not worth reading more than these


def modules_with(owner: ModuleType, attrs: Sequence[str]) -> list[str]:
    """Other modules of an owner's package that hold something callable, the nearest first.

    Args:
        owner: the module that lacks it.
        attrs: its name in a module, then those of its own attributes that lead on.

    Nothing is imported: modules that are loaded are looked into, of the others the source is read. Nothing is
    raised either.
    """
    try:
        whole = owner.__name__.partition(".")[0]
        for package in dict.fromkeys((owner.__name__, whole)):
            found = _loaded(package, attrs) or _written(package, attrs[0])
            if found:
                return found
    except Exception:  # foreign modules and files may do as they like; there is only a hint to lose
        return []
    return []


def _loaded(package: str, attrs: Sequence[str]) -> list[str]:
    """A package and the loaded modules below it; of those that hold one and the same object, the nearest."""
    homes: dict[int, str] = {}
    for home, module in sorted(sys.modules.items(), key=lambda item: (item[0].count("."), item[0])):
        below = home == package or home.startswith(f"{package}.")
        if not below or not isinstance(module, ModuleType) or _is_private(home):
            continue
        value = vars(module).get(attrs[0])  # a lazy module would import for `getattr`
        if callable(value) and _leads_on(value, attrs[1:]):
            homes.setdefault(id(value), home)
    return list(homes.values())


def _leads_on(value: Any, attrs: Sequence[str]) -> bool:
    for name in attrs:
        value = getattr_static(value, name, None)
    return value is not None


def _written(package: str, name: str) -> list[str]:
    """Modules below a package that are not loaded, and whose source defines a function or class."""
    pattern = re.compile(rf"^(?:def|class)\s+{re.escape(name)}\b".encode(), re.MULTILINE)
    return [
        home
        for home, file in _sources(package)
        if home not in sys.modules and not _is_private(home) and pattern.search(file.read_bytes())
    ]


def _sources(package: str) -> Iterator[tuple[str, Path]]:
    """The module files below a package, the nearest first, with their names."""
    folders = [(package, Path(folder)) for folder in getattr(sys.modules.get(package), "__path__", ())]
    left = MOST_FILES
    while folders and left > 0:
        prefix, folder = folders.pop(0)
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and entry.name.isidentifier():
                folders.append((f"{prefix}.{entry.name}", entry))
            elif entry.suffix == ".py" and left > 0:
                left -= 1
                yield prefix if entry.stem == "__init__" else f"{prefix}.{entry.stem}", entry


def _is_private(home: str) -> bool:
    return any(part.startswith("_") for part in home.split("."))
