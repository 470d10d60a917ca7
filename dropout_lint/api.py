"""The public Python functions `lint`, `fix` and `pilot`; the rooms give the rest as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from dropout_lint.analysis import Options, analyse
from dropout_lint.deployed import is_program, read_program
from dropout_lint.errors import InputError, TraceError
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.info import asked
from dropout_lint.fixes.plan.steps import Fixed
from dropout_lint.guard.alone import at_rest
from dropout_lint.guard.arguments import (
    as_graph,
    as_names,
    check_choice,
    check_model,
    check_number,
    check_threshold,
    check_whole,
)
from dropout_lint.guard.eager import eager
from dropout_lint.guard.wrappers import unwrapped, worn
from dropout_lint.inputs.example import Built
from dropout_lint.inputs.shapes import as_inputs
from dropout_lint.layers import STANDARD, Catalogue
from dropout_lint.loading.resolving import Deployed
from dropout_lint.measurement import TOLERANCE, Batches
from dropout_lint.measurement.losses import Loss, LossFunction
from dropout_lint.measurement.pilot import check_pilot
from dropout_lint.measurement.place import place
from dropout_lint.measurement.session import Progress
from dropout_lint.measurement.training import LEARNING_RATE, SEED
from dropout_lint.report import render
from dropout_lint.report.context import Context
from dropout_lint.report.schema import FindingInfo, PredictionInfo, Report, TargetInfo
from dropout_lint.rules import DEFAULT_THRESHOLD, load_rules
from dropout_lint.runs.check import assemble
from dropout_lint.runs.linting import lint_built, lint_program
from dropout_lint.runs.pilot import Pilots, inputs_of, run_pilots
from dropout_lint.terms import SEVERITIES, STRATEGIES, Strategy, at_least

# columns below which no text can be wrapped
_LEAST_WIDTH = 20


class LintReport:
    """What `lint` found in one model.

    Attributes:
        report: the whole report as structs, with one target.
    """

    def __init__(self, report: Report, fail_on: str = "warning") -> None:
        self.report = report
        self._fail_on = fail_on

    @property
    def target(self) -> TargetInfo:
        """Everything about the model."""
        return self.report.targets[0]

    @property
    def findings(self) -> Sequence[FindingInfo]:
        """The findings, worst first within the order of the data."""
        return self.target.findings

    @property
    def predictions(self) -> Sequence[PredictionInfo]:
        """Predicted Δ at every norm, in the order of the data."""
        return self.target.predictions

    @property
    def ok(self) -> bool:
        """Whether nothing at or above `fail_on` was found."""
        return not any(at_least(finding.severity, self._fail_on) for finding in self.findings)

    def to_json(self) -> str:
        """The JSON text of schema version 1, with one target."""
        return self.report.to_json()

    def to_text(self, *, color: bool = False, width: int = 80) -> str:
        """What the command line would print, in lines of `width` columns where words allow it.

        Raises:
            UsageError: `width` is no whole number of at least 20.
        """
        check_whole("width", width, least=_LEAST_WIDTH)
        rules = {rule.code: rule for rule in load_rules().rules}
        return render(self.report, "text", Context(rules=rules, color=color, width=width))

    def __repr__(self) -> str:
        summary = self.report.summary
        counts = f"{summary.error} errors, {summary.warning} warnings, {summary.info} notes"
        return f"<LintReport of {self.target.model}: {counts}>"


def lint(
    model: nn.Module,
    inputs: Any = None,
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    threshold: float = DEFAULT_THRESHOLD,
    fail_on: str = "warning",
    rules: Iterable[str | Path] = (),
    catalogue: Catalogue = STANDARD,
) -> LintReport:
    """Trace `model`, predict Δ at every norm and match the rules. The model is left as it was.

    Args:
        model: any module, its weights real or on the meta device. With a trained model's running statistics
            the prediction is for that checkpoint (`basis`). It must not run in another thread meanwhile.
            Wrappers (DDP, DataParallel, `torch.compile`) are looked through: names are those inside. A
            program (`ExportedProgram`, its graph, a scripted or traced module) is read and not run: which of
            its dropouts are on (DL408, DL409), and no Δ.
        inputs: a tensor, a tuple of positional arguments, a dict of keyword arguments, or None to guess them.
        select: codes (or prefixes such as `DL1`) to report, or a single one; all that are on by default.
        ignore: codes to leave out, or a single one.
        threshold: Δ from which on a shift counts.
        fail_on: the least severity that makes `ok` false.
        rules: further rule files or folders, or a single one.
        catalogue: which classes are dropouts and norms.

    Raises:
        UsageError: the model is no module, or an option is not allowed.
        InputError: the inputs do not fit the model's forward.
        TraceError: nothing of the model could be traced.
        RuleError: a rule file is malformed, or a code is unknown.
    """
    model = as_graph(model)
    check_model(model)
    check_threshold(threshold)
    check_choice("fail_on", fail_on, SEVERITIES)
    options = options_of(catalogue, rules, select, ignore, threshold)
    model = unwrapped(model)
    if is_program(model):
        outcome = lint_program(Deployed(type(model).__name__, read_program(model)), options)
    else:
        given = None if inputs is None else as_inputs(inputs, model, "given")
        outcome = lint_built(Built(type(model).__name__, model, given), options)
    run = assemble([outcome], lambda _: (), None)
    return LintReport(run.report, fail_on)


def fix(
    model: nn.Module,
    inputs: Any = None,
    *,
    strategy: Strategy = "auto",
    threshold: float = DEFAULT_THRESHOLD,
    beta: float | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    rules: Iterable[str | Path] = (),
    catalogue: Catalogue = STANDARD,
) -> Fixed:
    """Rewrite the model's graph so that its dropouts shift no norm; `model` itself is left as it was.

    Errors and warnings are answered, and what `select` names; other dropouts act in training as before.

    Args:
        model, inputs, threshold, select, ignore, rules: as for `lint`. Of a wrapped model what is inside
            is fixed; `fixed.notes` tells which wrapper to put around it again.
        strategy: `move`, `uout`, `reduce`, `remove` or `auto`.
        beta: β for Uout; None takes it from each dropout's noise.
        catalogue: which classes are dropouts and norms.

    Returns:
        `fixed.model`, a trainable module with the same state_dict keys and bit-identical eval outputs;
        `fixed.applied` and `fixed.skipped`.

    Raises:
        UsageError: as for `lint`.
        FixError: no proof could be given that nothing else changed.
        InputError, TraceError: as for `lint`.
    """
    check_model(model)
    check_choice("strategy", strategy, STRATEGIES)
    check_threshold(threshold)
    if beta is not None:
        check_number("beta", beta, "above 0 and up to 1, or None", lambda number: 0 < number <= 1)
    options = options_of(catalogue, rules, select, ignore, threshold)
    wrapper = worn(model)
    model = unwrapped(model)
    given = None if inputs is None else as_inputs(inputs, model, "given")
    with at_rest(model) as resting, eager():  # nothing is compiled for the sizes that the proof tries
        analysis = analyse(model, given, options)
        wanted = asked(analysis.findings, "warning", options.select)
        fixed = fix_graph(analysis, wanted, strategy=strategy, beta=beta)
    for name in resting:  # it was copied while they were in test mode
        fixed.model.get_submodule(name).training = True
    if not wrapper:
        return fixed
    return replace(fixed, notes=(f"it is the module inside {wrapper}: put {wrapper} around it again",))


def pilot(
    model: nn.Module,
    batches: Iterable[Any],
    steps: int,
    *,
    loss: LossFunction | None = None,
    inputs: Any = None,
    compare_fixed: bool = False,
    learning_rate: float = LEARNING_RATE,
    seed: int = SEED,
    device: str | torch.device = "auto",
    max_batches: int | None = None,
    autocast: bool | torch.dtype | None = None,
    tolerance: float | None = TOLERANCE,
    statistics: Literal["auto", "stored", "measured"] = "auto",
    progress: Progress | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    rules: Iterable[str | Path] = (),
    catalogue: Catalogue = STANDARD,
) -> Pilots:
    """Train a copy of `model` for some steps, and measure Δ there: what training really leads to.

    With `compare_fixed` the same is done to the fixed graph of every strategy that changes anything: same
    weights at the start, same batches, same seed. `model` itself is left as it was.

    Args:
        model: any module; its weights are where the training starts.
        batches: an iterable of batches as for `measure`, read again when it ends. A fifth of its batches, 10
            at most, are held back.
        steps: optimizer steps of AdamW.
        loss: fn(output, batch) -> scalar, the batch on the model's device; None for the cross-entropy of
            (x, labels) batches, or of dicts with `labels`.
        inputs: what to trace the model with; None for the first batch.
        compare_fixed: also train the fixed graphs.
        learning_rate: of AdamW.
        seed: what masks are drawn from; the same seed gives the same figures.
        device, max_batches, autocast, tolerance: as for `measure`.
        statistics: as for `measure`; `auto` is `measured`: running statistics are behind weights that still
            move fast.
        progress: called with steps or batches done, how many there are, and what is being done.
        threshold, select, ignore, rules, catalogue: as for `fix`.

    Returns:
        `.delta`, `.before` (a `Pilot`: `.shift`, `.training_loss`, `.held_back`), `.fixed` by strategy and
        `.skipped`; `print` shows them side by side.

    Raises:
        UsageError: an option is not allowed, the loader is empty or has no labels, nothing can be trained, or
            the loss is no finite scalar with a gradient.
        MeasureError: as `measure`, or the model cannot be copied or trained.
        DropoutLintError: with `compare_fixed`, there is no fix.
    """
    check_model(model)
    check_threshold(threshold)
    check_pilot(steps, learning_rate, seed)
    minimised = Loss(loss)
    options = options_of(catalogue, rules, select, ignore, threshold)
    inner = unwrapped(model)
    place(inner, device)  # raises where there is none, or the weights have no values
    source = Batches(batches)
    try:
        given = inputs_of(inner, source) if inputs is None else as_inputs(inputs, inner, "given")
        with eager():
            analysis = analyse(inner, given, options)
    except (InputError, TraceError):
        if compare_fixed:
            raise
        analysis = None
    return run_pilots(
        inner,
        source,
        steps,
        analysis=analysis,
        compare_fixed=compare_fixed,
        loss=minimised,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
        catalogue=catalogue,
        device=device,
        max_batches=max_batches,
        autocast=autocast,
        tolerance=tolerance,
        statistics=statistics,
    )


def options_of(
    catalogue: Catalogue,
    rules: Iterable[str | Path],
    select: Iterable[str],
    ignore: Iterable[str],
    threshold: float,
) -> Options:
    """The options of an analysis from what was given.

    Raises:
        UsageError: an option is not allowed.
        RuleError: a rule file is malformed, or a code is unknown.
    """
    known = load_rules(as_names("rules", rules))
    selected, ignored = tuple(as_names("select", select)), tuple(as_names("ignore", ignore))
    known.selected(selected or None, ignored)
    return Options(catalogue, known, selected, ignored, threshold)
