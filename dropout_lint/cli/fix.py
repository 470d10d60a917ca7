"""`dropout-lint fix`: show the diffs that repair the findings of targets; `--write` writes them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

import rich_click as click

from dropout_lint.cli import console, options
from dropout_lint.config import Settings
from dropout_lint.config.load import display
from dropout_lint.errors import DropoutLintError, NoModelError
from dropout_lint.guard.lasting import for_good
from dropout_lint.loading.compat import own_process
from dropout_lint.runs.check import rules_of
from dropout_lint.runs.failures import is_missing_import
from dropout_lint.terms import STRATEGIES, at_least
from dropout_lint.words import numbered, with_interval

if TYPE_CHECKING:
    from dropout_lint.fixes.source.engine import SourceFix
    from dropout_lint.inputs.example import Built
    from dropout_lint.rules import RuleSet
    from dropout_lint.rules.findings import Finding
    from dropout_lint.terms import Strategy

VALIDATION_BATCHES = 16


@click.command("fix", context_settings={"help_option_names": ["-h", "--help"]})
@options.targets()
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="auto",
    show_default=True,
    help="move: to the guideline's place. uout: exchange for uniform noise. reduce: the largest p that keeps "
    "Δ above the threshold. remove. auto: a repair or a move of each, else at least half its ratio.",
)
@click.option("--write", is_flag=True, help="Write the files, after every proof has passed.")
@click.option(
    "--validate",
    is_flag=True,
    help="Measure Δ on example inputs or noise, before and after, beside the prediction.",
)
@click.option(
    "--beta",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="β",
    help="β for Uout. [default: from the dropout's noise, within 0.2 to 0.5]",
)
@click.option(
    "--vendor-uout",
    is_flag=True,
    help="Where Uout is written, write its class into the project as well (uout.py beside the edited file).",
)
@options.inputs()
@options.checkpoint()
@click.option("--allow-empty", is_flag=True, help="A file or folder without a model is no error.")
@options.selection()
@options.config()
@options.verbosity()
def command(
    *,
    targets: tuple[str, ...],
    strategy: Strategy,
    write: bool,
    validate: bool,
    beta: float | None,
    vendor_uout: bool,
    config: str | None,
    quiet: bool,
    verbose: bool,
    **given: object,
) -> int:
    """Repair what `check` finds in the TARGETs' own source: stdout is the diff, stderr says what and why.

    A TARGET is what `check` takes; a file or folder stands for each model in it. Without one the configured
    targets are repaired.

    Before a diff is shown, the edited files were imported in a process of their own, where eval-mode outputs
    were bit-identical, the old state_dict loaded with strict=True, and nothing new was found. Installed
    packages are never edited; for them, and for what source cannot say, there is `dropout_lint.fix(model)`.

    Exit status: 0 nothing (left) to repair, 1 findings that are not repaired on disk, 2 the tool could not do
    its job.
    """
    loaded = options.settings(config, **given)
    names = options.chosen_targets(targets, loaded.settings, "dropout-lint fix")
    rules = rules_of(loaded.settings)
    with console.report_stream() as stdout:
        if own_process():
            with for_good():
                from dropout_lint.fixes.source.prover import shared

            shared().fork()
        models, status = models_of(names, loaded.settings)
        wanted = Wanted(
            strategy=strategy,
            beta=beta,
            vendor_uout=vendor_uout,
            write=write,
            batches=VALIDATION_BATCHES if validate else 0,
            quiet=quiet,
            verbose=verbose,
        )
        if write and len(models) > 1:
            own = dict(given, strategy=strategy, validate=validate, beta=beta, config=config)
            own |= {"quiet": quiet, "verbose": verbose, "vendor_uout": vendor_uout}
            return max(status, *(_fix_apart(built.target, own, stdout) for _, built in models))
        if not models:
            console.say("no model found: nothing to fix")
        shown = Shown(stdout, set())
        for name, built in models:
            try:
                settings = loaded.settings.for_target(name)
                status = max(status, _fix(built, settings, rules, replace(wanted, typed=name), shown))
            except DropoutLintError as problem:
                if len(models) == len(names) == 1:
                    raise
                console.report_error(problem, subject=built.target)
                status = 2
    return status


def models_of(names: list[str], settings: Settings) -> tuple[list[tuple[str, Built]], int]:
    """The targets' models, each with its target, and the exit status so far.

    Of several targets, one that cannot be built is told and left out.

    Raises:
        DropoutLintError: the only target cannot be built.
    """
    from dropout_lint.loading.resolving import resolve

    models: list[tuple[str, Built]] = []
    status = 0
    for name in names:
        own = settings.for_target(name)
        try:
            found = resolve(name, inputs=tuple(own.input), checkpoint=own.checkpoint)
        except DropoutLintError as problem:
            if isinstance(problem, NoModelError) and own.allow_empty:
                continue
            if settings.is_optional(name) and is_missing_import(problem):
                console.say(f"{name}: skipped, it is optional: {problem.message}")
                continue
            if len(names) == 1:
                raise
            console.report_error(problem, subject=name)
            status = 2
        else:
            for note in (note for built in found for note in built.unseen):
                console.say(f"note: {note}")
            models += [(name, built) for built in found]
    return models, status


def _fix_apart(target: str, given: Mapping[str, object], stdout: TextIO) -> int:
    """Fix and write one of several models in a process of its own: its file may have changed just now."""
    arguments = ["fix", target, "--write"]
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(option)
        elif value not in (None, False):
            values = value if isinstance(value, (tuple, list)) else (value,)
            arguments += [part for one in values for part in (option, str(one))]
    stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", "dropout_lint", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    stdout.write(done.stdout)
    stdout.flush()
    if done.returncode < 0:
        problem = DropoutLintError(f"the process that fixed it was ended by signal {-done.returncode}")
        console.report_error(problem, subject=target)
        return 2
    return done.returncode


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for."""

    typed: str = ""
    strategy: Strategy = "auto"
    beta: float | None = None
    vendor_uout: bool = False
    write: bool = False
    batches: int = 0
    quiet: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class Shown:
    """Where diffs go, and those that were shown: models of one file may share a class."""

    stream: TextIO
    diffs: set[str]

    def show(self, diff: str) -> None:
        """Print a diff once."""
        if diff and diff not in self.diffs:
            self.diffs.add(diff)
            self.stream.write(diff)


