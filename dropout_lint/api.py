"""The public Python functions `lint` and `fix`; the rooms give the rest as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dropout_lint.analysis import Options, analyse
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.info import asked
from dropout_lint.fixes.plan.steps import Fixed
from dropout_lint.guard.alone import at_rest
from dropout_lint.guard.arguments import (
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
from dropout_lint.report import render
from dropout_lint.report.context import Context
from dropout_lint.report.schema import FindingInfo, PredictionInfo, Report, TargetInfo
from dropout_lint.rules import DEFAULT_THRESHOLD, load_rules
from dropout_lint.runs.check import assemble
from dropout_lint.runs.linting import lint_built
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
            Wrappers (DDP, DataParallel, `torch.compile`) are looked through: names are those inside.
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
    check_model(model)
    check_threshold(threshold)
    check_choice("fail_on", fail_on, SEVERITIES)
    options = options_of(catalogue, rules, select, ignore, threshold)
    model = unwrapped(model)
    given = None if inputs is None else as_inputs(inputs, model, "given")
    built = Built(type(model).__name__, model, given)
    run = assemble([lint_built(built, options)], lambda _: (), None)
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
