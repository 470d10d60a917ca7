"""Keeps results on disk, one file each; whatever is wrong with a file makes it a miss, never an error."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dropout_lint import __version__
from dropout_lint.config import Settings
from dropout_lint.config.settings import SHOWN
from dropout_lint.loading.roots import roots
from dropout_lint.report.outcome import Outcome
from dropout_lint.rules import RuleSet, builtin_folder
from dropout_lint.runs.cache.manifest import Manifest, digest, file_state, manifest_of, stamps
from dropout_lint.runs.cache.reads import watching

if TYPE_CHECKING:
    from dropout_lint.runs.check import Lint

FORMAT = 2
MOST_ENTRIES = 512


class Entry(msgspec.Struct, frozen=True):
    """One file of the cache."""

    key: str
    manifest: Manifest
    outcomes: list[Outcome]


@dataclass(frozen=True)
class Cache:
    """Results in a folder.

    Attributes:
        folder: where they are kept.
        written: absolute paths of files that this tool writes, which are nobody's input.
    """

    folder: Path
    written: frozenset[str] = field(default_factory=frozenset)

    def wrap(self, lint: Lint) -> Lint:
        """`lint`, done only where no result that still holds is kept."""

        def cached(target: str, settings: Settings, rules: RuleSet) -> list[Outcome]:
            key = key_of(target, settings)  # building a model may change `sys.path`
            kept = self.load(key)
            return kept if kept is not None else self.record(key, lint, target, settings, rules)

        return cached

    def load(self, key: str) -> list[Outcome] | None:
        """The kept result if everything that it depended on is as it was, else None."""
        try:
            entry = msgspec.json.decode((self.folder / f"{key}.json").read_bytes(), type=Entry)
            if entry.key != key or not entry.manifest.holds(self.written):
                return None
        except (OSError, ValueError, msgspec.MsgspecError):
            return None
        return entry.outcomes

    def record(self, key: str, lint: Lint, target: str, settings: Settings, rules: RuleSet) -> list[Outcome]:
        """Lint a target and keep the result, but not where it failed, was skipped or could not be watched."""
        with watching() as witness:
            outcomes = lint(target, settings, rules)
        done = all(item.info.status != "error" and item.info.skipped is None for item in outcomes)
        if witness.unseen is None and done:
            self.save(Entry(key, manifest_of(witness, self.written), outcomes))
        return outcomes

    def save(self, entry: Entry) -> None:
        """Write an entry at once; a folder that cannot be written is left alone."""
        with contextlib.suppress(OSError):
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")
                (self.folder / "CACHEDIR.TAG").write_text(
                    "Signature: 8a477f597d28d172789f06886806bc55\n", encoding="utf-8"
                )
            partial = self.folder / f".{entry.key}.{os.getpid()}.tmp"
            partial.write_bytes(msgspec.json.encode(entry))
            partial.replace(self.folder / f"{entry.key}.json")
            self.prune()

    def prune(self) -> None:
        """Delete the oldest entries beyond `MOST_ENTRIES`."""
        entries = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in entries[MOST_ENTRIES:]:
            path.unlink(missing_ok=True)


def key_of(target: str, settings: Settings) -> str:
    """What a result is kept under: target, settings, versions, this tool's own code, and the rules' texts."""
    own = settings.for_target(target)
    names = sorted(set(Settings.__struct_fields__) - SHOWN)
    decisive = {name: msgspec.to_builtins(getattr(own, name)) for name in names}
    parts = [
        f"{FORMAT} {__version__} {sys.version}".encode(),
        target.encode(errors="surrogateescape"),
        os.fsencode(Path.cwd()),
        os.fsencode(os.pathsep.join(sys.path)),
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
