"""`check --fixes`: what `dropout-lint fix` would write, proven, as edits in the report."""

from __future__ import annotations

from difflib import SequenceMatcher

import msgspec

from dropout_lint.config import Settings
from dropout_lint.errors import UsageError
from dropout_lint.fixes.source.engine import SourceFix
from dropout_lint.loading.resolving import resolve
from dropout_lint.report.convert import relative
from dropout_lint.report.schema import EditInfo, FindingInfo, FixInfo, TargetInfo
from dropout_lint.rules import RuleSet
from dropout_lint.runs.failures import unfixed
from dropout_lint.runs.fix import repair
from dropout_lint.words import numbered


def with_edits(target: TargetInfo, settings: Settings, rules: RuleSet) -> TargetInfo:
    """A target with the source fix of its model, or with a note why there is none.

    Args:
        target: what was found in one model.
        settings: the settings of all targets.
        rules: the rules that may run.
    """
    try:
        result = source_fix(target.target, settings.for_target(target.target), rules)
    except Exception as problem:  # findings are worth more than edits
        return unfixed(target, problem)
    return edited(target, result)


def source_fix(target: str, settings: Settings, rules: RuleSet) -> SourceFix:
    """The proven source fix of one target."""
    models = resolve(target, inputs=tuple(settings.input), checkpoint=settings.checkpoint)
    if len(models) != 1:
        raise UsageError(f"{target} names {len(models)} models now", "lint it again")
    result, _ = repair(models[0], settings, rules, typed=target, compare=False)
    return result


def edited(target: TargetInfo, result: SourceFix) -> TargetInfo:
    """The target with the edits at each finding that they answer: one set of edits answers them together."""
    edits = [
        edit
        for change in result.changes
        for edit in hunks(relative(str(change.path)), change.before, change.after)
    ]
    after = {shift.norm: shift.delta for shift in result.after.norms if shift.delta is not None}
    by_hand = {(item.dropout, code): item.advice for item in result.skipped for code in item.codes}
    answers = {(item.dropout, code): item for item in result.applied for code in item.codes}

    def fixed(finding: FindingInfo) -> FindingInfo:
        about = (finding.dropout.name if finding.dropout else "", finding.code)
        item = answers.get(about)
        if item is None or not edits:
            advice = by_hand.get(about)
            if advice is None or finding.fix.by != "dropout-lint fix":
                return finding
            left = FixInfo(applicability="manual", strategy=None, title=advice)
            return msgspec.structs.replace(finding, fix=left)
        norm = finding.norm.name if finding.norm else None
        others = len(result.applied) - 1
        together = f", together with {others} more of this model" if others else ""
        info = FixInfo(
            applicability="automatic",
            strategy=item.action,
            title=item.title.removesuffix(f" [{', '.join(item.codes)}]") + together,
            delta_after=after.get(norm) if norm else None,
            by="dropout-lint fix",
            edits=edits,
        )
        return msgspec.structs.replace(finding, fix=info)

    left: dict[str, list[str]] = {}
    done = {item.dropout for item in result.applied}
    for skipped in (item for item in result.skipped if item.dropout not in done):
        left.setdefault(skipped.reason, []).append(skipped.dropout or "the model")
    reasons = [f"no fix in source for {numbered(names, 3)}: {reason}" for reason, names in left.items()]
    return msgspec.structs.replace(
        target,
        findings=[fixed(finding) for finding in target.findings],
        notes=list(dict.fromkeys([*target.notes, *reasons])),
    )


def hunks(file: str, before: str, after: str) -> list[EditInfo]:
    """What differs, as replacements of whole lines; an insertion takes a line beside it along."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    found = []
    for tag, first, last, start, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        text = "".join(new[start:end])
        if first < last:
            found.append(EditInfo(file=file, first=first + 1, last=last, text=text))
        elif first == 1 and found:  # text before line 1 has taken that line along
            found[-1] = msgspec.structs.replace(found[-1], text=found[-1].text + text)
        elif first:
            found.append(EditInfo(file=file, first=first, last=first, text=old[first - 1] + text))
        else:
            found.append(EditInfo(file=file, first=1, last=1, text=text + "".join(old[:1])))
    return found
