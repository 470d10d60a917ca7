"""The further arguments that `forward` requires, from their names and annotations."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any

import torch

from dropout_lint.target.types import Inputs

_PER_MAIN = 4

_TIME = re.compile(r"(t|time|times|timesteps?|steps?|sigmas?|noise_levels?|noise_cond|gammas?)", re.I)
_LABEL = re.compile(r"(y|labels?|class(es|_labels?|_ids?)?|targets?|cls|speakers?(_ids?)?)", re.I)
_LENGTHS = re.compile(r".*(lengths?|lens?|seq_?lens?|sizes)", re.I)
_MASK = re.compile(r".*mask.*", re.I)
_STATE = re.compile(r"(h|hx|h0|hidden|hidden_states?|states?|cache|memory_state|prev_state)", re.I)
_FLAG = re.compile(r"(training|train|is_training|return_\w+|use_\w+|with_\w+|inference|mode)", re.I)


def with_companions(
    mains: Iterator[tuple[Any, str]], parameters: Mapping[str, inspect.Parameter]
) -> Iterator[Inputs]:
    """Complete each guess for the first argument with guesses for the other required ones.

    Args:
        mains: values for the first argument and where they come from.
        parameters: `forward`'s parameters.
    """
    names = _needed(parameters)
    if not names and parameters and not _takes_first(parameters):
        yield Inputs((), guessed=True, origin="guessed: forward takes nothing")
        return
    if len(names) < 2:
        lists = bool(names) and _is_list(parameters[names[0]])
        for value, origin in mains:
            yield Inputs(([value[0], value[0]] if lists else value,), guessed=True, origin=origin)
        return
    graph = _graph_mains(names, parameters, mains)
    for value, origin in graph:
        options = [_options(name, parameters[name], value) for name in names[1:]]
        for rest in islice(product(*options), _PER_MAIN):
            positional, keywords = _placed(names[1:], rest, parameters)
            yield Inputs((value, *positional), keywords, guessed=True, origin=origin)


def _needed(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in parameters.items()
        if parameter.kind not in variable and parameter.default is inspect.Parameter.empty
    ]


def _takes_first(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a `forward` that requires nothing still takes a tensor first (`*args`, `x=None`)."""
    first = next(iter(parameters.values()))
    return first.kind is inspect.Parameter.VAR_POSITIONAL or first.default is None


def _is_list(parameter: inspect.Parameter) -> bool:
    text = str(parameter.annotation).lower()
    return "list[" in text and "tensor" in text and "optional" not in text


def _placed(
    names: list[str], values: tuple[Any, ...], parameters: Mapping[str, inspect.Parameter]
) -> tuple[list[Any], dict[str, Any]]:
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        if parameters[name].kind is inspect.Parameter.KEYWORD_ONLY:
            keywords[name] = value
        else:
            positional.append(value)
    return positional, keywords


def _graph_mains(
    names: list[str], parameters: Mapping[str, inspect.Parameter], mains: Iterator[tuple[Any, str]]
) -> Iterator[tuple[Any, str]]:
    """Node features have no batch axis where edges or an adjacency matrix come with them."""
    for value, origin in mains:
        if any(name.startswith(("edge", "adj")) for name in names) and value.dim() == 2:
            yield torch.empty((16, value.shape[-1]), device="meta"), origin
        yield value, origin


def _options(name: str, parameter: inspect.Parameter, main: torch.Tensor) -> list[Any]:
    """Values for one argument, likeliest first."""
    plain = _by_annotation(parameter)
    if plain is not None:
        return [plain]
    batch = main.shape[0]
    if name.startswith("edge_index"):
        return [torch.zeros((2, 32), dtype=torch.int64)]
    if name.startswith("adj"):
        return [_like((batch, batch)), _like((batch, *main.shape[1:-1], main.shape[-2] if main.dim() > 2 else batch))]
    if name == "batch":
        return [torch.zeros(batch, dtype=torch.int64)]
    if _FLAG.fullmatch(name):
        return [False, True]
    if _TIME.fullmatch(name):
        return [torch.zeros(batch, dtype=torch.int64), _like((batch,)), _like((batch, 1))]
    if _MASK.fullmatch(name):
        return _masks(main)
    if _LENGTHS.fullmatch(name):
        return [torch.full((batch,), main.shape[1] if main.dim() > 1 else 1), torch.full((batch,), main.shape[-1])]
    if _LABEL.fullmatch(name):
        return [torch.zeros(batch, dtype=torch.int64), main, torch.zeros(tuple(main.shape[:2]), dtype=torch.int64)]
    if _STATE.fullmatch(name):
        return [None, main]
    return [main, torch.empty(main.shape[:2], dtype=torch.int64, device="meta"), _like((batch,)), None]


def _by_annotation(parameter: inspect.Parameter) -> Any:
    kinds: dict[Any, Any] = {int: 1, float: 0.5, bool: False, "int": 1, "float": 0.5, "bool": False}
    try:
        return kinds.get(parameter.annotation)
    except TypeError:
        return None


def _masks(main: torch.Tensor) -> list[Any]:
    length = main.shape[1] if main.dim() > 1 else 1
    shape = (main.shape[0], length)
    return [
        None,
        torch.ones(shape, dtype=torch.int64),
        torch.ones(shape, dtype=torch.bool),
        torch.zeros((length, length)),
        torch.ones((main.shape[0], 1, *main.shape[2:]) if main.dim() > 3 else (main.shape[0], 1, 1, length)),
    ]


def _like(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, device="meta")
