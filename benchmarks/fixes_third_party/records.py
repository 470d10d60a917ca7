"""What is kept of one model: what was found, promised, written and measured, and a maintainer's verdict."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import msgspec

VERDICTS = Path(__file__).with_name("verdicts.toml")
SAME = 1e-9
"""Two Δ of one prediction are the same up to this."""


class Finding(msgspec.Struct, frozen=True):
    """One finding of `check`, and what it promised.

    Attributes:
        applicability: `automatic`, `manual` or `none`.
        delta_after: the promised Δ at the finding's norm.
        by: what does it, None where nothing does.
    """

    code: str
    severity: str
    dropout: str
    norm: str | None
    applicability: str
    strategy: str | None
    title: str
    delta_after: float | None
    by: str | None = None


class Measured(msgspec.Struct, frozen=True):
    """Δ by brute force at one call of a norm, with its standard error."""

    norm: str
    delta: float
    error: float


class Record(msgspec.Struct, frozen=True):
    """One model.

    Attributes:
        findings: what `check` found.
        said: what `fix --write` said on stderr, a line each.
        diff: what it wrote, empty where it wrote nothing.
        status: its exit status.
        before: Δ at every norm as published.
        after: the same with the diff.
        predicted: Δ that a lint of the edited source shows, unrounded.
        left: codes that a lint of the edited source finds at warning or above, by dropout.
        trouble: what kept the benchmark, or the tool, from an answer.
    """

    model: str
    findings: tuple[Finding, ...] = ()
    said: tuple[str, ...] = ()
    diff: str = ""
    status: int = 0
    before: tuple[Measured, ...] = ()
    after: tuple[Measured, ...] = ()
    predicted: dict[str, float | None] = {}
    left: tuple[tuple[str, str], ...] = ()
    trouble: str = ""

    @property
    def key(self) -> str:
        """Names the diff: another diff has another key, and so no verdict."""
        return hashlib.sha256(self.diff.encode()).hexdigest()[:12]

    @property
    def asked(self) -> tuple[Finding, ...]:
        """The findings that `fix` is to answer."""
        return tuple(finding for finding in self.findings if finding.severity in ("warning", "error"))

    @property
    def did(self) -> tuple[str, ...]:
        """The titles of what was done."""
        lines = (line.partition(": ")[2] for line in self.said if line.startswith("lint_target"))
        return tuple(line for line in lines if line and not line.startswith(("left ", "nothing to fix")))

    @property
    def broken_promises(self) -> tuple[str, ...]:
        """Where `fix` did something else than `check` had promised, or another Δ came of it."""
        found = []
        done = {title.rpartition(" [")[0] or title for title in self.did}
        promised = [finding for finding in self.asked if finding.by == "dropout-lint fix"]
        left = {(dropout, code) for dropout, code in self.left}
        for finding in promised:
            answered = finding.strategy is None and (finding.dropout, finding.code) not in left
            if finding.title not in done and not answered:
                found.append(f"{finding.dropout} ({finding.code}): promised “{finding.title}”, not done")
            elif finding.norm and finding.delta_after is not None:
                now = self.predicted.get(finding.norm)
                if now is None or abs(now - finding.delta_after) > SAME:
                    found.append(f"{finding.norm}: promised Δ {finding.delta_after!r}, now {now!r}")
        titles = {finding.title for finding in promised if finding.strategy is not None}
        found += [f"not promised: {title}" for title in sorted(done - titles)]
        return tuple(found)


class Verdict(msgspec.Struct, frozen=True):
    """What a maintainer who read the diff says of it.

    Attributes:
        diff: `Record.key` of the diff that was read.
        merge: whether it would be merged as it is.
        why: one sentence.
    """

    model: str
    diff: str
    merge: bool
    why: str


def verdicts() -> dict[tuple[str, str], Verdict]:
    """All verdicts, by model and diff."""
    data = tomllib.loads(VERDICTS.read_text(encoding="utf-8"))
    found = msgspec.convert(data["verdict"], list[Verdict])
    return {(item.model, item.diff): item for item in found}
