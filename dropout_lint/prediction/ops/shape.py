"""Operations that only move values: the state stays, its channel axis moves.

A reshape keeps the channels together where it can be read off the sizes; where channels are split up
(attention heads, channel shuffle) their moments are averaged, with their differences kept as spread.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dropout_lint.inputs.values import Attribute
from dropout_lint.prediction.algebra import chosen, chosen_channels, concatenate, stretch
from dropout_lint.prediction.ops.base import Call, NoRule, Parameter, first_shape, function, module, several
from dropout_lint.prediction.ops.indices import code
from dropout_lint.prediction.ops.maximum import maximum
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.state import State, constant


def relocated(x: State, before: tuple[int, ...], after: tuple[int, ...]) -> State:  # noqa: PLR0911 - one return for each kind of reshape
    """`x` after a reshape from `before` to `after`."""
    if not before or not after or before == after or x.axis >= len(before):
        return x
    size, ahead = before[x.axis], math.prod(before[: x.axis])
    seen = 1
    for axis, length in enumerate(after):
        if seen == ahead and length == size:
            return replace(x, axis=axis)
        if (
            seen == ahead and size > 1 and length % size == 0 and length > size
        ):  # channel first, positions behind
            return _folded(x, axis, length // size, inner=True)
        if (
            seen < ahead and seen * length == ahead * size and length > size
        ):  # positions first, channel behind
            return _folded(x, axis, length // size, inner=False)
        seen *= length
    merged = x.merged()
    split = _split_into(size, ahead, after)
    if split is not None:  # heads, channel shuffle: the innermost part stands for the channels
        return replace(merged, axis=split, counts=np.array([float(after[split])]))
    for axis, length in enumerate(after):
        if length == size and axis:
            return replace(merged, axis=axis)
    axis = min(max(x.axis, 0), len(after) - 1)
    return replace(merged, axis=axis, counts=np.array([float(after[axis])]))


def _split_into(size: int, ahead: int, after: tuple[int, ...]) -> int | None:
    """The last of the dimensions that a dimension of `size` behind `ahead` values was split into."""
    seen = 1
    for axis, length in enumerate(after):
        if seen >= ahead and seen * length == ahead * size:
            return axis
        seen *= length
    return None


def _folded(x: State, axis: int, times: int, inner: bool) -> State:
    if x.groups == 1 or (x.groups < x.channels and inner):
        return replace(x, axis=axis, counts=x.counts * times)
    x = x.per_channel()
    index = np.repeat(np.arange(x.groups), times) if inner else np.tile(np.arange(x.groups), times)
    return replace(x.pick(index, np.ones(len(index))), axis=axis)


@several
@function(
    "view",
    "reshape",
    "flatten",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "ravel",
    "view_as",
    "reshape_as",
    "flat",
    "rearrange",
)
@module("Flatten", "Unflatten")
def reshaped(call: Call) -> State:
    """view, reshape, flatten, squeeze and the like: by the sizes before and after."""
    x = call.x
    if call.name in ("squeeze", "unsqueeze") and call.in_shape and call.shape:
        return replace(x, axis=_moved(call.in_shape, call.shape, x.axis))
    return relocated(x, call.in_shape, call.shape)


def _moved(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int:
    """Where `axis` is after dimensions of size 1 came or went."""
    if axis >= len(before):
        return max(len(after) - 1, 0)
    rank = sum(1 for size in before[:axis] if size != 1)
    wide = [i for i, size in enumerate(after) if size != 1]
    return wide[rank] if before[axis] != 1 and rank < len(wide) else min(axis, max(len(after) - 1, 0))


@several
@function("permute", "transpose", "swapaxes", "swapdims", "t", "movedim", "moveaxis", "mT", "T")
def permuted(call: Call) -> State:
    """permute and transpose."""
    x, rank = call.x, len(call.in_shape)
    if not rank or x.axis >= rank:
        return x
    if call.name == "permute":
        order = (
            call.args[1] if len(call.args) == 2 and isinstance(call.args[1], (tuple, list)) else call.args[1:]
        )
        order = order or call.kwargs.get("dims", ())
        places = [int(d) % rank for d in order]
        return replace(x, axis=places.index(x.axis)) if x.axis in places else x
    if call.name in ("t", "T", "mT"):
        a, b = rank - 2, rank - 1
    else:
        a, b = (call.arg(1, "dim0", 0), call.arg(2, "dim1", 1))
        if not isinstance(a, int) or not isinstance(b, int):
            return x
    a, b = a % rank, b % rank
    if call.name in ("movedim", "moveaxis"):
        order = [d for d in range(rank) if d != a]
        order.insert(b, a)
        return replace(x, axis=order.index(x.axis))
    return replace(x, axis={a: b, b: a}.get(x.axis, x.axis))


@function("chunk", "split", "tensor_split", "split_with_sizes", "unbind")
def divided(call: Call) -> Any:
    """chunk, split and unbind: each part is that stretch of the channels, or the whole state."""
    x = call.x
    parts = call.value if isinstance(call.value, (tuple, list)) else ()
    rank = len(call.in_shape)
    dim = call.arg(2 if call.name != "unbind" else 1, "dim", 0)
    axis = int(dim) % rank if rank and isinstance(dim, int) else -1
    if axis != x.axis:
        moved = replace(x, axis=x.axis - 1) if call.name == "unbind" and x.axis > axis else x
        return tuple(moved for _ in parts)
    if call.name == "unbind":
        return tuple(
            replace(chosen_channels(x, np.array([i])), axis=max(axis - 1, 0)) for i, _ in enumerate(parts)
        )
    result, start = [], 0
    for part in parts:
        length = (first_shape(part) or (0,) * rank)[axis]
        result.append(stretch(x, start, length))
        start += length
    return tuple(result)


def _numbers(item: Any, size: int) -> npt.NDArray[Any] | None:
    """The positions that an index stands for; None where only a run would tell."""
    if isinstance(item, slice) and all(
        v is None or isinstance(v, int) for v in (item.start, item.stop, item.step)
    ):
        return np.arange(size)[item]
    if isinstance(item, int):
        return np.array([item % size])
    if isinstance(item, Parameter) and item.known and item.tensor.dim() == 1:
        item = item.tensor.tolist()
    if isinstance(item, (list, tuple)) and item and all(type(v) is int for v in item):
        return np.array([v % size for v in item])
    return None


@function("getattr")
def attribute(call: Call) -> Any:
    """x.name: what an input object holds."""
    container = call.args[0]
    return container[Attribute(call.args[1])] if isinstance(container, dict) else call.x


@function("getitem", "select", "narrow", "index_select", "take", "gather", "take_along_dim")
def indexed(call: Call) -> Any:
    """x[i]: an item of a tuple, or a part of a tensor."""
    container = call.args[0]
    key = call.arg(1, "index") if call.name in ("getitem", "take") else call.arg(1, "dim")
    if isinstance(container, (tuple, list, dict)):
        return _item(call, container, key)
    if container is None:  # a tuple inside a tuple, of which the trace tells nothing
        raise NoRule
    rows = code(call) if isinstance(container, Parameter) else None
    if rows is not None:
        return rows
    x, before, after = call.x, call.in_shape, call.shape
    if call.name == "getitem":
        keys = _without_ellipsis(key if isinstance(key, tuple) else (key,), len(before))
        return _by_keys(x, keys, before, after)
    dim = key % len(before) if isinstance(key, int) and before else 0
    if dim != x.axis or call.name in ("take", "gather", "take_along_dim"):
        if len(after) < len(before):
            return replace(x, axis=x.axis - (dim < x.axis))
        return x if x.axis < len(after) and after[x.axis] == x.channels else x.merged()
    if call.name == "narrow":
        start, length = call.arg(2, "start"), call.arg(3, "length")
        item: Any = (
            slice(start, start + length) if isinstance(start, int) and isinstance(length, int) else None
        )
    else:
        item = call.arg(2, "index")
    return _of_channels(x, item, before[dim], after, max(dim - 1, 0) if call.name == "select" else dim)


def _item(call: Call, container: Any, key: Any) -> Any:
    try:
        return container[key]
    except (KeyError, IndexError, TypeError):
        return call.x


def _of_channels(x: State, item: Any, size: int, after: tuple[int, ...], axis: int) -> State:
    """Item `item` of the channels, which lie in `axis` from then on."""
    index = _numbers(item, size)
    if index is not None and len(index):
        return replace(chosen_channels(x, index), axis=axis)
    return x.on(axis, after[axis] if axis < len(after) else 1)


def _by_keys(x: State, keys: tuple[Any, ...], before: tuple[int, ...], after: tuple[int, ...]) -> State:
    source = target = 0
    for item in keys:
        if item is None:
            target += 1
            continue
        if source == x.axis:
            gone = isinstance(item, int) and not isinstance(item, bool)
            place = max(target - 1, 0) if gone else target
            if isinstance(item, slice) and item == slice(None):
                return replace(x, axis=target)
            return _of_channels(x, item, before[source], after, place)
        source += 1
        target += 0 if isinstance(item, int) and not isinstance(item, bool) else 1
    return replace(x, axis=target + x.axis - source)


def _without_ellipsis(keys: tuple[Any, ...], rank: int) -> tuple[Any, ...]:
    if not any(item is Ellipsis for item in keys):
        return keys
    at = next(i for i, item in enumerate(keys) if item is Ellipsis)
    given = sum(1 for item in keys if item is not None and item is not Ellipsis)
    return (*keys[:at], *(slice(None),) * max(rank - given, 0), *keys[at + 1 :])


@module("ZeroPad1d", "ZeroPad2d", "ZeroPad3d", "_ConstantPadNd")
@function("pad", "constant_pad_nd")
def padded(call: Call) -> State:
    """Padding with a constant: a position is inside with probability f, else it holds that value; other modes
    repeat values.
    """

    x, m = call.x, call.module
    mode = call.arg(2, "mode", "constant") if m is None else "constant"
    value = getattr(m, "value", 0.0) if m is not None else call.arg(3, "value", 0.0)
    if not isinstance(mode, str):  # constant_pad_nd has the value in its place
        mode, value = "constant", mode
    inside = math.prod(call.in_shape) / max(math.prod(call.shape), 1)
    if mode != "constant" or inside >= 1:
        return x
    edge = constant(float(value) if isinstance(value, (int, float)) else 0.0, len(x.noise))
    after, before = (shape[x.axis] if x.axis < len(shape) else 0 for shape in (call.shape, call.in_shape))
    if after > before:  # more channels: constants beside them
        pads = m.padding if m is not None else call.arg(1, "pad", ())
        place = 2 * (len(call.shape) - 1 - x.axis)
        front = int(pads[place]) if isinstance(pads, (tuple, list)) and len(pads) > place else 0
        sizes = (front, before, after - before - front)
        parts = [(part, n) for part, n in zip((edge, x, edge), sizes, strict=True) if n > 0]
        parts = [(replace(part, axis=x.axis), n) for part, n in parts]
        return concatenate([part for part, _ in parts], x.axis, [n for _, n in parts])
    return chosen(x, edge, inside)


@function("triu", "tril")
def triangle(call: Call) -> State:
    """Zeros on one side of the diagonal."""

    shape, offset = call.in_shape[-2:], call.arg(1, "diagonal", 0)
    part = torch.ones(shape)
    kept = (torch.tril if call.name == "tril" else torch.triu)(
        part, int(offset) if isinstance(offset, int) else 0
    )
    return chosen(call.x, constant(0.0, len(call.x.noise)), float(kept.mean()))


@function("topk")
def topmost(call: Call) -> Any:
    """The k largest of n positions: about the largest of each of k windows of n/k."""
    x, rank = call.x, len(call.in_shape)
    dim, k = call.arg(2, "dim", -1), call.arg(1, "k", 1)
    axis = int(dim) % rank if isinstance(dim, int) and rank else -1
    if axis in (x.axis, 0) or not isinstance(k, int):
        raise NoRule
    if not x.mask and np.any(x.noise):
        call.rough()  # its power varies with the data, and the largest show it most
    window = max(call.in_shape[axis] // max(k, 1), 1)
    return (maximum(x, [window], 1, call.ledger.tied), call.state(0))


@function("fill", "zero")
def overwritten(call: Call) -> State:
    """x.fill_(value): nothing of x is left."""
    value = call.arg(1, "value", 0.0)
    return constant(float(value) if isinstance(value, (int, float)) else 0.0, len(call.ledger.dropouts))


@function("copy")
def copied(call: Call) -> State:
    """x.copy_(source): what the source holds; copy.copy(x): x."""
    return call.state(call.args[1]) if len(call.args) > 1 and isinstance(call.args[1], State) else call.x


@module(
    "Identity",
    "PixelShuffle",
    "PixelUnshuffle",
    "ChannelShuffle",
    "Unfold",
    "_ReflectionPadNd",
    "_ReplicationPadNd",
    "_CircularPadNd",
)
@function(
    "contiguous",
    "clone",
    "detach",
    "float",
    "double",
    "half",
    "bfloat16",
    "to",
    "type",
    "type_as",
    "cpu",
    "cuda",
    "repeat_interleave",
    "roll",
    "flip",
    "alias",
    "requires_grad",
    "identity",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "unfold",
    "dropout_off",
    "checkpoint",
    "contiguous_format",
    "nan_to_num",
    "data",
    "real",
    "diagonal",
    "as_tensor",
    "wrap",
)
def unchanged(call: Call) -> Any:
    """Operations after which every value has the moments that it had; channels that are mixed up are
    averaged.
    """
    x, after = call.x, call.shape
    if isinstance(call.value, (tuple, list)):
        return tuple(x for _ in call.value)
    if len(after) > x.axis and after[x.axis] == x.channels:
        return x
    if call.in_shape and len(after) > len(call.in_shape) and after[-len(call.in_shape) :] == call.in_shape:
        return replace(x, axis=x.axis + len(after) - len(call.in_shape))
    if not after:
        return x
    axis = min(x.axis, len(after) - 1)
    return x.collapse().on(axis, after[axis]) if x.mask == "element" else x.on(axis, after[axis])


@function("expand", "expand_as", "broadcast_to", "repeat", "tile")
def repeated(call: Call) -> Any:
    """Values in several places: where all positions are copies of one, what they hold is the same."""
    y, after = unchanged(call), call.shape
    before = (1,) * (len(after) - len(call.in_shape)) + call.in_shape
    places = [d for d, size in enumerate(after) if d not in (0, y.axis) and size > 1]
    if not places or len(before) != len(after) or any(before[d] > 1 for d in places):
        return y
    y = y.collapse() if y.mask == "element" else y
    return replace(y, rho=np.ones_like(y.rho), shared_by_positions=np.ones_like(y.shared_by_positions))


@function("sort")
def ordered(call: Call) -> Any:
    """Values in another order; along the channels, each rank is a channel of its own.

    Raises:
        NoRule: it is along the channels.
    """
    dim = call.arg(1, "dim", -1)
    if isinstance(dim, int) and call.in_shape and dim % len(call.in_shape) == call.x.axis:
        raise NoRule
    return unchanged(call)
