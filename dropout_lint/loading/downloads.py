"""No weights are fetched while a model is built without values: its structure does not need them."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any
from unittest.mock import patch

import torch.hub
from torch import nn

NOTE = "pretrained weights were not fetched: a structural check needs none"
OFFLINE_HINT = (
    "models are linted offline: fetch its configuration once (`hf download NAME config.json`), or build it "
    "from one that is here, `Model(Config())`"
)
_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_HUB = "huggingface_hub.constants"
_TIMM = "timm.models._builder"
_TRANSFORMERS = "transformers.modeling_utils"


@contextmanager
def nothing_downloaded(notes: list[str]) -> Iterator[None]:
    """Inside, no weights are fetched, and none that are here already are read.

    `torch.hub` gives empty state dicts, loading one does nothing, timm loads no pretrained weights,
    `from_pretrained` of transformers builds from the configuration alone, and the Hugging Face hub is
    offline, so that nothing waits for a network.

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
        stack.enter_context(_offline())
        stack.enter_context(patch.object(nn.Module, "load_state_dict", load_state_dict))
        stack.enter_context(_fetching_nothing())
        builder = sys.modules.get(_TIMM)
        if builder is not None:
            stack.enter_context(patch.object(builder, "load_pretrained", load_pretrained))
        modeling = getattr(sys.modules.get(_TRANSFORMERS), "PreTrainedModel", None)
        if modeling is not None:
            stack.enter_context(
                patch.object(modeling, "from_pretrained", classmethod(_from_configuration(say)))
            )
        _FETCHED.clear()
        yield
        if _FETCHED:
            say()


def loaders() -> frozenset[str]:
    """Those libraries that `nothing_downloaded` keeps from reading weights which are imported by now.

    One that is imported inside of it comes too late: what is built then has to be built once more.
    """
    return frozenset(name for name in (_TIMM, _TRANSFORMERS) if name in sys.modules)


def is_offline_error(error: BaseException | None) -> bool:
    """Whether something failed since the Hugging Face hub is offline and does not have it here."""
    seen = set[int]()
    while error is not None and id(error) not in seen:  # a chain may run in a circle
        if type(error).__name__ in ("OfflineModeIsEnabled", "LocalEntryNotFoundError"):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _offline() -> Iterator[None]:
    """The Hugging Face libraries find what is here alone, whether they are imported already or inside."""
    before = {name: os.environ.get(name) for name in _SWITCHES}
    hub = sys.modules.get(_HUB)
    was = getattr(hub, "HF_HUB_OFFLINE", None)
    os.environ.update(dict.fromkeys(_SWITCHES, "1"))
    if hub is not None:
        hub.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]  # of any module mypy knows no names
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        hub = sys.modules.get(_HUB)
        if hub is not None:
            said = (before["HF_HUB_OFFLINE"] or before["TRANSFORMERS_OFFLINE"] or "").upper()
            meant = said in {"1", "ON", "YES", "TRUE"} if was is None else was
            hub.HF_HUB_OFFLINE = meant  # type: ignore[attr-defined]  # as above


def _from_configuration(say: Callable[[], None]) -> Callable[..., Any]:
    """A `from_pretrained` that makes the model of a configuration, with the weights that it starts with."""

    def from_pretrained(cls: Any, name: Any, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        if config is None or isinstance(config, (str, os.PathLike)):
            source = name if config is None else config
            config, kwargs = cls.config_class.from_pretrained(source, return_unused_kwargs=True, **kwargs)
        taken = inspect.signature(cls.__init__).parameters
        say()
        return cls(config, *args, **{key: value for key, value in kwargs.items() if key in taken})

    return from_pretrained


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
