"""`dropout-lint check`: lint targets and report."""

from __future__ import annotations

import os
import sys
from collections.abc import Container
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from dropout_lint.cli import console, options
from dropout_lint.config import Loaded, Settings
from dropout_lint.errors import DropoutLintError, UsageError
from dropout_lint.loading.compat import own_process
from dropout_lint.report import FORMATS, Context, Report, render
from dropout_lint.report.words import counts
from dropout_lint.runs.check import (
    Run,
    active_codes,
    active_in,
    assemble,
    check,
    exit_status,
    read_baseline,
    rules_of,
    unseen,
    words_of,
)
from dropout_lint.runs.spread import fixed_report, measured_report, pool_of, way_of
from dropout_lint.suppress.add_ignores import add_ignores
from dropout_lint.suppress.baseline import DEFAULT_FILE, encode
from dropout_lint.words import count, listed

if TYPE_CHECKING:
    from dropout_lint.rules import RuleSet

SECTIONS = {
    "What is linted": "--input --checkpoint --allow-empty --validate",
    "What counts": "--select --ignore --delta-threshold --assume-p --own-code --fail-on --exit-zero --strict",
    "Known findings": "--baseline --write-baseline --add-ignores",
    "Report": "--output-format --output-file --fixes --show-predictions --quiet --verbose",
    "Running": "--jobs --timeout --no-cache --config --show-settings --help",
}
click.rich_click.OPTION_GROUPS["dropout-lint check"] = [
    {"name": name, "options": names.split()} for name, names in SECTIONS.items()
]


@dataclass(frozen=True)
class Output:
    """One format and the file it goes to; None is stdout."""

    format: str
    file: str | None


