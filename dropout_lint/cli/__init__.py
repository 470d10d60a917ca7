"""The command line: parses, calls the rooms, prints. Nothing here imports torch before a model is needed."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import rich_click as click
from click.exceptions import Exit
from click.shell_completion import CompletionItem

from dropout_lint import __version__
from dropout_lint.cli import console
from dropout_lint.config import suggest
from dropout_lint.errors import DropoutLintError, UsageError
from dropout_lint.loading.roots import set_roots

INTERRUPTED = 130

COMMANDS: dict[str, str] = {
    "check": "Lint targets (the same as `dropout-lint TARGET...`).",
    "fix": "Repair the findings of a target: shows the diff, --write writes it.",
    "measure": "Measure the shift at every norm on real batches.",
    "recalibrate": "Re-estimate batch-norm statistics as test mode sees them.",
    "serve": "Show findings in an editor: a language server on stdin and stdout.",
    "rule": "Explain one rule, or list them all.",
}


class LazyCommand(click.RichCommand):
    """A subcommand whose module is imported when it runs, so that `--help` imports none of them."""

    def load(self) -> click.Command:
        """The real command, from `dropout_lint.cli.<name>:command`."""
        command: click.Command = import_module(f"dropout_lint.cli.{self.name}").command
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return self.load().make_context(info_name, args, parent=parent, **extra)


class App(click.RichGroup):
    """The group of commands; arguments that begin with no command are `check`'s."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return LazyCommand(name=cmd_name, help=COMMANDS[cmd_name], short_help=COMMANDS[cmd_name])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and options, else files: a target may be one."""
        return super().shell_complete(ctx, incomplete) or [CompletionItem(incomplete, type="file")]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:  # the shell asks what the first word can be
            return super().parse_args(ctx, args)
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if not args or (args[0] not in COMMANDS and args[0] not in own):
            if args:
                refuse_misspelt_command(args[0])
            args = ["check", *args]
        return super().parse_args(ctx, args)


def refuse_misspelt_command(word: str) -> None:
    """Raise a `UsageError` if `word` looks like a command with a slip rather than like a target."""
    if any(mark in word for mark in ":./\\") or word.startswith("-") or console.exists(word):
        return
    close = suggest(word, COMMANDS)
    hint = f"did you mean `dropout-lint {close}`?" if close else f"commands are {', '.join(COMMANDS)}"
    if word.isidentifier() and (console.exists(f"{word}.py") or (not close and is_module(word))):
        hint = f"for the module, name what to build: `{word}:attr`"
    raise UsageError(
        f"{word!r} is no command and no target",
        f"{hint}; a target is package.module:attr, file.py:attr, a file or a folder",
    )


def is_module(word: str) -> bool:
    """Whether a top-level module of this name can be imported; nothing is."""
    from importlib.util import find_spec

    try:
        return find_spec(word) is not None
    except (ImportError, ValueError):
        return False


def versions() -> str:
    """The tool's version with those that its results depend on, read without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in ("torch", "torchvision", "timm"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"dropout-lint {__version__} ({', '.join([*found, f'python {python}'])})"


def print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Callback of `--version`."""
    if value and not ctx.resilient_parsing:
        click.echo(versions())
        ctx.exit()


@click.group(
    cls=App,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`dropout-lint TARGET...` is `dropout-lint check TARGET...`. "
    "Exit status: 0 no findings, 1 findings, 2 the tool could not do its job.",
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Print the versions of dropout-lint and torch.",
)
def app() -> None:
    """Find dropout that shifts the variance which batch norms remember, and say what to do about it.

    A TARGET is package.module:attr, package.module:attr(drop_rate=0.2), path/to/file.py:attr,
    path/to/file.py or a folder.
    """


def run(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one return for each way to end
    """Run the command line and return its exit status; every error is one line, a hint and status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verbose = console.wants_verbose(arguments)
    try:
        status = app.main(args=arguments, prog_name="dropout-lint", standalone_mode=False)
        console.flush()
        return status if isinstance(status, int) else 0
    except Exit as stop:
        return int(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        console.say("interrupted")
        return INTERRUPTED
    except click.ClickException as problem:
        console.report_usage(problem)
        return 2
    except DropoutLintError as problem:
        console.report_error(problem, verbose=verbose)
        return 2
    except BrokenPipeError:
        console.abandon_stdout()
        return 2
    except Exception as problem:
        if isinstance(problem, OSError) and console.is_full(problem):
            console.abandon_stdout()
            console.report_error(DropoutLintError(f"cannot write the report: {problem.strerror}"))
            return 2
        if verbose:
            traceback.print_exc()
        console.report_error(
            DropoutLintError(
                f"internal error: {type(problem).__name__}: {problem}",
                "this is a bug in dropout-lint; run again with -v for the traceback and report it",
            )
        )
        return 2
    finally:
        set_roots(())  # what runs next in this process names its own


def main() -> None:
    """Entry point of the `dropout-lint` script."""
    status = run()
    gc.freeze()  # what is left goes with the process: a search of it for circles took a quarter of a second
    sys.exit(status)
