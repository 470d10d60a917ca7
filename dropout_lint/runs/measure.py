"""One target measured and compared with its prediction, for `measure` and for `check --validate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import torch
from torch import nn
from torch.utils.data.distributed import DistributedSampler

from dropout_lint.analysis import Analysis, Options, analyse
from dropout_lint.config import Settings
from dropout_lint.errors import DropoutLintError, InputError, MeasureError, TraceError, UsageError
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.steps import Fixed
from dropout_lint.guard.alone import at_rest
from dropout_lint.inputs.example import Built, Inputs
from dropout_lint.layers import Catalogue
from dropout_lint.loading.resolving import resolve
from dropout_lint.measurement.batches import Batches
from dropout_lint.measurement.losses import Loss
from dropout_lint.measurement.pilot import check_pilot
from dropout_lint.measurement.place import move, place
from dropout_lint.measurement.progress import progress_bar
from dropout_lint.measurement.run import NAN
from dropout_lint.measurement.sources import (
    RANDOM_BATCHES,
    example_batches,
    find_inputs,
    load_batches,
    load_function,
    random_batches,
)
from dropout_lint.measurement.training import LEARNING_RATE, SEED
from dropout_lint.measurement.validate import Validation, validate
from dropout_lint.prediction import available_basis
from dropout_lint.prediction.probe import recovered_inputs
from dropout_lint.prediction.shifts import Prediction
from dropout_lint.report.measured import measurement_infos
from dropout_lint.report.schema import MeasuredInfo, PilotInfo, TargetInfo
from dropout_lint.rules import RuleSet
from dropout_lint.runs.failures import unmeasured
from dropout_lint.runs.linting import options_of
from dropout_lint.runs.pilot import inputs_of, run_pilots
from dropout_lint.trace import trace

NOISE = "random noise"
RECOVERY_AT_MOST = 2e12
"""Multiplications that recovering a trained model's inputs may cost where it is to be measured: a minute."""


def validated(target: TargetInfo, settings: Settings, rules: RuleSet) -> TargetInfo:
    """A target with its model measured on random batches, before and after the graph fix, or a note why not.

    Args:
        target: what was found in one model.
        settings: the settings of all targets.
        rules: the rules that may run.
    """
    own = settings.for_target(target.target)
    try:
        found, _ = measured(
            target=target.target,
            input=tuple(own.input),
            checkpoint=own.checkpoint,
            compare_fixed=bool(target.findings),
            quiet=True,
            options=options_of(own, rules),
        )
    except Exception as problem:  # findings are worth more than a measurement
        return unmeasured(target, problem)
    notes = list(dict.fromkeys([*target.notes, *found.notes]))
    return msgspec.structs.replace(
        target, notes=notes, measurements=found.measurements, measured=found.measured
    )


def measured(
    *,
    target: str,
    data: str | None = None,
    batches: int | None = None,
    batch_size: int | None = None,
    input: tuple[str, ...] = (),
    checkpoint: str | None = None,
    device: str = "auto",
    amp: bool = False,
    statistics: str = "auto",
    tolerance: float = 0.01,
    per_dropout: bool = False,
    compare_fixed: bool = False,
    plot: str | None = None,
    quiet: bool = False,
    fix_required: bool = False,
    options: Options | None = None,
) -> tuple[TargetInfo, Validation]:
    """Build, measure and compare one target.

    Where there is no fix to compare with, that is an error with `fix_required` and a note without.

    Raises:
        DropoutLintError: it cannot be built, run, measured or fixed.
    """
    del plot
    if data is not None and batch_size is not None:
        raise UsageError(
            "--batch-size is for random batches, and --data brings its own", "leave one of them out"
        )
    built = only_model(target, input, checkpoint)
    notes = list(built.notes)
    where, moves = place(built.model, device)
    if moves:
        move(built.model, where)
    inputs = None
    if data is None or not quiet or compare_fixed:
        try:
            inputs = find_inputs(built.model, built.inputs, where)
        except DropoutLintError:
            if data is None:
                raise
    catalogue = (options or Options()).catalogue
    source, whose = _batches_of(
        built, data, inputs, where, catalogue, count=batches, samples=batch_size, notes=notes
    )
    before, after, fixed = predictions(
        built,
        inputs,
        options or Options(),
        compare_fixed=compare_fixed,
        fix_required=fix_required,
        notes=notes,
    )
    if before is not None and before.basis != "checkpoint":
        notes.append("the weights are untrained: Δ, measured and predicted, is that of the network as it is")
    # random inputs do not look like the training data, so stored statistics would show the data instead
    chosen = "measured" if statistics == "auto" and data is None else statistics
    with _blamed_on(whose), progress_bar(quiet=quiet) as progress:
        result = validate(
            built.model,
            source,
            predicted=before,
            fixed=fixed,
            predicted_after=after,
            device=where,
            catalogue=catalogue,
            max_batches=batches,
            autocast=True if amp else None,
            per_dropout=per_dropout,
            tolerance=tolerance or None,
            statistics=chosen,
            shard=not shared_out(source),
            progress=progress,
        )
    return told(built, result, notes, data=data, whose=whose, inputs=inputs), result


