"""One lint of one model, as the command line reports it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from ..command import run
from ..prediction.work import code
from ..retrain_fixed.rows import farthest
from .targets import Target


class Found(msgspec.Struct, frozen=True):
    """One finding.

    Attributes:
        delta: predicted at its norm, None where it has none or it is unknown.
        where: file and line of the dropout.
    """

    code: str
    severity: str
    delta: float | None
    where: str


class Linted(msgspec.Struct, frozen=True):
    """One model.

    Attributes:
        status: `ok`, `partial` or `error`.
        worst: predicted Δ farthest from 1 over its norms, as a ratio; None where no dropout reaches one.
        trouble: what kept the tool from an answer.
    """

    package: str
    name: str
    rates: str
    status: str
    worst: float | None
    findings: tuple[Found, ...]
    trouble: str = ""

    @property
    def loud(self) -> tuple[Found, ...]:
        """What fails a run: warnings and errors."""
        return tuple(found for found in self.findings if found.severity != "info")


ASKED = ("--output-format", "json", "--exit-zero", "--no-cache")


def kept(target: Target, cache: Path) -> Linted | None:
    """An earlier lint of this model by the same source of the tool."""
    file = _file(target, cache)
    return msgspec.json.decode(file.read_bytes(), type=Linted) if file.exists() else None


def lint(target: Target, cache: Path, limit: int) -> Linted:
    """`check` of a model, kept in a folder."""
    said = run(cache, "check", target.name, *ASKED, limit=limit)
    try:
        (answer,) = json.loads(said.out)["targets"]
        done = _linted(target, answer)
    except ValueError:  # no report came
        why = said.err[-200:] if said.status >= 0 else f"longer than {limit} s"
        done = Linted(target.package, target.name, target.rates, "error", None, (), why)
    _file(target, cache).write_bytes(msgspec.json.encode(done))
    return done


def _file(target: Target, cache: Path) -> Path:
    return cache / f"{hashlib.sha1(f'{target.name} {code()}'.encode()).hexdigest()[:12]}.json"


def _linted(target: Target, answer: dict[str, Any]) -> Linted:
    deltas = [norm["delta"] for norm in answer["predictions"] if norm["shifts"] and norm["shares"]]
    return Linted(
        target.package,
        target.name,
        target.rates,
        answer["status"],
        farthest(deltas) if any(deltas) else None,
        tuple(map(_finding, answer["findings"])),
        (answer["error"] or "").splitlines()[0] if answer["error"] else "",
    )


def _finding(finding: dict[str, Any]) -> Found:
    dropout = finding["dropout"] or {}
    place = dropout.get("call") or dropout.get("location")
    where = f"{place['file']}:{place['line']}" if place else dropout.get("name", "")
    return Found(finding["code"], finding["severity"], finding["delta"], where)
