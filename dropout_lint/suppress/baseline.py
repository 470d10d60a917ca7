"""The baseline: known findings in one committed JSON file, keyed on target, code and qualified names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from dropout_lint.errors import ConfigError
from dropout_lint.report.identity import Key, key_of
from dropout_lint.report.schema import StaleInfo, SuppressedInfo, TargetInfo

DEFAULT_FILE = ".dropout-lint-baseline.json"


class Entry(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True, omit_defaults=True):
    """One known finding; `times` says how often it occurs."""

    code: str
    dropout: str = ""
    norm: str = ""
    times: int = 1


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: target → its known findings."""

    version: Literal[1] = 1
    targets: dict[str, list[Entry]] = {}


def read(file: str) -> Baseline:
    """Read a baseline file.

    Raises:
        ConfigError: the file is missing or is no baseline.
    """
    path = Path(file)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Baseline)
    except FileNotFoundError:
        raise ConfigError(f"no such baseline: {file}", "write one with --write-baseline") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(
            f"{file} is no baseline of version 1: {problem}", "write it anew with --write-baseline"
        ) from None
    except OSError as problem:
        raise ConfigError(f"cannot read {file}: {problem.strerror}", "check its permissions") from None


def apply(
    targets: Sequence[TargetInfo], baseline: Baseline, active: Iterable[str]
) -> tuple[list[TargetInfo], list[StaleInfo]]:
    """Take the known findings aside and name the entries that nothing matches.

    Entries of targets that were not linted, or only partly, and of rules that did not run, are not stale.
    """
    active = set(active)
    results = []
    stale = []
    for target in targets:
        left = Counter[Key]()
        for entry in baseline.targets.get(target.target, ()):
            left[entry.code, entry.dropout, entry.norm] += entry.times
        kept = []
        aside = list(target.suppressed)
        for finding in target.findings:
            key = key_of(finding)
            if left[key] > 0:
                left[key] -= 1
                aside.append(SuppressedInfo(by="baseline", finding=finding))
            else:
                kept.append(finding)
        if target.status == "ok":
            stale += [
                StaleInfo(target=target.target, code=code, dropout=dropout or None, norm=norm or None)
                for (code, dropout, norm), times in sorted(left.items())
                if code in active
                for _ in range(times)
            ]
        results.append(msgspec.structs.replace(target, findings=kept, suppressed=aside))
    return results, stale


def updated(baseline: Baseline, targets: Sequence[TargetInfo], active: Iterable[str]) -> Baseline:
    """The baseline with exactly the findings of `targets`; entries of other targets and rules stay."""
    active = set(active)
    entries = dict(baseline.targets)
    for target in targets:
        if target.status == "error":
            continue
        known = Counter[Key](key_of(finding) for finding in target.findings)
        for old in entries.get(target.target, ()):
            key = (old.code, old.dropout, old.norm)
            if old.code not in active or (target.status == "partial" and key not in known):
                known[key] += old.times
        entries[target.target] = sorted(Entry(*key, times=times) for key, times in known.items())
    return Baseline(targets={name: found for name, found in sorted(entries.items()) if found})


def encode(baseline: Baseline) -> str:
    """The text of the file: sorted and one line an entry, so that a diff shows what changed."""
    lines = []
    for target, entries in baseline.targets.items():
        body = ",\n".join(f"      {msgspec.json.encode(entry).decode()}" for entry in entries)
        lines.append(f"    {msgspec.json.encode(target).decode()}: [\n{body}\n    ]")
    inner = ",\n".join(lines)
    return '{\n  "version": 1,\n  "targets": {' + (f"\n{inner}\n  " if inner else "") + "}\n}\n"
