"""Rows of a table: codes of its categorical columns and numbers of its continuous ones, as two tensors.

How many columns there are of each is told by attributes (`n_cont`), by the embeddings, one for each
categorical column, and by the first layers of the numbers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, product

import torch
from torch import nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.first_layers import BATCH

_TRIED = 8
_CATEGORICAL = r"cat(s|eg|egorical|egories)?"
_CONTINUOUS = r"(cont(s|inuous)?|num(s|er|eric|erical)?|dense)"
_CODES, _NUMBERS = (
    re.compile(rf"(x_?)?{word}(_?(x|inputs?|features?|data))?", re.I) for word in (_CATEGORICAL, _CONTINUOUS)
)
_COUNTS = {
    word: re.compile(rf"(n|num)_{word}(_?(features?|columns?|cols|inputs?|vars))?", re.I)
    for word in (_CATEGORICAL, _CONTINUOUS)
}


def tabular_inputs(model: nn.Module, parameters: Mapping[str, inspect.Parameter]) -> Iterator[Inputs]:
    """Candidates for a `forward` that takes codes and numbers, and requires nothing else."""
    needed = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    for fields in tabular_fields(model, parameters):
        if set(needed) <= fields.keys():
            origin = "guessed from the columns that the embeddings and first layers are made for"
            yield Inputs((), {name: fields[name] for name in fields}, guessed=True, origin=origin)


def tabular_fields(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Codes of 0 and numbers, each under its name; nothing where the names are not those of such a pair."""
    names = list(names)
    codes = [name for name in names if _CODES.fullmatch(name)]
    numbers = [name for name in names if _NUMBERS.fullmatch(name)]
    if len(codes) != 1 or len(numbers) != 1:
        return
    for categorical, continuous in islice(product(_categorical(model), _continuous(model)), _TRIED):
        made = {
            codes[0]: torch.zeros((BATCH, categorical), dtype=torch.int64),
            numbers[0]: torch.empty((BATCH, continuous), device="meta"),
        }
        yield {name: made[name] for name in names if name in made}


def _categorical(model: nn.Module) -> list[int]:
    found = list(_attributes(model, _COUNTS[_CATEGORICAL]))
    for module in model.modules():
        children = list(module.children())
        if children and all(isinstance(child, nn.Embedding) for child in children):
            found.append(len(children))
    found.append(len(_embeddings(model)))
    return [count for count in dict.fromkeys(found) if count]


def _continuous(model: nn.Module) -> list[int]:
    found = list(_attributes(model, _COUNTS[_CONTINUOUS]))
    numbers = re.compile(rf"(.*[._])?{_CONTINUOUS}([._].*)?|.*[._]{_CONTINUOUS}", re.I)
    for name, module in model.named_modules():
        if numbers.fullmatch(name):
            found += [size for kind in ("num_features", "in_features") if (size := _whole(module, kind))]
            found += [len(value) for value in module.parameters(recurse=False) if value.dim() == 2]
    embedded = sum(embedding.embedding_dim for embedding in _embeddings(model))
    linear = next((module for module in model.modules() if isinstance(module, nn.Linear)), None)
    if linear is not None:
        found.append(linear.in_features - embedded)
    return [count for count in dict.fromkeys(found) if count > 0]


def _embeddings(model: nn.Module) -> list[nn.Embedding]:
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]


def _attributes(model: nn.Module, pattern: re.Pattern[str]) -> Iterator[int]:
    for module in model.modules():
        for name in vars(module):
            if pattern.fullmatch(name) and (size := _whole(module, name)):
                yield size


def _whole(module: nn.Module, name: str) -> int:
    value = getattr(module, name, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
