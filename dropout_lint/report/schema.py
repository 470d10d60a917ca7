"""The report as it is written to JSON (schema version 1); every format renders these structs."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dropout_lint.config.installed import short
from dropout_lint.terms import Basis, Severity, Strategy

READ = "read"
"""`TraceInfo.method` of a deployed program: nothing was run, and no input is needed."""


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all report structs."""


class Place(Struct, frozen=True, kw_only=True):
    """A line of source; `file` is relative to the current directory, or to where packages are installed."""

    file: str
    line: int
    column: int = 1


class DropoutInfo(Struct, frozen=True, kw_only=True):
    """The dropout that a finding is about.

    `call_is_own`: the line of `call` calls the dropout itself, and not the `nn.Sequential` that holds it.
    """

    name: str
    kind: str
    p: float | None
    functional: bool
    location: Place | None
    call: Place | None
    call_is_own: bool = True


class NormInfo(Struct, frozen=True, kw_only=True):
    """The norm that a finding is about."""

    name: str
    kind: str


class NormShiftInfo(NormInfo, frozen=True, kw_only=True):
    """A norm of a finding with its Δ; the figures are as in `FindingInfo`."""

    delta: float | None
    interval: tuple[float, float] | None = None
    delta_initial: float | None = None


class EditInfo(Struct, frozen=True, kw_only=True):
    """One edit of a source file: lines `first` to `last` (both included, from 1) become `text`."""

    file: str
    first: int
    last: int
    text: str


class FixInfo(Struct, frozen=True, kw_only=True):
    """What can be done about a finding; `by` is what does it: null where nothing does, or it is not known."""

    applicability: Literal["automatic", "manual", "none"]
    strategy: str | None
    title: str
    delta_after: float | None = None
    by: Literal["dropout-lint fix", "dl.fix"] | None = None
    edits: list[EditInfo] = []


class FindingInfo(Struct, frozen=True, kw_only=True):
    """One finding. `delta` is of the trained network, null where it is unknown.

    `interval` is where it lies nine times in ten, null with a checkpoint; `delta_initial` is Δ before
    training. A finding about norms alone is one for the model: `norms` are those that it is about, the lowest
    Δ first, and `norm` and the figures are those of the first. It is empty where a dropout is meant.
    """

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
    interval: tuple[float, float] | None = None
    delta_initial: float | None = None
    basis: Basis | None
    fix: FixInfo
    source: str
    norms: list[NormShiftInfo] = []


class SuppressedInfo(Struct, frozen=True, kw_only=True):
    """A finding that does not count: an ignore comment in the source or the baseline says so."""

    by: Literal["source", "baseline"]
    finding: FindingInfo
    reason: str = ""


class IgnoreInfo(Struct, frozen=True, kw_only=True):
    """An ignore comment that suppresses nothing; `codes` are those of its codes that do not occur.

    `why` says what else is wrong with it: it names no rule, or none that there is, or is no ignore comment.
    """

    place: Place
    codes: list[str]
    why: str = ""

    @property
    def told(self) -> str:
        """`unused ignore of DL101`, or what is wrong with the comment."""
        return self.why or f"unused ignore of {', '.join(self.codes)}"


class PredictionInfo(Struct, frozen=True, kw_only=True):
    """Predicted Δ at one norm, null where it is unknown; `interval` and `delta_initial` as in `FindingInfo`.

    `shifts` is False for a norm that does not remember the training variance; `unknown`: the draws and
    operations for which Δ is not known there, as `net.py:31 torch.randn_like`; `approximate`: the operations
    on the way there without a rule, whose moments were read off samples; `probed`: Δ is what a run of the
    trained network showed, on inputs recovered from its norms' statistics.
    """

    norm: str
    delta: float | None
    interval: tuple[float, float] | None = None
    delta_initial: float | None = None
    basis: Basis
    shares: dict[str, float]
    shifts: bool = True
    unknown: list[str] = []
    approximate: list[str] = []
    probed: bool = False