def piloted(
    *,
    target: str,
    data: str | None,
    pilot: int,
    loss: str | None = None,
    learning_rate: float = LEARNING_RATE,
    seed: int = SEED,
    batches: int | None = None,
    input: tuple[str, ...] = (),
    checkpoint: str | None = None,
    device: str = "auto",
    amp: bool = False,
    statistics: str = "auto",
    tolerance: float = 0.01,
    per_dropout: bool = False,
    compare_fixed: bool = False,
    quiet: bool = False,
    options: Options | None = None,
) -> tuple[TargetInfo, Validation]:
    """Build one target, train copies of it and of its fixes, and measure them.

    Raises:
        DropoutLintError: it cannot be built, trained, measured or fixed.
    """
    if data is None:
        raise UsageError(
            "--pilot trains on the model's own batches, and there are none",
            "name its loader: --data package.module:loader",
        )
    options = options or Options()
    check_pilot(pilot, learning_rate, seed)
    function = None if loss is None else load_function(loss, "--loss", "output and batch", made=True)
    minimised = Loss(function, loss)
    built = only_model(target, input, checkpoint)
    notes = list(built.notes)
    place(built.model, device)  # raises where there is none; the copies are moved, one at a time
    source = Batches(load_batches(data, notes))
    analysis = None
    try:
        inputs = built.inputs or inputs_of(built.model, source)
        analysis = analyse(built.model, inputs, options, constructed=built.constructed)
    except (InputError, TraceError) as problem:
        if compare_fixed:
            raise
        notes.append(f"no prediction beside the measurement: {problem.message}")
    with progress_bar(quiet=quiet) as progress:
        pilots = run_pilots(
            built.model,
            source,
            pilot,
            analysis=analysis,
            compare_fixed=compare_fixed,
            loss=minimised,
            learning_rate=learning_rate,
            seed=seed,
            per_dropout=per_dropout,
            progress=progress,
            catalogue=options.catalogue,
            device=device,
            max_batches=batches,
            autocast=True if amp else None,
            tolerance=tolerance or None,
            statistics=statistics,
        )
    result = replace(pilots.validation, notes=pilots.notes)
    return told(built, result, notes, data=data, whose=f"`{data}`", pilot=pilots.info), result


def only_model(target: str, input: tuple[str, ...], checkpoint: str | None) -> Built:
    """The one model that a target names, with values.

    Raises:
        DropoutLintError: it cannot be built, or there are several.
    """
    found = resolve(target, inputs=input, checkpoint=checkpoint, prefer_meta=False)
    if len(found) == 1:
        return found[0]
    names = ", ".join(built.target for built in found[:6])
    raise UsageError(
        f"`{target}` holds {len(found)} models, and one is measured at a time", f"name it: {names}"
    )


def told(
    built: Built,
    result: Validation,
    notes: list[str],
    *,
    data: str | None,
    whose: str,
    inputs: Inputs | None = None,
    pilot: PilotInfo | None = None,
) -> TargetInfo:
    """A measurement in the report's words.

    Args:
        built: what was measured.
        result: what came of it.
        notes: what is to be said besides.
        data: the user's loader, None where there is none.
        whose: whose the batches are, in words.
        inputs: what batches without a loader were made from.
        pilot: what was trained before.
    """
    shift = result.before
    return TargetInfo(
        target=built.target,
        status="ok",
        model=type(built.model).__name__,
        inputs=list(shift.inputs),
        inputs_guessed=data is None and bool(inputs and inputs.guessed),
        inputs_origin=data if data is not None else inputs.origin if inputs else None,
        measurements=measurement_infos(result),
        notes=[*notes, *result.notes],
        measured=MeasuredInfo(
            batches=shift.batches,
            samples=shift.samples,
            device=shift.device,
            processes=shift.world,
            statistics=shift.statistics,
            random_inputs=whose == NOISE,
            gaps={name: _named(gap, whose) for name, gap in shift.gaps.items()},
            shares=shift.shares,
            pilot=pilot,
        ),
    )


