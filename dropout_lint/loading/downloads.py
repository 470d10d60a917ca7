"""No weights are fetched while a model is built without values: its structure does not need them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any
from unittest.mock import patch

import torch.hub
from torch import nn

NOTE = "pretrained weights were not fetched: a structural check needs none"


@contextmanager
def nothing_downloaded(notes: list[str]) -> Iterator[None]:
    """`torch.hub` gives empty state dicts, loading one does nothing, and timm loads no pretrained weights.

    Args:
        notes: `NOTE` is appended when something would have been fetched.
    """

    def say() -> None:
        if NOTE not in notes:
            notes.append(NOTE)

    original = nn.Module.load_state_dict

    def load_state_dict(self: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        if not state_dict:
            return nn.modules.module._IncompatibleKeys([], [])
        return original(self, state_dict, *args, **kwargs)

    def load_pretrained(*args: Any, **kwargs: Any) -> None:
        say()

    with ExitStack() as stack:
        stack.enter_context(patch.object(nn.Module, "load_state_dict", load_state_dict))
        stack.enter_context(_fetching_nothing())
        builder = sys.modules.get("timm.models._builder")
        if builder is not None:
            stack.enter_context(patch.object(builder, "load_pretrained", load_pretrained))
        _FETCHED.clear()
        yield
        if _FETCHED:
            say()


_FETCHED: list[str] = []


def _fetch_nothing(*args: Any, **kwargs: Any) -> dict[str, Any]:
    # its code runs in the place of other functions, whose globals are others
    from dropout_lint.loading.downloads import _FETCHED

    _FETCHED.append(str(args[0]) if args else str(kwargs.get("url")))
    return {}


@contextmanager
def _fetching_nothing() -> Iterator[None]:
    """Exchange the function's code, since libraries hold the function under names of their own."""
    fetch: Any = torch.hub.load_state_dict_from_url
    if not isinstance(fetch, FunctionType) or fetch.__code__.co_freevars:
        yield
        return
    code, defaults = fetch.__code__, fetch.__defaults__
    fetch.__code__ = _fetch_nothing.__code__
    try:
        yield
    finally:
        fetch.__code__, fetch.__defaults__ = code, defaults
