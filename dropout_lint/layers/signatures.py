"""Where torch's functions take what is read or set of them: an argument's position and keyword."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

Argument = tuple[int, str]
"""Position and keyword."""


@dataclass(frozen=True)
class NormArguments:
    """Of a functional norm that may remember statistics.

    Attributes:
        mean, variance: the running statistics.
        weight, bias: of its affine map.
        by_batch: whether it normalises by what it is given instead.
    """

    mean: Argument
    variance: Argument
    weight: Argument
    bias: Argument
    by_batch: Argument


NORMS: Mapping[Any, NormArguments] = {
    F.batch_norm: NormArguments(
        (1, "running_mean"), (2, "running_var"), (3, "weight"), (4, "bias"), (5, "training")
    ),
    torch.batch_norm: NormArguments(
        (3, "running_mean"), (4, "running_var"), (1, "weight"), (2, "bias"), (5, "training")
    ),
    F.instance_norm: NormArguments(
        (1, "running_mean"), (2, "running_var"), (3, "weight"), (4, "bias"), (5, "use_input_stats")
    ),
}
RATIO: Argument = (1, "p")
"""Of functions that are dropouts."""
RATIOS_INSIDE: Mapping[Any, Argument] = {
    F.scaled_dot_product_attention: (4, "dropout_p"),
    F.multi_head_attention_forward: (10, "dropout_p"),
}
"""The drop ratio of functions that drop inside."""


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: Argument, default: Any) -> Any:
    """The value of one argument, wherever the caller put it."""
    position, keyword = place
    for name in (keyword, "beta") if keyword == "p" else (keyword,):
        if name in kwargs:
            return kwargs[name]
    return args[position] if position < len(args) else default


def put(args: tuple[Any, ...], kwargs: dict[str, Any], place: Argument, value: object) -> tuple[Any, ...]:
    """The arguments with one of them replaced, wherever the caller put it."""
    position, keyword = place
    if position < len(args):
        return (*args[:position], value, *args[position + 1 :])
    # aten's native_dropout and the `train` builtins take it by either name or place
    kwargs[keyword] = value
    return args
