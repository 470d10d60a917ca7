"""Find and read `[tool.dropout-lint]`; say in one line what is wrong with it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from dropout_lint.config.layout import source_folders
from dropout_lint.config.settings import DropoutClass, Loaded, Settings, TargetSettings
from dropout_lint.errors import ConfigError
from dropout_lint.terms import Noise

TABLE = "tool.dropout-lint"
FILE = "pyproject.toml"


def load(file: str | Path | None = None, *, start: Path | None = None) -> Loaded:
    """Read the settings of a project.

    Args:
        file: the file to read; it must exist and hold the table.
        start: where the search upwards begins when no file is named; the current directory by default.

    Raises:
        ConfigError: the file is missing, is no TOML, or holds an unknown key or a value of the wrong type.
    """
    if file is not None:
        path = Path(file)
        if not path.is_file():
            raise ConfigError(f"no such configuration file: {file}", "name a TOML file with --config")
        table = read_table(path)
        if table is None:
            raise ConfigError(f"{file} has no [{TABLE}] table", f"add a [{TABLE}] table to it")
    else:
        found = discover(start or Path.cwd())
        if found is None:
            root = start or Path.cwd()
            project = nearest_project(root)
            return Loaded(Settings(), None, root, roots=tuple(source_folders(project, read(project / FILE))))
        path, table = found
    settings = convert(table, display(path))
    root = path.resolve().parent
    given = [root / folder for folder in settings.pythonpath]
    missing = next((folder for folder in given if not folder.is_dir()), None)
    if missing is not None:
        raise ConfigError(
            f"{display(path)}: `pythonpath` in [{TABLE}]: there is no folder {display(missing)}",
            "its folders are relative to this file",
        )
    roots = dict.fromkeys([*(folder.resolve() for folder in given), root, *source_folders(root, read(path))])
    return Loaded(anchor(settings, root), path.resolve(), root, frozenset(table), tuple(roots))


def discover(start: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The nearest `pyproject.toml` upwards from `start` with our table, up to a repository's root."""
    for folder in (start, *start.parents):
        path = folder / FILE
        if path.is_file():
            table = read_table(path)
            if table is not None:
                return path, table
        if (folder / ".git").exists():
            return None
    return None


def nearest_project(start: Path) -> Path:
    """The nearest folder upwards from `start` with a `pyproject.toml`, up to a repository's root, or that."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file() or (folder / ".git").exists():
            return folder
    return start


def read(path: Path) -> Mapping[str, Any]:
    """A TOML file; {} where there is none.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{display(path)} is not valid TOML: {problem}", "correct the file") from None
    except OSError as problem:
        raise ConfigError(
            f"cannot read {display(path)}: {problem.strerror}", "check its permissions"
        ) from None


def read_table(path: Path) -> Mapping[str, Any] | None:
    """The `[tool.dropout-lint]` table of a TOML file, or None if it has none."""
    tool = read(path).get("tool", {})
    if not isinstance(tool, dict):
        raise ConfigError(
            f"{display(path)}: `tool` must be a table, not {type(tool).__name__}", f"write [{TABLE}]"
        )
    table = tool.get("dropout-lint")
    if table is None:
        if "dropout_lint" in tool:
            raise ConfigError(
                f"{display(path)}: [tool.dropout_lint] is not read", f"write [{TABLE}], with a hyphen"
            )
        return None
    if not isinstance(table, dict):
        raise ConfigError(f"{display(path)}: `{TABLE}` must be a table", f"write [{TABLE}]")
    return table


