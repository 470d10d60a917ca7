"""`fix_graph`: rewrite the recorded graph, prove that nothing else changed, hand back a trainable module."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from torch import fx, nn

from dropout_lint.analysis import Analysis
from dropout_lint.errors import DropoutLintError, FixError, UsageError
from dropout_lint.fixes.graph.assumed import check_assumptions
from dropout_lint.fixes.graph.module import FixedModule
from dropout_lint.fixes.graph.rewrite import Rewriter, own_tree
from dropout_lint.fixes.graph.surgery import operate
from dropout_lint.fixes.graph.switch import follow_mode
from dropout_lint.fixes.plan.planner import Plan, Planner
from dropout_lint.fixes.plan.steps import Applied, Fixed, Step
from dropout_lint.fixes.plan.trials import Trials
from dropout_lint.fixes.plan.words import describe_step, linted_again
from dropout_lint.fixes.proof import prove
from dropout_lint.fixes.training import named_by
from dropout_lint.rules.findings import Finding
from dropout_lint.terms import STRATEGIES, Strategy
from dropout_lint.trace.traced import Trace


def fix_graph(
    analysis: Analysis,
    findings: Sequence[Finding] | None = None,
    *,
    strategy: Strategy = "auto",
    beta: float | None = None,
) -> Fixed:
    """Fix what was found, in the graph of the trace.

    Args:
        analysis: the model as it was linted; neither its trace nor its model changes.
        findings: what of its findings to fix; None for all.
        strategy: `move` to the guideline's place, `uout`, `reduce` (largest p that keeps Δ above the
            threshold), `remove`, or `auto`: a repair or a move, else a ratio of at least half.
        beta: β for Uout; None takes it from the dropout's noise, within 0.2–0.5 (Li et al. 2019, Sec. 5.2).

    Returns:
        the fixed model, what was applied and what was left.

    Raises:
        UsageError: an unknown strategy, or β outside (0, 1].
        FixError: no proof could be given that eval mode and state_dict are unchanged.
    """
    check_options(strategy, beta)
    found = tuple(findings) if findings is not None else analysis.findings
    plan = Planner(Trials(analysis), found, strategy=strategy, beta=beta).plan()
    method: Method | Literal["none"] = "none"
    if not plan.steps:
        model = own_tree(analysis.trace.model)
        checks: tuple[str, ...] = ("nothing had to be changed",)
    else:
        model, method, checks = _build(analysis.trace, plan)
    return Fixed(
        model=model,
        applied=tuple(applied(step) for step in plan.steps),
        skipped=plan.skipped,
        strategy=strategy,
        method=method,
        before=plan.before.whole.prediction,
        after=plan.after.whole.prediction,
        weighed=plan.weighed,
        checks=checks,
    )


def check_options(strategy: str, beta: float | None) -> None:
    """Refuse an unknown strategy or a β that is none.

    Raises:
        UsageError: which one it is, and what would be allowed.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"unknown strategy {strategy!r}", f"choose one of {', '.join(STRATEGIES)}")
    if beta is not None and not 0 < beta <= 1:
        raise UsageError(f"β = {beta} is outside (0, 1]", "Li et al. 2019 tried 0.2 to 0.5")


def applied(step: Step) -> Applied:
    """What a step did, for people and reports."""
    place = step.anchor.place if step.anchor is not None and step.action == "move" else None
    return Applied(step.site.name, step.action, step.codes, step.why or describe_step(step), place)


Method = Literal["graph", "modules"]


def _build(trace: Trace, plan: Plan) -> tuple[nn.Module, Method, tuple[str, ...]]:
    """The first way to build the fixed model that passes every proof."""
    ways: list[tuple[Method, Callable[[], nn.Module]]] = []
    if trace.runnable:
        ways.append(("graph", lambda: from_graph(trace, plan.steps, norms=True)))
        ways.append(("graph", lambda: from_graph(trace, plan.steps, norms=False)))
    ways.append(("modules", lambda: operate(trace, plan.steps)))
    named = named_by(trace, plan.steps)
    repaired = any("DL401" in step.codes for step in plan.steps)
    failures: list[str] = []
    for method, build in ways:
        try:
            model = build()
            checks = prove(
                trace.model, model, trace.inputs, named=named, repaired=repaired, catalogue=trace.catalogue
            )
            return model, method, (*checks, check_findings(model, plan.after))
        except DropoutLintError as error:
            failures.append(f"{method}: {error.message}")
        except Exception as error:  # the user's own forward may raise anything
            failures.append(f"{method}: {type(error).__name__}: {error}")
    raise FixError(
        "no fix could be proven harmless: " + "; ".join(dict.fromkeys(failures)),
        "the model was left as it was; try the source fix (`dropout-lint fix TARGET`), or another strategy",
    )


def from_graph(trace: Trace, steps: Sequence[Step], *, norms: bool) -> FixedModule:
    """The rewritten graph on a deep copy of the model."""
    rewriter = Rewriter(trace, own_tree)
    rewritten = rewriter.apply(steps)
    follow_mode(rewritten, norms=norms)
    keep_defaults(trace.model, rewritten.graph)
    check_assumptions(rewritten.graph, trace.comparisons, rewriter.mapped.__getitem__)
    rewritten.graph.lint()
    return FixedModule.adopt(rewritten.model, rewritten.graph)


def keep_defaults(model: nn.Module, graph: fx.Graph) -> None:
    """Give the recorded arguments of `forward` the defaults that they have in the model's own."""
    try:
        parameters = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return
    for node in graph.nodes:
        if node.op != "placeholder" or node.args or str(node.target).startswith("*"):
            continue
        parameter = parameters.get(str(node.target))
        if parameter is not None and isinstance(parameter.default, (bool, int, float, str, type(None))):
            node.args = (parameter.default,)


def check_findings(model: nn.Module, expected: Analysis) -> str:
    """Trace and lint the fixed model itself: nothing may be found that the plan did not expect.

    Raises:
        FixError: a finding is still there, or new.
    """
    again = expected.of(model)
    surplus = Counter(item.rule.code for item in again.findings) - Counter(
        item.rule.code for item in expected.findings
    )
    if surplus:
        raise FixError(f"the fixed model still has findings: {', '.join(sorted(surplus))}")
    return linted_again("fixed model", len(again.findings))
