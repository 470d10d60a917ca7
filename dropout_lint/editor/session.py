"""A project while it is edited: its targets' results, and the processes that lint it anew after each save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import msgspec

from dropout_lint.config import Loaded, Settings, load
from dropout_lint.config.settings import TargetSettings
from dropout_lint.errors import DropoutLintError
from dropout_lint.loading.roots import set_roots
from dropout_lint.report.outcome import Outcome
from dropout_lint.report.schema import TargetInfo
from dropout_lint.rules import RuleSet
from dropout_lint.runs.check import Run, active_in, assemble, read_baseline, rules_of, words_of
from dropout_lint.runs.failures import internal
from dropout_lint.runs.processes import Pool
from dropout_lint.runs.spread import fixed_report, kept, linted


@dataclass(frozen=True)
class Project:
    """The settings and rules of one lint, and what was found so far.

    Attributes:
        number: of the request that it answers.
        run: in the order of the configured targets; a target that is being linted is there as it was before.
        left: how many targets are still being linted.
    """

    number: int
    loaded: Loaded
    rules: RuleSet
    run: Run
    left: int


def parts_of(settings: Settings, files_of: Callable[[str], list[str]]) -> dict[str, Settings]:
    """What is linted by itself, under which settings: the configured targets, and of a folder its files.

    In a folder it is no error that a file holds no model, or needs what is not installed.
    """
    found: dict[str, Settings] = {}
    for item in settings.targets:
        target = item if isinstance(item, TargetSettings) else TargetSettings(target=item)
        if not Path(target.target).is_dir():
            found[target.target] = settings
            continue
        files = files_of(target.target)
        parts: list[str | TargetSettings] = [
            msgspec.structs.replace(target, target=file, optional=True) for file in files
        ]
        inside = msgspec.structs.replace(settings, targets=parts, allow_empty=True)
        found |= dict.fromkeys(files, inside)
    return found


class Session:
    """Lints the configured targets of the current folder, the newest request first, in processes alone.

    A process that has imported a part of the project knows its files as they were, and what it lints next
    would count as depending on them: each target gets a new one, whose torch is loaded before it is needed.

    Args:
        config: the settings file, None for the nearest `pyproject.toml`.
        show: is given what was found after each step, in a thread of the session.
        refuse: is given what is wrong with the settings, in place of that.
    """

    def __init__(
        self,
        config: str | None,
        show: Callable[[Project], object],
        refuse: Callable[[DropoutLintError], object],
    ) -> None:
        self.config, self.show, self.refuse = config, show, refuse
        self.project: Project | None = None
        self.number = 0
        self._results: dict[str, list[Outcome]] = {}
        self._fixed: dict[str, TargetInfo] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._lock = Lock()  # of `number` and `_running`
        self._running: Pool | None = None
        self._ready: tuple[Loaded, Pool] | None = None

    def lint(self) -> None:
        """Lint what has changed; what is being done is given up for it."""
        self._give_up()
        self._thread.submit(self._guarded, self.number)

    def fix(self, target: str, number: int) -> Future[TargetInfo | None]:
        """That model with proven edits; None where the project was linted anew since state `number`."""
        return self._thread.submit(self._fix, target, number)

    def close(self) -> None:
        """Give up what is being done and end the processes."""
        self._give_up()
        self._thread.shutdown(cancel_futures=True)
        self._end_ready()

    def _give_up(self) -> None:
        with self._lock:
            self.number += 1
            if self._running is not None:
                self._running.stop.set()

    def _guarded(self, number: int) -> None:
        try:
            self._lint(number)
        except DropoutLintError as problem:
            self.refuse(problem)
        except Exception as problem:
            self.refuse(DropoutLintError(internal(problem), "this is a bug in dropout-lint; report it"))

    def _lint(self, number: int) -> None:
        if number != self.number:
            return
        self.project, self._fixed = None, {}
        loaded = load(self.config)
        set_roots(loaded.roots)
        settings, rules = loaded.settings, rules_of(loaded.settings)
        parts = parts_of(settings, lambda folder: self._warm(loaded).files(folder, settings))
        fresh = kept(parts)
        # what is being linted is told as it was; all in the order of the targets
        known = self._results | fresh
        self._results = {name: known.get(name, []) for name in parts}
        left = [name for name in parts if name not in fresh]
        self._tell(number, loaded, rules, len(left))
        while left:
            group, left = left[: settings.jobs], left[settings.jobs :]
            with self._processes(number, loaded, more=bool(left)) as pool:
                outcomes = linted({name: parts[name] for name in group}, pool) if pool is not None else {}
                if pool is None or pool.stop.is_set():
                    return
            self._results.update(outcomes)
            self._tell(number, loaded, rules, len(left))

    def _tell(self, number: int, loaded: Loaded, rules: RuleSet, left: int) -> None:
        settings = loaded.settings
        outcomes = [outcome for found in self._results.values() for outcome in found]
        run = assemble(
            outcomes,
            active_in(rules, settings),
            read_baseline(settings, False),
            words=words_of(rules),
            own_code=settings.own_code,
        )
        self.project = Project(number, loaded, rules, run, left)
        self.show(self.project)

    def _fix(self, target: str, number: int) -> TargetInfo | None:
        project = self.project
        if project is None or project.number != number:
            return None
        if target in self._fixed:
            return self._fixed[target]
        settings, report = project.loaded.settings, project.run.report
        wanted = msgspec.structs.replace(
            report, targets=[info for info in report.targets if info.target == target]
        )
        with self._processes(number, project.loaded) as pool:
            if pool is None:
                return None
            (fixed,) = fixed_report(wanted, settings.target_names(), settings, project.rules, pool).targets
            if pool.stop.is_set():
                return None
        self._fixed[target] = fixed
        return fixed

    @contextmanager
    def _processes(self, number: int, loaded: Loaded, more: bool = False) -> Iterator[Pool | None]:
        """New processes for a piece of work, None where it is not wanted any more; `more` is to come."""
        pool = self._warm(loaded)
        with self._lock:
            self._running = pool if number == self.number else None
        if self._running is None:
            yield None
            return
        self._ready = None
        if more:
            self._warm(loaded)
        try:
            with pool:
                yield pool
        finally:
            with self._lock:
                self._running = None
            self._warm(loaded)

    def _warm(self, loaded: Loaded) -> Pool:
        """Processes that have imported nothing of the project, for what the settings say now."""
        if self._ready is None or self._ready[0] != loaded:
            self._end_ready()
            self._ready = (loaded, Pool(loaded.settings.jobs, loaded.settings.timeout).warm())
        return self._ready[1]

    def _end_ready(self) -> None:
        if self._ready is not None:
            self._ready[1].end()
        self._ready = None
