"""The report as it is written to JSON (schema version 1); every format renders these structs."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all report structs."""


class Place(Struct):
    """A line of source; `file` is relative to the current directory where it can be."""

    file: str
    line: int
    column: int = 1


class DropoutInfo(Struct):
    """The dropout that a finding is about."""

    name: str
    kind: str
    p: float | None
    functional: bool
    location: Place | None
    call: Place | None


class NormInfo(Struct):
    """The norm that a finding is about."""

    name: str
    kind: str


class FixInfo(Struct):
    """What can be done about a finding."""

    applicability: Literal["automatic", "manual", "none"]
    strategy: str | None
    title: str
    delta_after: float | None = None


class FindingInfo(Struct):
    """One finding."""

    code: str
    name: str
    severity: Severity
    message: str
    dropout: DropoutInfo | None
    norm: NormInfo | None
    path: list[str]
    weights_between: int | None
    width: int | None
    position: str | None
    delta: float | None
    basis: str | None
    fix: FixInfo
    source: str


class PredictionInfo(Struct):
    """Predicted Δ at one norm."""

    norm: str
    delta: float
    basis: str
    shares: dict[str, float]


class MeasurementInfo(Struct):
    """Measured Δ at one norm."""

    norm: str
    delta: float
    shift_ratio: float
    after_fix: float | None = None


class TraceInfo(Struct):
    """How the model was traced."""

    method: str
    nodes: int
    opaque: list[str]


class TargetInfo(Struct):
    """Everything about one target."""

    target: str
    status: Literal["ok", "partial", "error"]
    error: str | None = None
    model: str | None = None
    inputs: list[str] = []
    inputs_guessed: bool = False
    trace: TraceInfo | None = None
    findings: list[FindingInfo] = []
    predictions: list[PredictionInfo] = []
    measurements: list[MeasurementInfo] = []


class Summary(Struct):
    """Counts over all targets."""

    error: int = 0
    warning: int = 0
    info: int = 0
    suppressed: int = 0
    baselined: int = 0


class ToolInfo(Struct):
    """Which tool wrote the report."""

    name: str
    version: str


class Report(Struct):
    """The whole report."""

    version: int
    tool: ToolInfo
    targets: list[TargetInfo]
    summary: Summary

    def to_json(self, indent: int = 2) -> str:
        """The JSON text of schema version 1."""
        return msgspec.json.format(msgspec.json.encode(self), indent=indent).decode()
