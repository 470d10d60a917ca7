"""From what the rooms found to what is reported: one `TargetInfo` for one traced model."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dropout_lint.config.installed import is_installed
from dropout_lint.report.schema import (
    DropoutInfo,
    FindingInfo,
    FixInfo,
    NormInfo,
    Place,
    PredictionInfo,
    Report,
    Summary,
    TargetInfo,
    ToolInfo,
    TraceInfo,
)
from dropout_lint.terms import APART, NO_SHAPES, NOT_FINITE, UNSEEN, Basis
from dropout_lint.words import BASES, count, numbered, with_interval

if TYPE_CHECKING:
    from torch import fx

    from dropout_lint.fixes.plan.steps import Promise
    from dropout_lint.inputs.example import Built, Location
    from dropout_lint.prediction.shifts import NormShift, Prediction
    from dropout_lint.rules.findings import Finding
    from dropout_lint.trace.traced import DropoutSite, NormSite, Trace, UnusedDropout

# a module without a caller of its own (the root) is called from here, which is no line of the user's
OWN = str(Path(__file__).parents[1]) + os.sep

FIX_TITLES = {
    "move": "move the dropout to where its noise reaches no norm that remembers it",
    "uout": "replace it with uniform noise (Uout), which shifts the variance far less",
    "reduce": "lower the drop ratio until the shift no longer counts",
    "remove": "remove the dropout",
    "repair": "let it follow train() and eval()",
}


def target_info(
    built: Built,
    trace: Trace,
    prediction: Prediction,
    findings: Iterable[Finding],
    fixes: Mapping[int, Promise],
    *,
    verbose_notes: bool = True,
    exempt: Sequence[NormShift] = (),
) -> TargetInfo:
    """Everything about one target.

    Args:
        fixes: what the fix room plans, by `id(finding)`; for the others the rule's own strategy is named.
        exempt: the shifts that no finding tells of, since the rules let their dropouts' places pass.
    """
    nodes = {node.name: node for node in trace.graph.nodes}
    notes = [*built.notes, *trace.notes] if verbose_notes else []
    if exempt:
        notes.append(exempt_note(exempt))
    if prediction.fallbacks and any(shift.shifts and shift.delta != 1 for shift in prediction.norms):
        notes.append(fallback_note(prediction.fallbacks))
    opaque = {part.name: part.reason for part in (*trace.opaque, *trace.idle)}
    unknown = [shift for shift in prediction.norms if shift.shifts and shift.delta is None]
    if unknown:
        reasons = list(dict.fromkeys(reason for shift in unknown for reason in shift.unknown))
        plain = next((reason for reason in (NO_SHAPES, UNSEEN, APART) if reason in reasons), None)
        why = plain or f"noise behind {numbered(reasons)} is not followed"
        opaque[f"Δ at {numbered([shift.norm for shift in unknown])}"] = why
    return TargetInfo(
        target=built.target,
        status="partial" if opaque else "ok",
        model=type(trace.model).__name__,
        inputs=list(trace.inputs.describe()),
        inputs_guessed=trace.inputs.guessed,
        inputs_origin=trace.inputs.origin,
        trace=TraceInfo(
            method=trace.method,
            nodes=len(nodes),
            opaque=list(opaque),
            reasons=opaque,
        ),
        findings=[finding_info(finding, trace, nodes, fixes.get(id(finding))) for finding in findings],
        predictions=[
            PredictionInfo(
                norm=shift.norm,
                delta=None if shift.delta is None else rounded(shift.delta),
                interval=ends(shift.interval),
                delta_initial=None if shift.delta_initial is None else rounded(shift.delta_initial),
                basis=shift.basis,
                shares={name: rounded(share) for name, share in shift.shares.items()},
                shifts=shift.shifts,
                unknown=list(shift.unknown),
                approximate=list(shift.approximate),
                probed=shift.probed,
            )
            for shift in prediction.norms
        ],
        notes=list(dict.fromkeys(notes)),
    )


def exempt_note(exempt: Sequence[NormShift]) -> str:
    """One sentence on the shifts that the rules let pass."""
    from dropout_lint.prediction.shifts import worst

    found = worst(exempt)
    assert found is not None
    several = len(exempt) > 1
    return (
        f"{count(len(exempt), 'norm')} {'are' if several else 'is'} beyond the threshold though the dropouts "
        f"before {'them' if several else 'it'} stand where the papers' guideline puts them, which the rules "
        f"let pass (dropout-lint rule DL102): worst Δ "
        f"{with_interval(found.delta, found.interval)} at {found.norm}, {BASES[found.basis]}"
    )


def finding_info(
    finding: Finding, trace: Trace, nodes: Mapping[str, fx.Node], fix: Promise | None
) -> FindingInfo:
    """One finding."""
    facts = finding.facts
    low, high = (facts.delta_low, facts.delta_high) if facts else (None, None)
    return FindingInfo(
        code=finding.rule.code,
        name=finding.rule.name,
        severity=finding.severity,
        message=finding.message,
        dropout=dropout_info(finding.dropout, trace) if finding.dropout else None,
        norm=norm_info(finding.norm) if finding.norm else None,
        path=path_names(finding.path, nodes, finding),
        weights_between=facts.weights_between if facts else None,
        width=facts.width if facts else None,
        position=facts.position if facts else None,
        delta=rounded(facts.delta) if facts and facts.delta is not None else None,
        interval=None if low is None or high is None else ends((low, high)),
        delta_initial=rounded(facts.delta_initial) if facts and facts.delta_initial is not None else None,
        basis=cast("Basis | None", facts.basis) if facts else None,
        fix=default_fix(finding) if fix is None else fix_info(fix),
        source=finding.rule.source,
    )


def dropout_info(site: DropoutSite | UnusedDropout, trace: Trace) -> DropoutInfo:
    """The dropout of a finding; its ratio is None where it could not be read."""
    p = site.spec.p
    return DropoutInfo(
        name=site.name,
        kind=site.spec.kind,
        p=None if math.isnan(p) else p,
        functional=bool(getattr(site, "functional", False)),
        location=place(site.constructed),
        call=place(getattr(site, "call", None)),
        call_is_own=not _in_sequential(getattr(site, "module", None), trace),
    )


def _in_sequential(module: str | None, trace: Trace) -> bool:
    """Whether an `nn.Sequential` calls a module, so that no line of the user's does."""
    if not module:
        return False
    try:
        holder = trace.model.get_submodule(module.rpartition(".")[0])
    except AttributeError:  # it was made in a forward
        return False
    forward = getattr(type(holder), "forward", holder.forward)  # what stands in for a module has none
    return getattr(forward, "__module__", None) == "torch.nn.modules.container"


