"""Pilots side by side: the model as it is and its graph fixed by each strategy, trained alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from dropout_lint.analysis import Analysis
from dropout_lint.errors import DropoutLintError, InputError
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.info import asked
from dropout_lint.fixes.plan.steps import Fixed
from dropout_lint.guard.alone import at_rest
from dropout_lint.guard.eager import eager
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.shapes import device_of
from dropout_lint.layers import STANDARD, Catalogue
from dropout_lint.measurement.batches import Batches, Picker, samples_of, to_device
from dropout_lint.measurement.losses import Loss
from dropout_lint.measurement.pilot import Pilot, train_and_measure
from dropout_lint.measurement.predicted import expected_deltas
from dropout_lint.measurement.session import Progress
from dropout_lint.measurement.sources import find_inputs
from dropout_lint.measurement.training import LEARNING_RATE, OPTIMIZER, SEED, empty_loader
from dropout_lint.measurement.validate import Validation, compared
from dropout_lint.report.pilot import pilot_lines
from dropout_lint.report.schema import CandidateInfo, PilotInfo
from dropout_lint.terms import STRATEGIES, Strategy
from dropout_lint.words import numbered

FEW = 8
"""Samples of the first batch that a model is traced with."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One network of a comparison.

    Attributes:
        strategy: of the fix; None for the model as it is.
        pilot: what training it led to.
        fixes: what the fix does, one line each.
        same_as: the strategy that gives the same network; it was trained once.
        expected: Δ by norm name as it was expected after training.
    """

    strategy: Strategy | None
    pilot: Pilot
    fixes: tuple[str, ...] = ()
    same_as: Strategy | None = None
    expected: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pilots:
    """The networks of a pilot, trained from the same weights on the same batches.

    Attributes:
        candidates: the model as it is first, then the fixes that change it.
        skipped: strategy → why it is not among them.
        notes: things to say aloud.
    """

    candidates: tuple[Candidate, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def before(self) -> Pilot:
        """The model as it is."""
        return self.candidates[0].pilot

    @property
    def delta(self) -> dict[str, float]:
        """Δ of every norm by name, of the model as it is after the training."""
        return self.before.shift.delta

    @property
    def fixed(self) -> dict[Strategy, Pilot]:
        """The fixed graphs by strategy."""
        return {one.strategy: one.pilot for one in self.candidates if one.strategy is not None}

    @property
    def info(self) -> PilotInfo:
        """The comparison as reports hold it."""
        first = self.before
        return PilotInfo(
            steps=first.steps,
            optimizer=OPTIMIZER,
            learning_rate=first.learning_rate,
            loss=first.loss,
            seed=first.seed,
            loss_steps=first.last_steps,
            held_back_batches=first.held_back.batches if first.held_back else 0,
            held_back_samples=first.held_back.samples if first.held_back else 0,
            candidates=[_candidate_info(one) for one in self.candidates],
            skipped=dict(self.skipped),
        )

    @property
    def validation(self) -> Validation:
        """Measured beside expected Δ, before and after the first fix."""
        first = self.candidates[0]
        after = self.candidates[1] if len(self.candidates) > 1 else None
        return compared(
            first.pilot.shift,
            None if after is None else after.pilot.shift,
            first.expected,
            {} if after is None else after.expected,
            steps=first.pilot.steps,
        )

    def __str__(self) -> str:
        return "\n".join(pilot_lines(self.info))


def _candidate_info(candidate: Candidate) -> CandidateInfo:
    pilot = candidate.pilot
    worst = pilot.shift.worst
    return CandidateInfo(
        strategy=candidate.strategy,
        same_as=candidate.same_as,
        fixes=list(candidate.fixes),
        worst_norm=worst.name,
        worst_delta=worst.delta,
        deltas=pilot.shift.delta,
        training_loss=pilot.training_loss,
        held_back_train_mode=pilot.held_back.train_mode if pilot.held_back else None,
        held_back_test_mode=pilot.held_back.test_mode if pilot.held_back else None,
    )


def run_pilots(
    model: nn.Module,
    source: Batches,
    steps: int,
    *,
    analysis: Analysis | None,
    compare_fixed: bool = False,
    loss: Loss | None = None,
    learning_rate: float = LEARNING_RATE,
    seed: int = SEED,
    per_dropout: bool = False,
    progress: Progress | None = None,
    catalogue: Catalogue = STANDARD,
    **measuring: Any,
) -> Pilots:
    """Train and measure a copy of the model and, with `compare_fixed`, its graph fixed by each strategy.

    A fix that fails in training is left out, and `skipped` says why; the model as it is must not.

    Args:
        model: as it is.
        source: the batches; every network gets the same.
        steps, loss, learning_rate, seed, progress, catalogue, measuring: as for `train_and_measure`.
        analysis: of the model; None where it could not be traced, and so not with `compare_fixed`.
        per_dropout: for the model as it is.

    Raises:
        UsageError, MeasureError: as `train_and_measure`.
        DropoutLintError: there is no fix to compare with.
    """
    fixes, skipped = fixes_of(analysis) if compare_fixed and analysis is not None else ({}, {})

    def trained(network: nn.Module, name: str, **more: Any) -> Pilot:
        def report(done: int, total: int | None, what: str) -> None:
            assert progress is not None
            progress(done, total, f"{name}: {what}" if fixes else what)

        return train_and_measure(
            network,
            source,
            steps,
            loss=loss,
            learning_rate=learning_rate,
            seed=seed,
            progress=None if progress is None else report,
            catalogue=catalogue,
            **measuring,
            **more,
        )

    expected = {} if analysis is None else expected_deltas(analysis.prediction)
    candidates = [Candidate(None, trained(model, "as it is", per_dropout=per_dropout), expected=expected)]
    for strategy, fixed in fixes.items():
        titles = tuple(one.title for one in fixed.applied)
        twin = next((one for one in candidates[1:] if one.fixes == titles), None)
        if twin is not None:
            candidates.append(Candidate(strategy, twin.pilot, titles, twin.strategy, twin.expected))
            continue
        try:
            pilot = trained(fixed.model, strategy)
        except DropoutLintError as problem:
            skipped[strategy] = problem.message
            continue
        candidates.append(Candidate(strategy, pilot, titles, expected=expected_deltas(fixed.after)))
    notes = [note for one in candidates for note in (*one.pilot.notes, *one.pilot.shift.notes)]
    return Pilots(tuple(candidates), skipped, tuple(dict.fromkeys(notes)))


def fixes_of(analysis: Analysis) -> tuple[dict[Strategy, Fixed], dict[str, str]]:
    """The fixed graph of every strategy that changes anything, and why the others do not.

    Raises:
        DropoutLintError: none does.
    """
    fixes: dict[Strategy, Fixed] = {}
    skipped: dict[str, str] = {}
    model = analysis.trace.model
    with at_rest(model), eager():
        wanted = asked(analysis.findings, "warning", analysis.options.select)
        for strategy in STRATEGIES:
            try:
                fixed = fix_graph(analysis, wanted, strategy=strategy)
            except DropoutLintError as problem:
                skipped[strategy] = problem.message
                continue
            if fixed.applied:
                fixes[strategy] = fixed
            else:
                skipped[strategy] = numbered(list(_why_not(fixed)), 2) or "it changes nothing"
    if not fixes:
        reasons = "; ".join(dict.fromkeys(skipped.values())) if wanted else ""
        raise DropoutLintError(
            f"there is no fix to compare with: {reasons}"
            if reasons
            else "nothing was found that a fix would change",
            "see `dropout-lint fix` for what can be done by hand, or leave out the comparison"
            " (--compare-fixed, compare_fixed)",
        )
    return fixes, skipped


def _why_not(fixed: Fixed) -> Iterator[str]:
    yield from dict.fromkeys(f"{skip.dropout or 'model'}: {skip.reason}" for skip in fixed.skipped)


def inputs_of(model: nn.Module, source: Batches) -> Inputs:
    """The first batch as the model takes it, to trace the model with: a few samples of it where that runs.

    Raises:
        UsageError: the loader is empty.
        MeasureError: the loader failed, or a batch does not fit forward.
    """
    for _, batch in source.read(1):
        where = device_of(model)
        picked: Inputs = to_device(Picker(model)(batch), where, copy=True)
        whole = replace(picked, origin="the first batch")
        few = _first_samples(whole, samples_of(whole))
        try:
            return find_inputs(model, few, where)
        except InputError:
            return whole
    raise empty_loader()


def _first_samples(inputs: Inputs, size: int) -> Inputs:
    """The first `FEW` of the `size` samples, in every tensor that has so many."""

    def cut(value: Any) -> Any:
        return value[:FEW] if isinstance(value, Tensor) and value.dim() and len(value) == size else value

    return replace(
        inputs,
        args=tuple(map(cut, inputs.args)),
        kwargs={name: cut(value) for name, value in inputs.kwargs.items()},
    )
