"""`dropout-lint fix`: show the diff that repairs a target's findings; `--write` writes it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import rich_click as click

from dropout_lint.cli import console, options
from dropout_lint.config import Settings
from dropout_lint.config.load import display
from dropout_lint.errors import DropoutLintError, UsageError

if TYPE_CHECKING:
    from dropout_lint.fixes import SourceFix
    from dropout_lint.fixes.types import Strategy
    from dropout_lint.rules import RuleSet
    from dropout_lint.rules.types import Finding
    from dropout_lint.target.types import Built

STRATEGIES = ("auto", "move", "uout", "reduce", "remove")
ORDER = ("info", "warning", "error")
VALIDATION_BATCHES = 16


@click.command("fix", context_settings={"help_option_names": ["-h", "--help"]})
@options.targets(many=False)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="auto",
    show_default=True,
    help="move: to the guideline's place. uout: exchange for uniform noise. reduce: the largest p that keeps "
    "Δ above the threshold. remove. auto: what keeps most noise while no norm falls under the threshold.",
)
@click.option("--write", is_flag=True, help="Write the files, after every proof has passed.")
@click.option(
    "--validate", is_flag=True, help="Measure Δ on random batches, before and after, beside the prediction."
)
@click.option(
    "--beta",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="β",
    help="β for Uout. [default: from the dropout's noise, within 0.2 to 0.5]",
)
@options.inputs()
@options.checkpoint()
@options.selection()
@options.config()
@options.verbosity()
def command(
    *,
    target: str | None,
    strategy: Strategy,
    write: bool,
    validate: bool,
    beta: float | None,
    config: str | None,
    quiet: bool,
    verbose: bool,
    **given: object,
) -> int:
    """Repair what `check` finds in TARGET's own source: stdout is the diff, stderr says what and why.

    Without a TARGET it is the configured one, if there is only one.

    Before a diff is shown, the edited files were imported in a process of their own, where eval-mode outputs
    were bit-identical, the old state_dict loaded with strict=True, and nothing new was found. Installed
    packages are never edited; for them, and for what source cannot say, there is `dropout_lint.fix(model)`.

    Exit status: 0 nothing (left) to repair, 1 findings that are not repaired on disk, 2 the tool could not do
    its job.
    """
    loaded = options.settings(config, **given)
    target = only_target(loaded.settings) if target is None else target
    settings = loaded.settings.for_target(target)
    from dropout_lint.pipeline import rules_of

    rules = rules_of(settings)
    with console.report_stream() as stdout:
        from dropout_lint.target import own_process, resolve

        own_process()
        models = resolve(target, inputs=tuple(settings.input), checkpoint=settings.checkpoint)
        if not models:
            raise UsageError(f"no model found in {target}", "name one: file.py:attr")
        if write and len(models) > 1:
            names = ", ".join(built.target for built in models[:5])
            raise UsageError(
                f"{target} holds {len(models)} models, and --write takes one at a time", f"name one: {names}"
            )
        shown: set[str] = set()
        status = 0
        for built in models:
            wanted = Wanted(
                typed=target,
                strategy=strategy,
                beta=beta,
                write=write,
                batches=VALIDATION_BATCHES if validate else 0,
                quiet=quiet,
                verbose=verbose,
            )
            try:
                status = max(status, _fix(built, settings, rules, wanted, Shown(stdout, shown)))
            except DropoutLintError as problem:
                if len(models) == 1:
                    raise
                console.report_error(problem, subject=built.target)
                status = 2
    return status


def only_target(settings: Settings) -> str:
    """The configured target.

    Raises:
        UsageError: there is none, or more than one.
    """
    first, *others = options.chosen_targets((), settings, "dropout-lint fix")
    if others:
        raise UsageError(
            f"{1 + len(others)} targets are configured, and fix takes one at a time",
            f"name one: {', '.join([first, *others][:5])}",
        )
    return first


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for."""

    typed: str
    strategy: Strategy = "auto"
    beta: float | None = None
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
    from dropout_lint.repair import repair

    result, findings = repair(
        built,
        settings,
        rules,
        typed=wanted.typed,
        strategy=wanted.strategy,
        beta=wanted.beta,
        batches=wanted.batches,
    )
    shown.show(result.diff)
    if wanted.write and result.changes:
        result.write()
    with contextlib.suppress(BrokenPipeError):  # told again, and dealt with, where the stream is closed
        shown.stream.flush()  # the diff stands before the words about it, in a pipe as well
    _explain(built.target, result, findings, wanted)
    return _status(result, findings, settings, wanted.write)


def _explain(target: str, result: SourceFix, findings: list[Finding], wanted: Wanted) -> None:
    """What was done, what was left and why, on stderr."""
    if not findings:
        console.say(f"{target}: nothing to fix")
        return
    for item in result.applied:
        console.say(f"{target}: {item.title}")
    for skipped in result.skipped:
        name = skipped.dropout or "the model"
        console.say(f"{target}: left {name} ({', '.join(skipped.codes)}): {skipped.reason}")
        console.say(f"  by hand: {skipped.advice}")
    if wanted.quiet or not (result.changes or wanted.verbose):
        return
    for note in result.notes:
        console.say(f"note: {note}")
    for weighed in result.weighed:
        console.say(f"weighed: {weighed.describe()}{' (chosen)' if weighed.chosen else ''}")
    if not result.changes:
        return
    console.say(f"predicted worst Δ: {_worst(result, False)} → {_worst(result, True)}")
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


def _worst(result: SourceFix, after: bool) -> str:
    prediction = result.after if after else result.before
    deltas = [shift.delta for shift in prediction.norms if shift.shifts]
    return f"{min(deltas):.2f}" if deltas else "no norm that shifts"


def _status(result: SourceFix, findings: list[Finding], settings: Settings, write: bool) -> int:
    """0 where nothing at or above `fail_on` is left on disk."""
    least = ORDER.index(settings.fail_on)
    left = {(item.dropout, code) for item in result.skipped for code in item.codes}
    for finding in findings:
        if ORDER.index(finding.severity) < least:
            continue
        name = None if finding.dropout is None else finding.dropout.name
        if not write or not result.changes or (name, finding.rule.code) in left:
            return 1
    return 0
