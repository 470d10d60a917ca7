"""Options that several commands share, and how they are laid over the configuration file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import rich_click as click

from dropout_lint.cli.completion import complete
from dropout_lint.config import Loaded, Settings, load
from dropout_lint.config.load import display
from dropout_lint.errors import RuleError, UsageError
from dropout_lint.loading.roots import set_roots
from dropout_lint.terms import SEVERITIES

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

SEVERITY = click.Choice(SEVERITIES)


def targets(*, required: bool = False, many: bool = True) -> Decorator[Any]:
    """The TARGET argument."""
    if many:
        return click.argument(
            "targets", metavar="[TARGET]...", nargs=-1, required=required, type=click.Path()
        )
    metavar = "TARGET" if required else "[TARGET]"
    return click.argument("target", metavar=metavar, required=required, type=click.Path())


def inputs() -> Decorator[Any]:
    """`--input`, repeatable."""
    return click.option(
        "--input",
        "input",
        multiple=True,
        metavar="SHAPE",
        help="Example input such as 8x3x32x32, 4x16:int64 or mask=4x16:bool; repeat it for each argument; "
        "batch.tokens=4x16:int64 puts it into a dict. "
        "Without it `example_inputs` beside the target is used, else a guess, which the report names.",
    )


def checkpoint() -> Decorator[Any]:
    """`--checkpoint`."""
    return click.option(
        "--checkpoint",
        metavar="FILE",
        help="Weights to load: safetensors, or whatever torch.load(weights_only=True) reads.",
    )


def config() -> Decorator[Any]:
    """`--config`."""
    return click.option(
        "--config",
        metavar="FILE",
        help="Read [tool.dropout-lint] from this file instead of the nearest pyproject.toml.",
    )


def selection() -> Decorator[Any]:
    """`--select`, `--ignore` and `--delta-threshold`."""

    def decorate(function: F) -> F:
        for option in (
            click.option(
                "--delta-threshold",
                type=click.FloatRange(0, 1, min_open=True),
                metavar="Δ",
                help="Where a shift starts to count: Var_test / Var_train at a norm. [default: 0.95]",
            ),
            click.option(
                "--ignore",
                multiple=True,
                metavar="CODES",
                shell_complete=complete_codes,
                help="Leave these rules out; as --select.",
            ),
            click.option(
                "--select",
                multiple=True,
                metavar="CODES",
                shell_complete=complete_codes,
                help="Run only these rules: codes, prefixes or names (DL1, DL203); "
                "comma-separated or repeated.",
            ),
        ):
            function = option(function)
        return function

    return decorate


def complete_codes(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Rule codes and names for the shell, behind a comma as well."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + word for word in complete(last)]


def verbosity() -> Decorator[Any]:
    """`-q` and `-v`."""

    def decorate(function: F) -> F:
        function = click.option(
            "-v", "--verbose", is_flag=True, help="Say more; show tracebacks of what went wrong."
        )(function)
        return click.option("-q", "--quiet", is_flag=True, help="Print findings only, one line each.")(
            function
        )

    return decorate


def codes(values: tuple[str, ...] | list[str]) -> list[str]:
    """Rule codes or names from repeated, comma-separated options."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def settings(file: str | None, **given: Any) -> Loaded:
    """The settings of the project with the options that were given laid over them.

    Args:
        file: value of `--config`.
        given: settings by their Python name; None, False and () mean that the option was not given.

    Raises:
        ConfigError: the file is missing or wrong.
        UsageError: `--select` or `--ignore` is empty.
    """
    loaded = load(file)
    # `net:Net` in the file means the `net` beside it, from a subfolder too
    set_roots(loaded.roots)
    changes: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in typed(given).items()
    }
    for name in ("select", "ignore"):
        if name in changes:
            changes[name] = codes(changes[name])
            if not changes[name]:
                raise UsageError(
                    f"--{name} names no rule",
                    f"give codes, prefixes or names, as in `--{name} DL1`, or leave the option out",
                )
    merged = msgspec.structs.replace(loaded.settings, **changes)
    # what the command line says also wins over a target's own table
    own = {name: changes[name] for name in changes if name in OVERRIDABLE}
    if own:
        merged = msgspec.structs.replace(
            merged,
            targets=[
                item if isinstance(item, str) else msgspec.structs.replace(item, **own)
                for item in merged.targets
            ],
        )
    return msgspec.structs.replace(loaded, settings=merged)


def typed(given: Mapping[str, object]) -> dict[str, object]:
    """Those of the options that were given on the command line."""
    return {
        name: value
        for name, value in given.items()
        if value is not None and value is not False and value != ()
    }


@contextmanager
def blamed_on_file(loaded: Loaded, given: Mapping[str, object]) -> Iterator[None]:
    """An error about a value that the settings file gave, and not the command line, names file and key."""
    try:
        yield
    except (RuleError, UsageError) as problem:
        where = key_of_value(loaded, given, problem.message)
        if loaded.file is None or where is None:
            raise
        raise type(problem)(f"{display(loaded.file)}: {where}: {problem.message}", problem.hint) from None


def key_of_value(loaded: Loaded, given: Mapping[str, object], message: str) -> str | None:
    """The key of the settings file that holds a value which `message` quotes, None where none does."""

    def quoted(values: Iterable[str] | None) -> bool:
        words = [word for value in values or () for word in (value, value.partition("=")[0])]
        return any(f"{quote}{word}{quote}" in message for word in words for quote in "\"'")

    settings = loaded.settings
    for key in ("select", "ignore", "output-format"):
        name = key.replace("-", "_")
        if key in loaded.given and not given.get(name) and quoted(getattr(settings, name)):
            return f"`{key}` in [tool.dropout-lint]"
    for index, item in enumerate(settings.targets):
        for key in ("select", "ignore"):
            if not isinstance(item, str) and not given.get(key) and quoted(getattr(item, key)):
                return f"`{key}` in [tool.dropout-lint.targets[{index}]]"
    return None


OVERRIDABLE = frozenset(
    {"input", "checkpoint", "select", "ignore", "delta_threshold", "fail_on", "strict", "assume_p"}
)


def chosen_targets(named: tuple[str, ...], settings: Settings, command: str = "dropout-lint") -> list[str]:
    """The named targets, else the configured ones, each once and in order.

    Raises:
        UsageError: there are none; the hint says how to start.
    """
    found = list(dict.fromkeys(named or settings.target_names()))
    if not found:
        raise UsageError(
            "no target was named and none is configured",
            f"try `{command} path/to/model.py`, `{command} package.module:build`, or put\n"
            '      targets = ["package.module:build"] under [tool.dropout-lint] in pyproject.toml',
        )
    return found
