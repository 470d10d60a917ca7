"""The arguments of a target's call: held against signatures, and the calls among them made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from torch import nn

from dropout_lint.errors import TargetError
from dropout_lint.loading.parse import Call, mapped


@dataclass(frozen=True)
class _Found:
    """A call among arguments whose name has been looked up: `Config(drop=0.5)`."""

    value: Callable[..., Any]
    call: Call


def with_names(call: Call, find: Callable[[Call], Any], text: str) -> Call:
    """The call with the names of the calls among its arguments looked up; nothing is called yet.

    Args:
        call: what a target says.
        find: the value of a name, which raises where there is none.
        text: the target, for messages.

    Raises:
        TargetError: a name is not there, cannot be called, or does not take its arguments.
    """

    def found(item: Any) -> Any:
        if not isinstance(item, Call):
            return item
        inner = with_names(item, find, text)
        value = find(item)
        if not callable(value) or isinstance(value, nn.Module):
            kind = type(value).__name__
            raise TargetError(
                f"the argument `{item.text}` in `{text}` calls `{item.path}`, which is of type {kind}",
                "only classes and functions of the module are called in arguments",
            )
        check_arguments(value, inner, item.text)
        return _Found(value, inner)

    kwargs = {name: mapped(value, found) for name, value in call.kwargs.items()}
    return replace(call, args=tuple(mapped(value, found) for value in call.args), kwargs=kwargs)


def called(value: Callable[..., Any], call: Call) -> Any:
    """What `value` gives for the arguments of a call; the calls among them are made first."""

    def made(item: Any) -> Any:
        return called(item.value, item.call) if isinstance(item, _Found) else item

    args = [mapped(item, made) for item in call.args]
    return value(*args, **{name: mapped(item, made) for name, item in call.kwargs.items()})


def check_arguments(value: Callable[..., Any], call: Call, text: str) -> None:
    """Hold literal arguments against a signature before anything runs.

    Raises:
        TargetError: an argument is missing, unknown, or one too many.
    """
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*call.args, **call.kwargs)
        return
    except TypeError as error:
        reason = str(error)
    parameters = signature.parameters
    takes = f"it takes {signature}" if len(str(signature)) < 160 else f"it takes ({', '.join(parameters)})"
    unknown = [name for name in call.kwargs if name not in parameters]
    if unknown and not any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values()):
        near = get_close_matches(unknown[0], list(parameters), n=1)
        raise TargetError(
            f"`{call.path}` takes no argument `{unknown[0]}`",
            f"did you mean `{near[0]}`? {takes}" if near else takes,
        )
    missing = missing_arguments(signature, call)
    if missing:
        example = ", ".join(f"{name}=…" for name in missing)
        names = ", ".join(f"`{name}`" for name in missing)
        raise TargetError(
            f"`{call.path}` needs the argument{'s' * (len(missing) > 1)} {names}",
            "give literals or calls such as `Config(drop=0.5)`, "
            f"`{text.partition('(')[0]}({example})`, or name a factory without arguments",
        )
    raise TargetError(f"`{call.path}` cannot be called like this: {reason}", takes)


def missing_arguments(signature: inspect.Signature, call: Call) -> list[str]:
    """Parameters without a default that a call does not give."""
    single = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    missing = []
    for index, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind not in single or parameter.default is not inspect.Parameter.empty:
            continue
        by_position = parameter.kind is not inspect.Parameter.KEYWORD_ONLY and index < len(call.args)
        if not by_position and name not in call.kwargs:
            missing.append(name)
    return missing
