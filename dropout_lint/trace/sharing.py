"""Along which dimensions of the data a random mask differs: what shares one of its draws.

A mask that has the data's shape may have been drawn for fewer values and spread (`expand_as`, `repeat`, a
product with ones). Its arithmetic is run on draws of their real shapes, one of them drawn, the others held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from dropout_lint.trace.draws import NORMAL, borrows_shape, drops_ones, function_name, is_random
from dropout_lint.trace.traced import function_of, shape_of

RUNS = 8
"""How often a mask is drawn: that one of so many does not show a dimension which it differs along is rare."""
MOST_ELEMENTS = 1 << 20
"""Largest mask that is drawn."""
LIKE = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
"""What these take beside a mask lends its shape or dtype."""
HELD = (0.0, 1.0)
"""What the other draws are held at: a uniform one is kept by either `u < keep` or `u > p`."""


class _Unsure(Exception):
    """It cannot be told along which dimensions a mask differs."""


def varies(mask: fx.Node, draws: Sequence[fx.Node], data: Sequence[int]) -> tuple[int, ...] | None:
    """The dimensions of the data along which a mask differs; 0 is the batch. None where that cannot be told:
    its arithmetic cannot be run, or its draws are shared over different dimensions.

    Args:
        mask: what the data are multiplied by.
        draws: what it is made of.
        data: their shape.
    """
    try:
        return _varies(mask, draws, data)
    except _Unsure:
        return None


def _varies(mask: fx.Node, draws: Sequence[fx.Node], data: Sequence[int]) -> tuple[int, ...]:
    size = _size_of(mask)
    if size is None or len(size) > len(data):
        raise _Unsure
    before = len(data) - len(size)
    if all(_size_of(draw) == size for draw in draws):
        found = {dim for dim, length in enumerate(size) if length > 1}
    else:
        each = [_differing(mask, draw, draws) for draw in draws]
        found = max(each, key=len)
        gated = found == {0}  # a number for each sample; one for the whole batch may multiply it
        if any(one != found and not (gated and not one) for one in each):
            raise _Unsure
    if size and not before and data[0] == 1:  # a batch of one has draws of its own
        found = found | {0}
    return tuple(sorted(before + dim for dim in found))


def _size_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of a mask; of a number, that of a scalar."""
    return () if isinstance(node.meta.get("value"), (bool, int, float)) else shape_of(node)


def _differing(mask: fx.Node, draw: fx.Node, draws: Sequence[fx.Node]) -> set[int]:
    """The dimensions of a mask along which it differs because of one of its draws."""
    found: set[int] = set()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for run in range(RUNS):
            held = HELD[run % len(HELD)]
            known: dict[fx.Node, Any] = {
                node: _drawn(node) if node is draw else torch.full(_shape(node), held) for node in draws
            }
            try:
                value = torch.as_tensor(_value(mask, known)).double()
            except Exception as error:  # an operation that needs what is not there
                raise _Unsure from error
            found |= {dim for dim in range(value.dim()) if bool((value != value.narrow(dim, 0, 1)).any())}
    return found


def _shape(node: fx.Node) -> tuple[int, ...]:
    size = _size_of(node)
    if size is None or torch.Size(size).numel() > MOST_ELEMENTS:
        raise _Unsure
    return size


def _drawn(node: fx.Node) -> Tensor:
    """Values of a draw, of its kind."""
    name, size = function_name(node), _shape(node)
    if name in NORMAL:
        return torch.randn(size)
    return torch.rand(size) if name in ("rand", "rand_like", "uniform_") else (torch.rand(size) < 0.5).float()


def _value(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """What a node returns for the draws that are known."""
    if node not in known:
        known[node] = _computed(node, known)
    value = known[node]
    return value.clone() if isinstance(value, Tensor) else value


def _computed(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    value = node.meta.get("value")
    if isinstance(value, (bool, int, float)):
        return value
    if node.target is getattr:  # of a tensor, to put another one beside it
        return torch.device("cpu")
    if node.op not in ("call_function", "call_method") or is_random(node):
        raise _Unsure
    if borrows_shape(node) or drops_ones(node):
        return torch.ones(_shape(node))
    if function_name(node) == "mutated":  # what the last change in place has returned
        return _value(node.all_input_nodes[-1], known)
    _shape(node)  # raises where it is too large
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda source: _argument(node, source, known))
    return function_of(node)(*args, **kwargs)


def _argument(node: fx.Node, source: fx.Node, known: dict[fx.Node, Any]) -> Any:
    alike = function_name(node) in LIKE and source is not node.args[0]
    return torch.ones(_shape(source)) if alike else _value(source, known)
