"""How a run's targets are linted, fixed and measured: here or in processes, from the cache or anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from dropout_lint.config import Settings
from dropout_lint.config.settings import holds
from dropout_lint.report.outcome import Outcome
from dropout_lint.report.schema import Report, TargetInfo
from dropout_lint.rules import RuleSet
from dropout_lint.runs.cache import Cache, cache_key
from dropout_lint.runs.check import Lint, lint_target
from dropout_lint.runs.processes import Pool, Request


def pool_of(settings: Settings) -> AbstractContextManager[Pool | None]:
    """The processes that targets are linted and fixed in; None for this one."""
    if settings.jobs == 1 and settings.timeout is None:
        return nullcontext()
    return Pool(settings.jobs, settings.timeout)


def way_of(names: Sequence[str], settings: Settings, written: frozenset[str], pool: Pool | None) -> Lint:
    """How the targets are linted: from the cache where it still holds, in processes where asked for."""
    if pool is None:
        return Cache(Path(settings.cache_dir), written).wrap(lint_target) if settings.cache else lint_target
    wanted = dict.fromkeys(names, settings)
    results = kept(wanted, written)
    missing = {name: settings for name in wanted if name not in results}
    results.update(linted(missing, pool, written))
    return lambda target, *_: results[target]


def kept(wanted: Mapping[str, Settings], written: frozenset[str] = frozenset()) -> dict[str, list[Outcome]]:
    """What the cache has of some targets, each under its settings, that still holds."""
    found = {
        name: Cache(Path(settings.cache_dir), written).load(cache_key(name, settings))
        for name, settings in wanted.items()
        if settings.cache
    }
    return {name: outcomes for name, outcomes in found.items() if outcomes is not None}


def linted(
    wanted: Mapping[str, Settings], pool: Pool, written: frozenset[str] = frozenset()
) -> dict[str, list[Outcome]]:
    """The outcomes of targets, each under its settings, linted in processes, which keep them."""
    requests = [
        Request(name, settings, settings.cache_dir if settings.cache else None, written)
        for name, settings in wanted.items()
    ]
    return dict(zip(wanted, pool.lint(requests), strict=True))


def fixed_report(
    report: Report, names: Sequence[str], settings: Settings, rules: RuleSet, pool: Pool | None
) -> Report:
    """The report with the source fix of each model that has findings, or a note why there is none."""
    wanted = [target for target in report.targets if target.status != "error" and target.findings]
    if pool is None:
        from dropout_lint.runs.edits import with_edits

        return _changed(report, [with_edits(target, settings, rules) for target in wanted])
    return _changed(report, pool.edit(_requests_for(wanted, names, settings)))


def measured_report(
    report: Report, names: Sequence[str], settings: Settings, rules: RuleSet, pool: Pool | None
) -> Report:
    """The report with each model measured, before and after the graph fix."""
    wanted = [target for target in report.targets if target.status != "error" and target.skipped is None]
    if pool is None:
        from dropout_lint.runs.measure import validated

        return _changed(report, [validated(target, settings, rules) for target in wanted])
    return _changed(report, pool.measure(_requests_for(wanted, names, settings)))


def _requests_for(targets: Sequence[TargetInfo], names: Sequence[str], settings: Settings) -> list[Request]:
    """What the processes are asked about models that were linted: the models of one target together."""
    typed: dict[str, list[TargetInfo]] = {}
    for target in targets:
        name = next((name for name in names if holds(name, target.target)), target.target)
        typed.setdefault(name, []).append(target)
    return [Request(name, settings, found=found) for name, found in typed.items()]


def _changed(report: Report, targets: Sequence[TargetInfo]) -> Report:
    """The report with these in place of the targets of their names."""
    by_name = {target.target: target for target in targets}
    return msgspec.structs.replace(
        report, targets=[by_name.get(target.target, target) for target in report.targets]
    )
