"""The further arguments that `forward` requires, from their names and annotations."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice, product
from typing import Any

import torch
from torch import nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.graphs import GRAPHS, NODES, edge_features, edges, graph_of, is_graph, node_features

_PER_MAIN = 4
"""Combinations tried for one guess of the first argument."""


def with_companions(
    model: nn.Module, mains: Iterator[tuple[Any, str]], parameters: Mapping[str, inspect.Parameter]
) -> Iterator[Inputs]:
    """Complete each guess for the first argument with guesses for the other required ones.

    Args:
        model: whose layers tell how wide the features of a graph are.
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
    if is_graph(names):
        mains = chain(node_features(model), mains)
    for value, origin in _graph_mains(names, mains):
        options = [_options(model, name, parameters[name], value) for name in names[1:]]
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


def _graph_mains(names: list[str], mains: Iterator[tuple[Any, str]]) -> Iterator[tuple[Any, str]]:
    """Node features have no batch axis where edges or an adjacency matrix come with them."""
    for value, origin in mains:
        if any(name.startswith(("edge", "adj")) for name in names) and value.dim() == 2:
            yield value.new_empty((NODES, value.shape[-1])), origin
        yield value, origin


def _options(model: nn.Module, name: str, parameter: inspect.Parameter, main: torch.Tensor) -> list[Any]:
    """Values for one argument, likeliest first."""
    if _EDGE_FEATURES.fullmatch(name):
        return edge_features(model, main)
    plain = _by_annotation(parameter)
    if plain is not None:
        return [plain]
    if _is_list(parameter):
        return [[main, main]]
    for pattern, options in _BY_NAME:
        if pattern.fullmatch(name):
            return options(main)
    return [main, _zeros(*main.shape[:2]), _like((main.shape[0],)), None]


def named(name: str) -> bool:
    """Whether an argument's name alone tells what it is."""
    return any(pattern.fullmatch(name) for pattern in (_EDGE_FEATURES, *(pattern for pattern, _ in _BY_NAME)))


def _by_annotation(parameter: inspect.Parameter) -> Any:
    kinds: dict[Any, Any] = {int: 1, float: 0.5, bool: False, "int": 1, "float": 0.5, "bool": False}
    try:
        return kinds.get(parameter.annotation)
    except TypeError:
        return None


def _times(main: torch.Tensor) -> list[Any]:
    return [_zeros(main.shape[0]), _like((main.shape[0],)), _like((main.shape[0], 1))]


def _labels(main: torch.Tensor) -> list[Any]:
    return [_zeros(main.shape[0]), main, _zeros(*main.shape[:2])]


def _lengths(main: torch.Tensor) -> list[Any]:
    sizes = dict.fromkeys((*main.shape[1:2], *main.shape[-1:]))
    return [torch.full((main.shape[0],), size) for size in sizes]


def _adjacencies(main: torch.Tensor) -> list[Any]:
    nodes = main.shape[-2] if main.dim() > 1 else main.shape[0]
    return [_like((nodes, nodes)), _like((*main.shape[:-2], nodes, nodes))]


def _masks(main: torch.Tensor) -> list[Any]:
    length = main.shape[1] if main.dim() > 1 else 1
    shape = (main.shape[0], length)
    return [
        None,
        torch.ones(shape, dtype=torch.int64),
        torch.ones(shape, dtype=torch.bool),
        torch.zeros((length, length)),
    ]


def _like(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64)


_EDGE_FEATURES = re.compile(r"edge_(attrs?|features?|feats?|weights?)", re.I)
_BY_NAME: tuple[tuple[re.Pattern[str], Callable[[torch.Tensor], list[Any]]], ...] = (
    (re.compile(r"edge_index.*"), lambda main: [edges(main.shape[0])]),
    (re.compile(r"adj.*"), _adjacencies),
    (re.compile(r"batch(_index|_idx)?"), lambda main: [graph_of(main.shape[0])]),
    (re.compile(r"(num|n)_nodes"), lambda main: [main.shape[0]]),
    (re.compile(r"num_graphs|batch_size"), lambda main: [GRAPHS]),
    (re.compile(r"(training|train|is_training|return_\w+|use_\w+|with_\w+)"), lambda main: [False, True]),
    (re.compile(r"(t|times?|timesteps?|steps?|sigmas?|noise_levels?|gammas?)", re.I), _times),
    (re.compile(r".*mask.*", re.I), _masks),
    (re.compile(r".*(lengths?|lens?)", re.I), _lengths),
    (re.compile(r"(y|labels?|class(es|_labels?|_ids?)?|targets?|cls|speakers?(_ids?)?)", re.I), _labels),
    (re.compile(r"(h|hx|h0|hidden(_states?)?|states?|cache|prev_state)", re.I), lambda main: [None, main]),
)
