"""The arguments of the Python functions, checked where they come in: a wrong one is named at once."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dropout_lint.errors import UsageError

MADE_FROM = "lint the module that it was made from"


def is_exported(value: object) -> bool:
    """Whether something is what `torch.export.export` gives; its type is not imported for the question."""
    kind = type(value)
    return kind.__name__ == "ExportedProgram" and kind.__module__.startswith("torch.export")


def as_graph(value: Any) -> Any:
    """The graph of an exported program; anything else as it is."""
    return value.graph_module if is_exported(value) else value


def check_model(model: object) -> None:
    """That `model` is a module.

    Raises:
        UsageError: it is not; says what it is and what to give.
    """
    if isinstance(model, nn.Module):
        return
    given, hint = type(model).__name__, "give an instance of a torch.nn.Module"
    if isinstance(model, type):
        given = f"the class {model.__name__}"
        if issubclass(model, nn.Module):
            hint = f"give an instance: {model.__name__}()"
    elif isinstance(model, Mapping):
        hint = "load the weights into a model, and give that"
    elif is_exported(model):
        hint = MADE_FROM
    elif callable(model):
        given = f"the function {getattr(model, '__name__', given)}"
        hint = "give the module itself, or what the function returns if it builds one"
    elif model is None:
        given = "None"
    raise UsageError(f"the model must be a torch.nn.Module, not {given}: {hint}")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """That `value` is one of `allowed`.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(value, str) or value not in allowed:
        listed = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
        raise _wrong(name, value, listed)


def check_number(name: str, value: object, range_: str, fits: Callable[[float], bool]) -> None:
    """That `value` is a number that fits, and so not NaN.

    Args:
        name: the argument.
        value: what was given.
        range_: the allowed range in words, after "a number".
        fits: whether a number is in it.

    Raises:
        UsageError: it is no number, or does not fit.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not fits(float(value)):
        raise _wrong(name, value, f"a number {range_}")


def check_whole(name: str, value: object, least: int | None = None) -> None:
    """That `value` is a whole number, and at least `least`.

    Raises:
        UsageError: it is not.
    """
    whole = None if isinstance(value, bool) or not isinstance(value, numbers.Integral) else int(value)
    if whole is None or (least is not None and whole < least):
        raise _wrong(name, value, "a whole number" + (f" of at least {least}" if least is not None else ""))


def check_threshold(value: object) -> None:
    """That `value` can be the Δ from which on a shift counts.

    Raises:
        UsageError: it cannot.
    """
    check_number("threshold", value, "above 0 and up to 1", lambda number: 0 < number <= 1)


def as_names(name: str, value: Any) -> list[str]:
    """Several names or paths as a list; a single one stands for a list of one.

    Raises:
        UsageError: it holds something else.
    """
    if isinstance(value, (str, Path)):
        return [str(value)]
    items = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(item, (str, Path)) for item in items):
        raise _wrong(name, value, "a string or a list of strings")
    return [str(item) for item in items]


def _wrong(name: str, value: object, allowed: str) -> UsageError:
    # all in the message: a traceback does not show the hint
    return UsageError(f"{name}={value!r:.60} is not allowed: it must be {allowed}")
