"""What the command line says and does to a network: `check`, `fix --write` and `recalibrate`."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec

from dropout_lint.terms import Strategy

from ..command import run
from .subjects import Subject


class Finding(msgspec.Struct, frozen=True):
    """One finding of `check`; `delta` at its norm, None where it has none or it is unknown."""

    code: str
    severity: str
    dropout: str
    delta: float | None


class Checked(msgspec.Struct, frozen=True):
    """Predicted Δ at every norm, from shapes alone, and what is found."""

    deltas: dict[str, float | None]
    findings: tuple[Finding, ...]


class Fix(msgspec.Struct, frozen=True):
    """One `fix --write` of a network with its p.

    Attributes:
        before: what `check` says of the network as written.
        after: the same of the edited file.
        diff: what was written, empty for nothing.
        said: what the command said on stderr, a line each.
        status: its exit status.
    """

    before: Checked
    after: Checked
    diff: str
    said: tuple[str, ...]
    status: int

    @property
    def leaves(self) -> bool:
        """Whether the edited file has findings still."""
        return bool(self.after.findings)


def checked(folder: Path, subject: Subject, p: float) -> Checked:
    """`check` of the subject's file in a folder.

    Raises:
        RuntimeError: the tool could not do its job.
    """
    asked = (subject.target(p), "--input", subject.shape, "--exit-zero", "--no-cache")
    done = run(folder, "check", *asked, "--output-format", "json")
    if done.status:
        raise RuntimeError(f"check {subject.target(p)}: {done.err}")
    (found,) = json.loads(done.out)["targets"]
    return Checked(
        {norm["norm"]: norm["delta"] for norm in found["predictions"]},
        tuple(_finding(finding) for finding in found["findings"]),
    )


def _finding(finding: dict[str, Any]) -> Finding:
    dropout = finding["dropout"]
    return Finding(finding["code"], finding["severity"], dropout and dropout["name"], finding["delta"])


def fixed(folder: Path, subject: Subject, p: float, strategy: Strategy) -> Fix:
    """Copy the subject's file into a folder, and `fix --write` it there.

    Raises:
        RuntimeError: the tool could not do its job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy = Path(shutil.copy(subject.file, folder))
    before = checked(folder, subject, p)
    asked = (subject.target(p), "--input", subject.shape, "--strategy", strategy, "--write")
    done = run(folder, "fix", *asked)
    if done.status == 2:
        raise RuntimeError(f"fix {subject.target(p)}: {done.err}")
    old, new = (file.read_text(encoding="utf-8").splitlines(keepends=True) for file in (subject.file, copy))
    diff = "".join(difflib.unified_diff(old, new, f"a/{copy.name}", f"b/{copy.name}"))
    said = tuple(line for line in done.err.splitlines() if line.strip())
    return Fix(before, checked(folder, subject, p) if diff else before, diff, said, done.status)


def recalibrated(subject: Subject, p: float, checkpoint: Path) -> Path:
    """The checkpoint of the network as written with its statistics re-estimated on the training data.

    Raises:
        RuntimeError: the tool could not do its job.
    """
    output = checkpoint.with_suffix(".healed.pt")
    loader = f'benchmarks.retrain_fixed.data:batches("{subject.data}")'
    asked = (subject.target(p), "--checkpoint", str(checkpoint), "--data", loader, "--output", str(output))
    done = run(subject.file.parent, "recalibrate", *asked)
    if done.status:
        raise RuntimeError(f"recalibrate {subject.target(p)}: {done.err}")
    return output
