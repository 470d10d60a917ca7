"""The key of a kept result: all that decides it and is known before the target is built."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dropout_lint import __version__
from dropout_lint.config import Settings
from dropout_lint.config.settings import SHOWN
from dropout_lint.loading.roots import roots
from dropout_lint.rules import builtin_folder
from dropout_lint.runs.cache.manifest import digest, file_state, stamps

FORMAT = 2
# as the process began: models that are built make more folders importable
SEARCHED = tuple(dict.fromkeys(entry for entry in sys.path if entry))


def cache_key(target: str, settings: Settings) -> str:
    """What a result is kept under: target, settings, versions, this tool's own code, and the rules' texts."""
    own = settings.for_target(target)
    names = sorted(set(Settings.__struct_fields__) - SHOWN)
    decisive = {name: msgspec.to_builtins(getattr(own, name)) for name in names}
    parts = [
        f"{FORMAT} {__version__} {sys.version}".encode(),
        target.encode(errors="surrogateescape"),
        os.fsencode(Path.cwd()),
        os.fsencode(os.pathsep.join(SEARCHED)),
        os.fsencode(os.pathsep.join(str(folder) for folder in roots())),
        msgspec.json.encode(decisive, order="sorted"),
        *own_code(),
        *packages(),
        *(file_state(str(path)).encode() for path in rule_files(settings.rules)),
        file_state(own.checkpoint).encode() if own.checkpoint else b"",
    ]
    return digest(*parts)


def own_code() -> list[bytes]:
    """The state of this tool's own files: a development version changes without its number."""
    return stamps([str(Path(__file__).parents[2]), str(builtin_folder())], (".py", ".md", ".html"))


def packages() -> list[bytes]:
    """Names and versions of what is installed, from the names of its `.dist-info` folders."""
    found = []
    for folder in sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        with contextlib.suppress(OSError):
            found += [
                os.fsencode(name)
                for name in sorted(entry.name for entry in Path(folder).iterdir())
                if name.endswith((".dist-info", ".pth"))
            ]
    return found


def rule_files(rules: Iterable[str]) -> list[Path]:
    """The files of a project's own rules."""
    found: list[Path] = []
    for rule in rules:
        path = Path(rule)
        found += sorted(path.glob("**/*.md")) if path.is_dir() else [path]
    return found
