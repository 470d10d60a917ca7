"""Predicted beside measured Δ at every norm behind a dropout, through the package's JSON report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import dropout_lint as dl
from dropout_lint.inputs.example import Inputs
from dropout_lint.trace import trace

from .closed import closed_forms
from .settings import Setting
from .truth import known, prepare

BASES = ("checkpoint", "shapes", "weights", "initial")
"""What a prediction is made from, and of what: the trained network from its file, from shapes alone, from
untrained weights; and the untrained network from its own weights."""
THRESHOLD = 0.95
ROWS = 4


@dataclass(frozen=True)
class Judged:
    """One norm, predicted from one basis.

    Attributes:
        true: measured Δ.
        predicted: NaN where the report says unknown.
        low, high: the interval, where one is given.
        closed: Δ by the papers' closed forms.
        shares: dropout → predicted share.
    """

    key: str
    network: str
    family: str
    kind: str
    p: float
    norm: str
    basis: str
    true: float
    predicted: float
    low: float
    high: float
    closed: float
    shares: Mapping[str, float]

    @property
    def known(self) -> bool:
        """Whether the report gives a figure."""
        return math.isfinite(self.predicted)

    @property
    def error(self) -> float:
        """|predicted - measured|."""
        return abs(self.predicted - self.true)

    @property
    def wrong_side(self) -> bool:
        """Predicted below the default threshold and measured above it, or the other way round."""
        return (self.predicted < THRESHOLD) != (self.true < THRESHOLD)


def reported(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, dict[str, Any]]:
    """Norm → its entry in the JSON report. A norm that is called more than once has its first entry."""
    report = json.loads(dl.lint(model, inputs).to_json())
    found: dict[str, dict[str, Any]] = {}
    for entry in report["targets"][0]["predictions"]:
        found.setdefault(entry["norm"], entry)
    return found


def number(value: Any) -> float:
    """A figure of the report; NaN for null."""
    return math.nan if value is None else float(value)


def judge(setting: Setting, cache: Path, tell: Callable[[str], None] = print) -> Iterator[Judged]:
    """Every norm behind a dropout, once for each basis; trained and measured now where the cache lacks it."""
    initial, trained, inputs, found = known(setting, prepare(setting, cache))
    few = inputs if setting.network.data().whole else tuple(x[:ROWS] for x in inputs)
    closed = closed_forms(trace(trained, Inputs(few)))
    reports = {"checkpoint": reported(trained, few), "weights": reported(initial, few)}
    reports["initial"] = reports["weights"]
    reports["shapes"] = reported(initial.to("meta"), few)
    for basis in BASES:
        for norm, measured in found["norms"].items():
            entry = reports[basis].get(norm)
            if entry is None:
                tell(f"{setting.key}: the report has no norm {norm}")
                entry = {"delta": None}
            figure = entry.get("delta_initial", entry["delta"]) if basis == "initial" else entry["delta"]
            low, high = (basis != "initial" and entry.get("interval")) or (None, None)
            true = measured["delta_initial" if basis == "initial" else "delta"]
            if true is None:  # published weights had a start that nobody knows
                continue
            yield Judged(
                setting.key,
                setting.network.name,
                setting.network.family,
                setting.kind,
                setting.p,
                norm,
                basis,
                true,
                number(figure),
                number(low),
                number(high),
                closed.get(norm, 1.0),
                entry.get("shares") or {},
            )


def of(rows: Sequence[Judged], basis: str) -> list[Judged]:
    """The rows of one basis."""
    return [row for row in rows if row.basis == basis]