class MeasurementInfo(Struct, frozen=True, kw_only=True):
    """Measured Δ at one norm: 95 % interval, and how far the mean moves in train standard deviations.

    `pilot_steps`: the steps that a copy was trained for before all of this was measured; `predicted` is then
    Δ as it is expected after training, and `after_fix` of the first fix among the pilot's candidates. 0:
    measured as it is, and predicted so.
    """

    norm: str
    delta: float
    shift_ratio: float
    after_fix: float | None = None
    low: float | None = None
    high: float | None = None
    mean_shift: float | None = None
    predicted: float | None = None
    predicted_after: float | None = None
    basis: Basis = "measured"
    pilot_steps: int = 0


class CandidateInfo(Struct, frozen=True, kw_only=True):
    """One network of a pilot: the model as it is (`strategy` null), or its graph fixed by a strategy.

    Attributes:
        strategy: of the fix.
        same_as: the strategy that gives the same network; it was trained once.
        fixes: what the fix does.
        worst_norm, worst_delta: the norm with the largest shift ratio, and its Δ.
        deltas: measured Δ by norm.
        training_loss: mean over the last steps, in train mode.
        held_back_train_mode, held_back_test_mode: mean loss of the batches that were held back, null where
            there were none.
        basis: what Δ speaks of: this network, trained for the steps of the pilot.
    """

    strategy: Strategy | None
    same_as: Strategy | None = None
    fixes: list[str] = []
    worst_norm: str
    worst_delta: float
    deltas: dict[str, float]
    training_loss: float
    held_back_train_mode: float | None
    held_back_test_mode: float | None
    basis: Basis = "measured"


class PilotInfo(Struct, frozen=True, kw_only=True):
    """How copies of the model were trained before they were measured, and what came of it.

    `loss_steps`: the last steps that `training_loss` is the mean over; `skipped`: why a strategy is not among
    the candidates.
    """

    steps: int
    optimizer: str
    learning_rate: float
    loss: str
    seed: int
    loss_steps: int
    held_back_batches: int
    held_back_samples: int
    candidates: list[CandidateInfo]
    skipped: dict[str, str] = {}


class MeasuredInfo(Struct, frozen=True, kw_only=True):
    """How a target was measured; `gaps`: why a norm has no number; `shares`: norm → dropout → share.

    `pilot`: what was trained before, null where the model was measured as it is.
    """

    batches: int
    samples: int
    device: str
    processes: int
    statistics: str
    random_inputs: bool
    gaps: dict[str, str] = {}
    shares: dict[str, dict[str, float]] = {}
    pilot: PilotInfo | None = None


class TraceInfo(Struct, frozen=True, kw_only=True):
    """How the model was traced; `reasons` says for each opaque part why."""

    method: str
    nodes: int
    opaque: list[str]
    reasons: dict[str, str] = {}


class TargetInfo(Struct, frozen=True, kw_only=True):
    """Everything about one target; `skipped` says why one that is optional was not linted."""

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
    suppressed: list[SuppressedInfo] = []
    unused_ignores: list[IgnoreInfo] = []
    inputs_origin: str | None = None
    help: str | None = None
    notes: list[str] = []
    measured: MeasuredInfo | None = None
    skipped: str | None = None


class StaleInfo(Struct, frozen=True, kw_only=True):
    """A baseline entry that no finding matches any more."""

    target: str
    code: str
    dropout: str | None
    norm: str | None


class Summary(Struct, frozen=True, kw_only=True):
    """Counts over all targets."""

    error: int = 0
    warning: int = 0
    info: int = 0
    suppressed: int = 0
    baselined: int = 0


class ToolInfo(Struct, frozen=True, kw_only=True):
    """Which tool wrote the report."""

    name: str
    version: str


class Report(Struct, frozen=True, kw_only=True):
    """The whole report."""

    version: int
    tool: ToolInfo
    targets: list[TargetInfo]
    summary: Summary
    stale_baseline: list[StaleInfo] = []

    def to_json(self, indent: int = 2) -> str:
        """The JSON text of schema version 1; files of installed packages are named from the package on."""
        held = msgspec.json.encode(_shortened(msgspec.to_builtins(self)))
        return msgspec.json.format(held, indent=indent).decode()


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, dict):
        return {
            name: short(item) if name == "file" and isinstance(item, str) else _shortened(item)
            for name, item in value.items()
        }
    return value