def norm_info(site: NormSite) -> NormInfo:
    """The norm of a finding."""
    return NormInfo(name=site.name, kind=site.spec.kind)


def place(location: Location | None) -> Place | None:
    """A location with its file relative to the current directory where it lies in it."""
    if location is None or location.file.startswith(OWN):
        return None
    return Place(file=relative(location.file), line=location.line, column=location.column)


def relative(file: str) -> str:
    """`file` relative to the current directory; one of an installed package elsewhere stays as it is."""
    return _relative(file, Path.cwd())


@lru_cache(maxsize=1024)
def _relative(file: str, folder: Path) -> str:
    try:
        return str(Path(file).relative_to(folder))
    except ValueError:
        real, here = os.path.realpath(file), os.path.realpath(folder)
        elsewhere = is_installed(file) and not real.startswith(here + os.sep)
        return file if elsewhere else os.path.relpath(real, here)


def path_names(path: Iterable[str], nodes: Mapping[str, fx.Node], finding: Finding) -> list[str]:
    """Names a reader knows: modules by their qualified name, functions as `add()`."""
    sites = [site for site in (finding.dropout, finding.norm) if site is not None and hasattr(site, "node")]
    ends = {site.node.name: site.name for site in sites}
    names = []
    for name in path:
        node = nodes.get(name)
        if name in ends:
            names.append(ends[name])
        elif node is None:
            names.append(name)
        elif node.op == "call_module":
            names.append(str(node.target))
        elif node.op in ("call_function", "call_method"):
            called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", name)
            if called != "getitem":
                names.append(f"{called.strip('_')}()")
        else:
            names.append(name)
    return names


def fix_info(promise: Promise) -> FixInfo:
    """What the fix room promises."""
    return FixInfo(
        applicability=promise.applicability,
        strategy=promise.strategy,
        title=promise.title,
        delta_after=promise.delta_after,
        by=promise.by,
    )


def default_fix(finding: Finding) -> FixInfo:
    """What the rule's own strategy is, where the fix room has no plan: nothing is promised."""
    strategy = finding.rule.fix
    if strategy is None or finding.dropout is None:
        return FixInfo(applicability="none", strategy=None, title="")
    return FixInfo(applicability="manual", strategy=strategy, title=FIX_TITLES.get(strategy, strategy))


def rounded(value: float) -> float:
    """Six significant digits: more would only be noise in a diff of two reports."""
    return float(f"{value:.6g}")


def ends(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """An interval as it is reported."""
    return None if interval is None else (rounded(interval[0]), rounded(interval[1]))


def fallback_note(fallbacks: Mapping[str, int]) -> str:
    """What the prediction passed over, in words; operations by name, with how often they came."""
    passed = {name: times for name, times in fallbacks.items() if name != NOT_FINITE}
    parts = []
    if NOT_FINITE in fallbacks:
        parts.append("weights or statistics are not finite: Δ is predicted from shapes alone")
    if passed:
        names = ", ".join(f"{name} ({times} times)" if times > 1 else name for name, times in passed.items())
        parts.append(f"Δ is approximate behind {names}: there is no rule for what it makes of noise")
    return "; ".join(parts)


def error_info(target: str, message: str, hint: str | None = None, notes: Iterable[str] = ()) -> TargetInfo:
    """A target that could not be linted."""
    return TargetInfo(target=target, status="error", error=message, help=hint, notes=list(notes))


def report_of(targets: Iterable[TargetInfo], version: str) -> Report:
    """The report with its counts."""
    targets = list(targets)
    counted = Counter(finding.severity for target in targets for finding in target.findings)
    aside = Counter(entry.by for target in targets for entry in target.suppressed)
    return Report(
        version=1,
        tool=ToolInfo(name="dropout-lint", version=version),
        targets=targets,
        summary=Summary(
            error=counted["error"],
            warning=counted["warning"],
            info=counted["info"],
            suppressed=aside["source"],
            baselined=aside["baseline"],
        ),
    )
