"""Checks a SARIF log against the classes of `pysarif`, generated from the published 2.1.0 schema."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from typing import Any


def problems(value: Any, kind: Any, path: str = "$") -> list[str]:  # noqa: PLR0911
    """What of `value` does not fit `kind`: unknown or missing properties, wrong types, values not allowed."""
    if dataclasses.is_dataclass(kind):
        return of_class(value, kind, path)
    origin = typing.get_origin(kind)
    if kind is Any:
        return []
    if origin in (typing.Union, types.UnionType):
        tries = [
            problems(value, option, path) for option in typing.get_args(kind) if option is not type(None)
        ]
        return [] if any(not found for found in tries) else min(tries, key=len)
    if origin is typing.Literal:
        allowed = typing.get_args(kind)
        return [] if value in allowed else [f"{path}: {value!r} is not one of {allowed}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{path}: not an array"]
        inner = typing.get_args(kind)[0]
        return [
            found for index, item in enumerate(value) for found in problems(item, inner, f"{path}[{index}]")
        ]
    if kind is float:
        kind = (int, float)
    return [] if isinstance(value, kind) else [f"{path}: {value!r} is no {kind}"]


def of_class(value: Any, kind: type, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: not an object"]
    if kind.__name__ == "PropertyBag":  # may hold anything
        return []
    hints = typing.get_type_hints(kind, vars(sys.modules[kind.__module__]))
    fields = {camel(field.name): field for field in dataclasses.fields(kind)}
    found = [f"{path}: unknown property {key!r}" for key in value if key not in fields]
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if name in value:
            found += problems(value[name], hints[field.name], f"{path}.{name}")
        elif required:
            found.append(f"{path}: {name!r} is missing")
    return found


def camel(name: str) -> str:
    if name in ("schema_uri", "schema"):
        return "$schema"
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
