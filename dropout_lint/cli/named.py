"""Things of the user's that an option names as `module:attr` or `file.py:attr`: a loader, a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dropout_lint.errors import UsageError


def named(text: str, option: str) -> tuple[Any, bool]:
    """What `text` names; the second value says whether it was written as a call, and so is a result.

    Raises:
        TargetError: it cannot be found or imported, or raises when it is called.
        UsageError: the text names no attribute.
    """
    from dropout_lint.target.build import look_up
    from dropout_lint.target.importing import import_target
    from dropout_lint.target.parse import parse_target
    from dropout_lint.target.usercode import user_code

    spec = parse_target(text)
    if spec.call is None:
        raise UsageError(f"{option} {text} names no attribute", f"write {option} module:attr")
    value = look_up(import_target(spec, []), spec.call, spec.source)
    if not spec.call.called:
        return value, False
    with user_code(f"calling `{text}`"):
        return value(*spec.call.args, **spec.call.kwargs), True


def loader(text: str, option: str = "--data") -> Iterable[Any]:
    """An iterable of batches, or what a function without required arguments returns as one.

    Raises:
        TargetError: it cannot be found or imported, or raises.
        UsageError: it is no iterable.
    """
    from dropout_lint.target.usercode import user_code

    value, is_result = named(text, option)
    if callable(value) and not isinstance(value, Iterable) and not is_result:
        with user_code(f"calling `{text}`"):
            value = value()
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise UsageError(
            f"{option} {text} is a {type(value).__name__}, which holds no batches",
            "name a DataLoader, a list of tensors, or a function that returns one",
        )
    return value


def function(text: str, option: str) -> Callable[..., Any]:
    """A function.

    Raises:
        TargetError: it cannot be found or imported.
        UsageError: it cannot be called.
    """
    value, _ = named(text, option)
    if not callable(value):
        raise UsageError(f"{option} {text} is a {type(value).__name__}", "name a function of the model")
    result: Callable[..., Any] = value
    return result