def convert(table: Mapping[str, Any], file: str) -> Settings:
    """The table as `Settings`.

    Raises:
        ConfigError: names file, key and what is allowed.
    """
    table = dict(table)
    if isinstance(table.get("output-format"), str):
        table["output-format"] = [table["output-format"]]
    check_keys(table, Settings, file, TABLE)
    targets = table.get("targets")
    for index, item in enumerate(targets if isinstance(targets, list) else ()):
        if isinstance(item, dict):
            where = f"{TABLE}.targets[{index}]"
            check_keys(item, TargetSettings, file, where)
            if "target" not in item:
                raise ConfigError(f"{file}: {where} has no `target`", 'write target = "package.module:attr"')
    dropouts = table.get("dropouts")
    if isinstance(dropouts, dict):
        for name, entry in dropouts.items():
            if isinstance(entry, dict):
                check_keys(entry, DropoutClass, file, f"{TABLE}.dropouts.{name}")
                noise = entry.get("noise", Noise.ELEMENT)
                if noise not in (allowed := [noise.value for noise in Noise if noise.declarable]):
                    raise ConfigError(
                        f"{file}: {noise!r} is no noise, in [{TABLE}.dropouts.{name}]",
                        f"allowed are {', '.join(allowed)}",
                    )
    try:
        return msgspec.convert(table, Settings)
    except msgspec.ValidationError as problem:
        raise explain(problem, file) from None


def check_keys(table: Mapping[str, Any], struct: type[msgspec.Struct], file: str, where: str) -> None:
    """Raise a `ConfigError` for the first key of `table` that `struct` does not have."""
    allowed = [field.encode_name for field in msgspec.structs.fields(struct)]
    for key in table:
        if key not in allowed:
            close = suggest(key.replace("_", "-"), allowed)
            hint = f"did you mean `{close}`? " if close else ""
            raise ConfigError(
                f"{file}: unknown key `{key}` in [{where}]", f"{hint}allowed are {', '.join(sorted(allowed))}"
            )


def explain(problem: msgspec.ValidationError, file: str) -> ConfigError:
    """A `ConfigError` that names the key, from msgspec's "Expected `int`, got `str` - at `$.jobs`"."""
    text = str(problem)
    message, _, path = text.partition(" - at `$")
    key = re.sub(r"\[\.\.\.\]", "[…]", path.rstrip("`").lstrip(".")) or TABLE
    message = message[:1].lower() + message[1:]
    name = key.split(".")[-1].split("[")[0]
    return ConfigError(f"{file}: `{key}` in [{TABLE}]: {message}", allowed_values(name))


def allowed_values(name: str) -> str:
    """What a key may hold, said for a reader."""
    return {
        "fail-on": 'allowed are "error", "warning" and "info"',
        "delta-threshold": "write a number above 0 and up to 1, such as 0.95",
        "assume-p": "write a number between 0 and 1, such as 0.2",
        "jobs": "write a whole number from 1",
        "timeout": "write a number of seconds above 0",
        "targets": 'write targets = ["package.module:attr"] or [[tool.dropout-lint.targets]] tables',
    }.get(name, "see `dropout-lint check --help` for what the option of this name takes")


def anchor(settings: Settings, root: Path) -> Settings:
    """`settings` whose paths, given relative to `root`, are meant from the current directory."""

    def place(path: str | None) -> str | None:
        return path if path is None else display(root / path)

    def target(text: str) -> str:
        head, colon, attr = text.partition(":")
        if looks_like_path(head):
            return f"{display(root / head)}{colon}{attr}"
        return text

    targets: list[str | TargetSettings] = [
        target(item)
        if isinstance(item, str)
        else msgspec.structs.replace(item, target=target(item.target), checkpoint=place(item.checkpoint))
        for item in settings.targets
    ]
    return msgspec.structs.replace(
        settings,
        targets=targets,
        rules=[display(root / path) for path in settings.rules],
        pythonpath=[display(root / path) for path in settings.pythonpath],
        checkpoint=place(settings.checkpoint),
        baseline=place(settings.baseline),
        cache_dir=display(root / settings.cache_dir),
    )


def looks_like_path(text: str) -> bool:
    """Whether the part of a target before its colon is a file or folder, not a dotted module."""
    return text.endswith(".py") or "/" in text or os.sep in text or text in (".", "..")


def display(path: Path) -> str:
    """`path` relative to the current directory where it lies in it, else absolute."""
    absolute = Path(os.path.normpath(path.absolute()))
    try:
        return str(absolute.relative_to(Path.cwd()))
    except ValueError:
        return str(absolute)


def suggest(word: str, known: Iterable[str]) -> str | None:
    """The entry of `known` that `word` was most likely meant to be, or None."""
    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.6)), None)
