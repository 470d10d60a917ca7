"""What the report says of each norm beside what was measured, and how that is counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .measured import Measured

BOUND = 0.03
"""|1 - Δ| from which on a norm counts as shifted, beyond two standard errors of the measurement."""
TOLD = BOUND / 2
"""|1 - Δ| from which on a figure tells of a shift: half the bound, since the figure has its own error."""


@dataclass(frozen=True)
class Judged:
    """One norm call.

    Attributes:
        measured: Δ by brute force, with `error`, its standard error.
        predicted: Δ of the untrained network by the report; None where the report says unknown.
        absent: the report does not name the norm.
    """

    norm: str
    measured: float
    error: float
    predicted: float | None
    absent: bool = False

    @property
    def shifted(self) -> bool:
        """Whether dropout truly shifts it."""
        return abs(1 - self.measured) > BOUND + 2 * self.error

    @property
    def unknown(self) -> bool:
        """Whether the report says that it does not know."""
        return self.predicted is None and not self.absent

    @property
    def found(self) -> bool:
        """Truly shifted, and the figure tells so."""
        if not self.shifted or self.predicted is None:
            return False
        told = 1 - self.predicted
        return abs(told) > TOLD and (told > 0) == (self.measured < 1)

    @property
    def silent(self) -> bool:
        """Truly shifted, and shown as harmless without a word, or not shown at all."""
        return self.shifted and not self.found and not self.unknown

    @property
    def false(self) -> bool:
        """Predicted as shifted, and truly is not."""
        return (
            self.predicted is not None and abs(1 - self.predicted) > BOUND and abs(1 - self.measured) < TOLD
        )


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        trouble: what kept the tool, or the benchmark, from a report; empty if nothing did.
        refused: whether that was said in the tool's own words, and not a crash.
        findings: code → how many.
    """

    model: str
    norms: tuple[Judged, ...] = ()
    trouble: str = ""
    refused: bool = False
    status: str = ""
    opaque: tuple[str, ...] = ()
    findings: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def count(self, what: str) -> int:
        """How many norms are `shifted`, `found`, `silent`, `unknown` or `false`."""
        return sum(getattr(norm, what) for norm in self.norms)

    @property
    def errors(self) -> list[float]:
        """|predicted - measured| wherever there is a figure."""
        return [abs(n.predicted - n.measured) for n in self.norms if n.predicted is not None]


def judged(
    measured: Sequence[Measured], target: Mapping[str, Any], names: Container[str]
) -> Iterator[Judged]:
    """Each measured call beside the report's entry for it: the n-th of that name, or the last.

    Args:
        measured: what was measured.
        target: the report.
        names: the model's submodules. A norm that is none is named by the part that holds it.
    """
    entries: dict[str, list[Mapping[str, Any]]] = {}
    for entry in target["predictions"]:
        entries.setdefault(entry["norm"], []).append(entry)
    opaque = (target.get("trace") or {}).get("opaque", [])
    turns: Counter[str] = Counter()
    for one in measured:
        named = entries.get(one.norm)
        if named is None:
            inside = one.norm not in names and bool(opaque)
            inside |= any(part == target["model"] or f"{one.norm}.".startswith(f"{part}.") for part in opaque)
            yield Judged(one.norm, one.delta, one.error, None, absent=not inside)
            continue
        entry = named[min(turns[one.norm], len(named) - 1)]
        turns[one.norm] += 1
        figure = entry.get("delta_initial", entry["delta"])
        yield Judged(one.norm, one.delta, one.error, figure if _finite(figure) else None)


def _finite(figure: float | None) -> bool:
    return figure is not None and math.isfinite(figure)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every norm of every model."""
    found = []
    for row in rows:
        data = asdict(row)
        data["norms"] = [
            [
                n.norm,
                round(n.measured, 4),
                round(n.error, 4),
                None if n.predicted is None else round(n.predicted, 4),
            ]
            for n in row.norms
        ]
        found.append(data)
    return found
