"""`analyse`: trace, prediction, survey and rules put together, here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from dropout_lint.deployed import Program
from dropout_lint.guard.alone import at_rest
from dropout_lint.inputs.example import Location
from dropout_lint.inputs.shapes import as_inputs
from dropout_lint.layers import STANDARD, Catalogue
from dropout_lint.prediction import predict
from dropout_lint.prediction.bases import Along
from dropout_lint.prediction.shifts import NormShift, Prediction
from dropout_lint.rules import DEFAULT_THRESHOLD, RuleSet, load_rules
from dropout_lint.rules.findings import Finding, ProgramFinding
from dropout_lint.survey.deployed import survey_program
from dropout_lint.survey.exempt import exempt_shifts
from dropout_lint.survey.placements import Survey
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import trace as record
from dropout_lint.trace.traced import Trace


@dataclass(frozen=True)
class Options:
    """What decides the analysis of a model, whoever asks for it.

    Attributes:
        catalogue: which classes are dropouts and norms.
        rules: the rules that may run.
        select: codes, names or prefixes of those that do; none: all that are not off.
        ignore: the same, to leave out.
        threshold: Δ below which a shift counts.
        compared: the fixed network is to be measured, so that `again` works out its `delta_initial` too.
    """

    catalogue: Catalogue = STANDARD
    rules: RuleSet = field(default_factory=load_rules)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    threshold: float = DEFAULT_THRESHOLD
    compared: bool = False


@dataclass(frozen=True)
class Analysis:
    """What is known about one traced model.

    The survey and what the rules find are worked out when they are first asked for: a survey costs as much
    again as a prediction.

    Attributes:
        trace: one recorded forward pass.
        options: what decided the rest.
        prediction: Δ at every norm.
    """

    trace: Trace
    options: Options
    prediction: Prediction

    @cached_property
    def survey(self) -> Survey:
        """The facts about every dropout."""
        with at_rest(self.trace.model):
            return survey(self.trace, self.prediction)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules find; shares that were left out are worked out where it depends on them."""
        options = self.options
        rules, select = options.rules, options.select or None
        if self.prediction.shared is not None and rules.weigh_shares(
            self.survey, select=select, ignore=options.ignore, threshold=options.threshold
        ):
            return self.whole.findings
        return rules.match(self.survey, select=select, ignore=options.ignore, threshold=options.threshold)

    @cached_property
    def whole(self) -> Analysis:
        """The same with the shares that were left out."""
        if self.prediction.shared is None:
            return self
        with at_rest(self.trace.model):
            return Analysis(self.trace, self.options, self.prediction.shared())

    @cached_property
    def exempt(self) -> tuple[NormShift, ...]:
        """Shifts that no finding tells of, because their dropouts stand at the guideline's places."""
        whole = self.whole
        return tuple(exempt_shifts(whole.survey, whole.findings, self.options.threshold))

    @property
    def worst(self) -> float | None:
        """The predicted Δ that is farthest from 1 over the norms that shift, None where none is known."""
        found = self.prediction.worst
        return None if found is None else found.delta

    def about(self, names: frozenset[str]) -> list[Finding]:
        """The findings about dropouts with these names."""
        return [item for item in self.findings if item.dropout is not None and item.dropout.name in names]

    def again(self, rewritten: Trace, along: Along) -> Analysis:
        """The analysis of a rewritten graph of the same model, under the same options, `judged`.

        `along`: what `along` has given of it.
        """
        if self.options.compared:
            return analyse_trace(rewritten, self.options, judged=True)
        with at_rest(rewritten.model):
            return Analysis(rewritten, self.options, along.prediction)

    def along(self, rewritten: Trace) -> Along:
        """Δ alone of a rewritten graph of the same model, norm by norm; it has no statistics of training."""
        with at_rest(rewritten.model):
            return Along(rewritten)

    def of(self, model: nn.Module) -> Analysis:
        """The analysis of another model with the same inputs, under the same options, `judged`."""
        return analyse(model, self.trace.inputs, self.options, judged=True)


def analyse(
    model: nn.Module,
    inputs: Any = None,
    options: Options | None = None,
    *,
    constructed: Mapping[int, Location] | None = None,
    judged: bool = False,
) -> Analysis:
    """Trace a model and predict Δ at every norm; the model is left as it was.

    Args:
        model: any module, its weights real or on the meta device.
        inputs: a tensor, a tuple of positional arguments, a dict of keyword arguments, `Inputs`, or None to
            guess them.
        options: None for the built-in rules and their defaults.
        constructed: the line that constructed each module, by `id(module)`.
        judged: see `analyse_trace`.

    Raises:
        TraceError: nothing of the model could be traced.
        InputError: the inputs do not fit, or none could be guessed.
    """
    options = options or Options()
    given = None if inputs is None else as_inputs(inputs, model, "given")
    with at_rest(model):
        traced = record(model, given, catalogue=options.catalogue, constructed=constructed)
        return analyse_trace(traced, options, judged=judged)


def analyse_trace(traced: Trace, options: Options | None = None, *, judged: bool = False) -> Analysis:
    """Predict Δ at every norm of a trace; `Analysis` works out the rest when it is asked for.

    Args:
        traced: one recorded forward pass.
        options: None for the built-in rules and their defaults.
        judged: only to tell what is found, as of each plan of a fix: without intervals and, as far as no
            finding depends on them, shares.
    """
    options = options or Options()
    with at_rest(traced.model):
        prediction = predict(
            traced, initially=options.compared or not judged, intervals=not judged, shares=not judged
        )
    return Analysis(traced, options, prediction)


def judge_program(program: Program, options: Options | None = None) -> tuple[ProgramFinding, ...]:
    """What the rules find in a deployed program; it holds one mode, so that no Δ can be predicted."""
    options = options or Options()
    return options.rules.match_program(
        survey_program(program),
        select=options.select or None,
        ignore=options.ignore,
        threshold=options.threshold,
    )