def _fix(built: Built, settings: Settings, rules: RuleSet, wanted: Wanted, shown: Shown) -> int:
    """Fix one model, print its diff and what there is to say; the exit status of it."""
    from dropout_lint.runs.fix import repair

    result, findings = repair(
        built,
        settings,
        rules,
        typed=wanted.typed,
        strategy=wanted.strategy,
        beta=wanted.beta,
        batches=wanted.batches,
        vendor_uout=wanted.vendor_uout,
    )
    shown.show(result.diff)
    if wanted.write and result.changes:
        result.write()
    with contextlib.suppress(BrokenPipeError):  # told again, and dealt with, where the stream is closed
        shown.stream.flush()  # the diff stands before the words about it, in a pipe as well
    _explain(built.target, result, findings, settings, wanted)
    return _status(result, findings, settings, wanted.write)


def _explain(
    target: str, result: SourceFix, findings: list[Finding], settings: Settings, wanted: Wanted
) -> None:
    """What was done, what was left and why, on stderr."""
    if not findings:
        console.say(f"{target}: nothing to fix")
        return
    for item in result.applied:
        console.say(f"{target}: {item.title}")
    for line in _left(result, settings, verbose=wanted.verbose):
        console.say(f"{target}: left {line}" if not line.startswith(" ") else line)
    if wanted.quiet or not (result.changes or wanted.verbose):
        return
    for note in result.notes:
        console.say(f"note: {note}")
    for weighed in result.weighed:
        console.say(f"weighed: {weighed.describe()}{' (chosen)' if weighed.chosen else ''}")
    if not result.changes:
        return
    worst = f"{_worst(result, False)} → {_worst(result, True)}"
    console.say(f"predicted worst Δ, expected of each network once it is trained: {worst}")
    before, after = result.measured
    if before and after:
        console.say(f"measured worst Δ: {min(before.values()):.2f} → {min(after.values()):.2f}")
        for norm in sorted(before, key=before.__getitem__)[: None if wanted.verbose else 5]:
            if norm in after:
                console.say(f"  {norm}: {before[norm]:.2f} → {after[norm]:.2f}")
    for check in result.checks:
        console.say(f"checked: {check}")
    files = ", ".join(display(change.path) for change in result.changes)
    console.say(f"wrote {files}" if wanted.write else "nothing was written; --write writes this diff")


def _left(result: SourceFix, settings: Settings, *, verbose: bool) -> Iterator[str]:
    """What was left and why: what had no fix, and what fails a run once other things are fixed.

    What has the same reason is one line, and what has the same advice stands together.
    """
    same: dict[str, dict[tuple[str, str], list[str]]] = {}
    for skipped in result.skipped:
        why = ", ".join(skipped.codes), skipped.reason
        same.setdefault(skipped.advice, {}).setdefault(why, []).append(skipped.dropout or "the model")
    for advice, reasons in same.items():
        for (codes, reason), names in reasons.items():
            yield f"{numbered(names, len(names)) if verbose else numbered(names)} ({codes}): {reason}"
        yield f"  by hand: {advice}"
    told = {(skipped.dropout, code) for skipped in result.skipped for code in skipped.codes}
    for finding in result.left if result.changes else ():
        if not at_least(finding.severity, settings.fail_on):
            continue
        name = None if finding.dropout is None else finding.dropout.name
        if (name, finding.rule.code) not in told:
            yield f"{name or 'the model'} ({finding.rule.code}): {finding.message}"


def _worst(result: SourceFix, after: bool) -> str:
    prediction = result.after if after else result.before
    if not any(shift.shifts for shift in prediction.norms):
        return "no norm that shifts"
    found = prediction.worst
    return "unknown" if found is None else with_interval(found.delta, found.interval)


def _status(result: SourceFix, findings: list[Finding], settings: Settings, write: bool) -> int:
    """0 where nothing at or above `fail_on` is left on disk."""
    left = {(item.dropout, code) for item in result.skipped for code in item.codes}
    for finding in findings:
        if not at_least(finding.severity, settings.fail_on):
            continue
        name = None if finding.dropout is None else finding.dropout.name
        if not write or not result.changes or (name, finding.rule.code) in left:
            return 1
    return int(any(at_least(finding.severity, settings.fail_on) for finding in result.left))