def outputs(settings: Settings, quiet: bool) -> list[Output]:
    """The formats of one run.

    Raises:
        UsageError: an unknown format, two formats for stdout or for one file, or a file in no folder.
    """
    found = []
    for entry in settings.output_format or ["text"]:
        name, _, file = entry.partition("=")
        if name not in FORMATS:
            close = get_close_matches(name, FORMATS, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UsageError(f"unknown output format {name!r}", f"{hint}formats are {', '.join(FORMATS)}")
        found.append(Output(name, file or None))
    bare = [output for output in found if output.file is None]
    if settings.output_file:
        if not bare:
            raise UsageError("--output-file, but every format has a file of its own", "leave one of them out")
        found[found.index(bare[0])] = Output(bare[0].format, settings.output_file)
        bare = bare[1:]
    if len(bare) > 1:
        names = " and ".join(output.format for output in bare)
        suffix = {"text": "txt", "concise": "txt", "github": "txt", "junit": "xml", "markdown": "md"}
        example = f"{bare[0].format}=report.{suffix.get(bare[0].format, bare[0].format)}"
        raise UsageError(f"{names} cannot both go to stdout", f"give one of them a file: {example}")
    taken: dict[str, str] = {}
    for output in found:
        if output.file is None:
            continue
        console.require_folder(output.file)
        place = os.path.realpath(output.file)
        if place in taken:
            raise UsageError(
                f"{taken[place]} and {output.format} would both go to {output.file}",
                "give each a file of its own",
            )
        taken[place] = output.format
    return found


EPILOG = """
Examples:

  dropout-lint mypackage.models:build --show-predictions

  dropout-lint mymodel.py:Net --input 8x3x32x32 --checkpoint trained.safetensors

  dropout-lint models/ -j 4 --timeout 120 --baseline known.json

  dropout-lint --fixes --output-format github --output-format sarif=out.sarif --output-format html=report.html

Files: [tool.dropout-lint] in the nearest pyproject.toml; .dropout_lint_cache/ for unchanged results.

Environment: NO_COLOR and FORCE_COLOR decide about colour, COLUMNS about the width.
"""


@click.command("check", context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@options.targets()
@options.inputs()
@options.checkpoint()
@options.selection()
@click.option(
    "--output-format",
    multiple=True,
    shell_complete=lambda ctx, parameter, incomplete: [
        name for name in FORMATS if name.startswith(incomplete)
    ],
    metavar="FORMAT[=FILE]",
    help=f"One of {', '.join(FORMATS)}; repeat it for several in one run. [default: text]",
)
@click.option("--output-file", metavar="FILE", help="Where the format without a file of its own goes.")
@click.option("--baseline", metavar="FILE", help="Findings in this file are known and do not count.")
@click.option(
    "--write-baseline",
    is_flag=True,
    help=f"Write all findings of this run to the baseline ({DEFAULT_FILE} where none is named) and drop "
    "those that no longer occur; entries of other targets and rules stay.",
)
@click.option("--add-ignores", is_flag=True, help="Write an ignore comment on the line of each finding.")
@click.option(
    "--fixes",
    is_flag=True,
    help="Also try every fix in the source, as `dropout-lint fix` does, and put proven edits into json, "
    "sarif and html.",
)
@click.option("--show-predictions", is_flag=True, help="List the predicted Δ at every norm.")
@click.option(
    "--fail-on",
    type=options.SEVERITY,
    help="The least severity that sets exit status 1. [default: warning]",
)
@click.option(
    "--assume-p",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="RATIO",
    help="Lint as if dropouts whose ratio is 0 when the model is built, as of a schedule, had this one.",
)
@click.option("--own-code", is_flag=True, help="Leave out findings in installed packages.")
@click.option("--exit-zero", is_flag=True, help="Findings leave the exit status at 0.")
@click.option(
    "--validate",
    is_flag=True,
    help="Also measure every model, as it is and with the graph fix, on its example inputs or noise "
    "(for your own batches: dropout-lint measure --data).",
)
@click.option("--allow-empty", is_flag=True, help="A file or folder without a model is no error.")
@click.option("--no-cache", is_flag=True, help="Lint anew what is unchanged since it was last linted.")
@click.option("-j", "--jobs", type=click.IntRange(1), metavar="N", help="Lint in N processes. [default: 1]")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="What takes longer counts as failed; the other targets go on. With --fixes it is for both: findings "
    "that came in time stay, without the fixes that did not.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="A partly traced target, an unused ignore, and what of a file or folder could not be read, imported "
    "or built fail as findings do.",
)
@options.config()
@click.option(
    "--show-settings", is_flag=True, help="Print the settings that apply, and where from; lint nothing."
)
@options.verbosity()
def command(
    *,
    targets: tuple[str, ...],
    config: str | None,
    write_baseline: bool,
    add_ignores: bool,
    show_settings: bool,
    no_cache: bool,
    validate: bool,
    fixes: bool,
    quiet: bool,
    verbose: bool,
    **given: object,
) -> int:
    """Lint models: find misplaced dropout, predict the variance shift it causes, say what to do.

    A TARGET is package.module:attr, package.module:attr(drop_rate=0.2), path/to/file.py:attr, path/to/file.py
    or a folder. An attr is a model, a class, a factory, or (model, inputs). Without a TARGET the configured
    ones are linted. stdout holds the report alone.

    Exit status: 0 nothing at or above --fail-on, 1 findings, 2 the tool could not do its job.
    """
    loaded = options.settings(config, **given)
    settings = loaded.settings
    if no_cache:
        settings = msgspec.structs.replace(settings, cache=False)
    if show_settings:
        typed = {*options.typed(given), *(("cache",) if no_cache else ())}
        click.echo(settings_text(loaded, settings, typed), nl=False)
        return 0
    with options.blamed_on_file(loaded, given):
        wanted = outputs(settings, quiet)
        rules = rules_of(settings)
    if write_baseline:
        console.require_folder(settings.baseline or DEFAULT_FILE)
    names = options.chosen_targets(targets, settings)
    for name in names:
        own = settings.for_target(name)
        if own is not settings:
            with options.blamed_on_file(loaded, given):
                active_codes(rules, own)
    own_process()
    with console.report_stream() as stdout:
        written = frozenset(str(Path(out.file).absolute()) for out in wanted if out.file)
        with pool_of(settings) as pool:
            lint = way_of(names, settings, written, pool)
            run = check(names, settings, rules, lint=lint, write_baseline=write_baseline)
            if fixes:
                run = replace(run, report=fixed_report(run.report, names, settings, rules, pool))
            if validate:
                run = replace(run, report=measured_report(run.report, names, settings, rules, pool))
        report_failures(run, verbose)
        report_unseen(run, settings)
        if write_baseline and run.known is not None:
            save_baseline(run, settings)
        if add_ignores:
            run = ignore_all(run, settings, rules)
        context = Context(
            rules={rule.code: rule for rule in rules},
            show_predictions=settings.show_predictions,
            quiet=quiet,
            verbose=verbose,
            threshold=settings.delta_threshold,
            drawings=run.drawings,
        )
        for output in wanted:
            if output.file is None:
                own_context = replace(
                    context,
                    color=console.use_color(stdout),
                    width=console.width_of(stdout),
                    errors_told=stdout.isatty() and sys.stderr.isatty(),
                )
                stdout.write(render(run.report, output.format, own_context))
            else:
                console.write_file(output.file, render(run.report, output.format, context))
        say_where([] if quiet else wanted, run.report)
    return exit_status(run, settings)


def say_where(wanted: list[Output], report: Report) -> None:
    """The files that were written and what is in them: with no format on stdout nothing else would say it."""
    files = [output.file for output in wanted if output.file is not None]
    if files:
        found = counts(report.summary)
        console.say(f"wrote {listed(files)}{f': {found}' if found else ''}")


def report_failures(run: Run, verbose: bool) -> None:
    """The targets that could not be linted, on stderr."""
    for outcome in run.outcomes:
        if outcome.info.status == "error":
            problem = DropoutLintError(
                outcome.info.error or "unknown error", outcome.info.help, details=outcome.details
            )
            console.report_error(problem, subject=outcome.info.target)
            if verbose and outcome.trouble:
                console.say(outcome.trouble.rstrip())


def report_unseen(run: Run, settings: Settings) -> None:
    """What could not be looked at where that fails, on stderr: not every format has the notes."""
    for note in [] if settings.exit_zero else unseen(run, settings):
        console.report_error(DropoutLintError(note, "mend it, or leave out `strict`"))


def save_baseline(run: Run, settings: Settings) -> None:
    """Write the baseline and say where it went, and what of it this run did not look at."""
    assert run.known is not None
    file = settings.baseline or DEFAULT_FILE
    console.write_file(file, encode(run.known))
    amount = sum(entry.times for entries in run.known.targets.values() for entry in entries)
    kept = amount - run.report.summary.baselined
    rest = f", {kept} of them kept, which this run did not look for" if kept else ""
    console.say(f"wrote {count(amount, 'known finding')} to {file}{rest}")
    if settings.baseline is None:
        console.say(f'use it with --baseline {file}, or baseline = "{file}" under [tool.dropout-lint]')


def ignore_all(run: Run, settings: Settings, rules: RuleSet) -> Run:
    """Write ignore comments for all findings, and the report as it is after that."""
    written, skipped = add_ignores(run.report)
    for file, lines in written.items():
        console.say(f"added {len(lines)} ignore comment{'' if len(lines) == 1 else 's'} to {file}")
    for reason in skipped:
        console.say(reason)
    known = read_baseline(settings, False)
    return assemble(
        run.outcomes, active_in(rules, settings), known, words=words_of(rules), own_code=settings.own_code
    )


def settings_text(loaded: Loaded, settings: Settings, typed: Container[str]) -> str:
    """The settings as TOML, with where each comes from; `typed` are the names of those that were typed."""
    lines = [f"# settings file: {loaded.file or 'none'}", "[tool.dropout-lint]"]
    tables = []
    for key, value in msgspec.to_builtins(settings).items():
        in_file = "file" if key in loaded.given else "default"
        origin = "command line" if key.replace("-", "_") in typed else in_file
        if isinstance(value, dict):
            tables += [
                f"[tool.dropout-lint.{key}.{toml(name)}]\n" + body(entry) for name, entry in value.items()
            ]
        elif value is None:
            lines.append(f"# {key} is not set")
        else:
            lines.append(f"{key} = {toml(value)}  # {origin}")
    return "\n".join([*lines, *tables]) + "\n"


def body(table: dict[str, object]) -> str:
    """The keys of a table, one a line."""
    return "\n".join(f"{key} = {toml(value)}" for key, value in table.items() if value is not None)


def toml(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, dict):
        entries = ", ".join(f"{key} = {toml(item)}" for key, item in value.items() if item is not None)
        return "{ " + entries + " }"
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    return str(value)