def _batches_of(
    built: Built,
    data: str | None,
    inputs: Inputs | None,
    where: torch.device,
    catalogue: Catalogue,
    *,
    count: int | None,
    samples: int | None,
    notes: list[str],
) -> tuple[Any, str]:
    """The batches, and whose they are: the user's by `data`, the example inputs' values, what a trained
    model's norms remember, or noise.
    """
    if data is not None:
        return load_batches(data, notes), f"`{data}`"
    assert inputs is not None
    examples = example_batches(inputs, count) if samples is None else None
    if examples is not None:
        notes.append(
            f"the batches are the example inputs ({inputs.origin}), each time under masks of their own: give "
            "more of the model's own data with --data to see its real shift"
        )
        return examples, f"the example inputs ({inputs.origin})"
    recovered = _recovered(built, inputs, catalogue) if samples is None else None
    if recovered is not None:
        notes.append(
            "the batches are inputs recovered from the statistics of the trained norms, each time under "
            "masks of their own: give the model's own with --data to see its real shift"
        )
        return [recovered] * (count or RANDOM_BATCHES), "inputs recovered from the norms' statistics"
    notes.append("the batches are random noise: give the model's own with --data to see its real shift")
    return random_batches(built.model, inputs, where, count=count, samples=samples), NOISE


def _recovered(built: Built, inputs: Inputs, catalogue: Catalogue) -> Inputs | None:
    """Inputs that a trained model's norms remember; None for an untrained one, and where none are found."""
    if available_basis(built.model) != "checkpoint":
        return None
    try:
        with at_rest(built.model):
            return recovered_inputs(trace(built.model, inputs, catalogue=catalogue), RECOVERY_AT_MOST)
    except (InputError, TraceError):
        return None


def _named(problem: str, whose: str) -> str:
    """A problem with the values of a batch, with the word whose batch it was."""
    return f"{problem} (the batches are {whose})" if NAN in problem else problem


@contextmanager
def _blamed_on(whose: str) -> Iterator[None]:
    try:
        yield
    except MeasureError as problem:
        hint = problem.hint
        if whose == NOISE and NAN in problem.message:
            hint = "noise may not be what the model takes: give its own batches with --data"
        raise MeasureError(_named(problem.message, whose), hint, details=problem.details) from problem


def predictions(
    built: Built,
    inputs: Inputs | None,
    options: Options,
    *,
    compare_fixed: bool,
    fix_required: bool,
    notes: list[str],
) -> tuple[Prediction | None, Prediction | None, nn.Module | None]:
    """Predicted Δ before and after the graph fix, and the fixed model; None for what there is not.

    Raises:
        DropoutLintError: the fix was asked for and cannot be made.
    """
    try:
        compared = replace(options, compared=compare_fixed)
        analysis = analyse(built.model, inputs, compared, constructed=built.constructed)
    except DropoutLintError as problem:
        if compare_fixed and fix_required:
            raise
        notes.append(f"no prediction beside the measurement: {problem.message}")
        return None, None, None
    if not compare_fixed:
        return analysis.prediction, None, None
    try:
        fixed = fixed_of(analysis)
    except DropoutLintError as problem:
        if fix_required:
            raise
        notes.append(f"measured without a fix: {problem.message}")
        return analysis.prediction, None, None
    notes.extend(f"fixed: {one.title}" for one in fixed.applied)
    return fixed.before, fixed.after, fixed.model


def fixed_of(analysis: Analysis) -> Fixed:
    """The graph fix of a model.

    Raises:
        DropoutLintError: there is nothing to fix, or nothing that can be.
    """
    fixed = fix_graph(analysis)
    if fixed.applied:
        return fixed
    left = "; ".join(f"{skip.dropout or 'model'}: {skip.reason}" for skip in fixed.skipped)
    raise DropoutLintError(
        f"there is no fix to compare with: {left}" if left else "nothing was found that a fix would change",
        "see `dropout-lint fix` for what can be done by hand, or leave out --compare-fixed",
    )


def shared_out(loader: Any) -> bool:
    """Whether a loader already gives each rank its own part."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    return any(isinstance(sampler, DistributedSampler) for sampler in samplers)
