"""Keeps results on disk, one file each; whatever is wrong with a file makes it a miss, never an error."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dropout_lint.config import Settings
from dropout_lint.report.outcome import Outcome
from dropout_lint.rules import RuleSet
from dropout_lint.runs.cache.key import cache_key
from dropout_lint.runs.cache.manifest import Manifest, manifest_of
from dropout_lint.runs.cache.reads import watching

if TYPE_CHECKING:
    from dropout_lint.runs.check import Lint

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
            key = cache_key(target, settings)
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
