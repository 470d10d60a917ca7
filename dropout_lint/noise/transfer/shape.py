"""Operations that only move values: the state stays, its channel axis moves.

A reshape keeps the channels together where it can be read off the sizes; where channels are split up
(attention heads, channel shuffle) their moments are averaged, with their differences kept as spread.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dropout_lint.noise.state import State, replace
from dropout_lint.noise.transfer.base import Call, first_shape, function, module


def relocated(x: State, before: tuple[int, ...], after: tuple[int, ...]) -> State:
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
    for axis, length in enumerate(after):
        if length == size and axis:
            return replace(merged, axis=axis)
    axis = min(max(x.axis, 0), len(after) - 1)
    return replace(merged, axis=axis, counts=np.array([float(after[axis])]))


def _folded(x: State, axis: int, times: int, inner: bool) -> State:
    if x.groups == 1 or (x.groups < x.channels and inner):
        return replace(x, axis=axis, counts=x.counts * times)
    x = x.per_channel()
    index = np.repeat(np.arange(x.groups), times) if inner else np.tile(np.arange(x.groups), times)
    return replace(x.pick(index, np.ones(len(index))), axis=axis)


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
        return tuple(replace(x.collapse().merged(), counts=np.ones(1)) for _ in parts)
    result, start = [], 0
    for part in parts:
        length = (first_shape(part) or (0,) * rank)[axis]
        result.append(stretch(x, start, length))
        start += length
    return tuple(result)


def stretch(x: State, start: int, length: int) -> State:
    """Channels start … start + length."""
    ends = np.cumsum(x.counts)
    begins = ends - x.counts
    overlap = np.minimum(ends, start + length) - np.maximum(begins, start)
    index = np.flatnonzero(overlap > 0)
    return x.pick(index, overlap[index]) if len(index) else x


@function("getitem", "select", "narrow", "index_select", "take", "gather")
def indexed(call: Call) -> Any:  # noqa: PLR0911
    """x[i]: an item of a tuple, or a part of a tensor."""
    container = call.args[0]
    key = call.arg(1, "index")
    if isinstance(container, (tuple, list, dict)):
        try:
            return container[key]
        except (KeyError, IndexError, TypeError):
            return call.x
    x, before, after = call.x, call.in_shape, call.shape
    if call.name != "getitem":
        if len(after) < len(before):
            dim = key % len(before) if isinstance(key, int) else 0
            return replace(x, axis=x.axis - (dim < x.axis))
        return x if x.axis < len(after) and after[x.axis] == x.channels else x.merged()
    keys = key if isinstance(key, tuple) else (key,)
    keys = _without_ellipsis(keys, len(before))
    source = target = 0
    for item in keys:
        if item is None:
            target += 1
            continue
        if source == x.axis:
            if isinstance(item, int):
                x = replace(x.collapse().merged(), counts=np.ones(1))
                return replace(x, axis=max(target - 1, 0))
            if isinstance(item, slice) and source < len(before) and _plain_slice(item):
                start, stop, _ = item.indices(before[source])
                x = stretch(x, start, stop - start)
            return replace(x, axis=target)
        source += 1
        target += 0 if isinstance(item, int) else 1
    return replace(x, axis=target + x.axis - source)


def _plain_slice(item: slice) -> bool:
    return all(part is None or isinstance(part, int) for part in (item.start, item.stop)) and item.step in (
        None,
        1,
    )


def _without_ellipsis(keys: tuple[Any, ...], rank: int) -> tuple[Any, ...]:
    if not any(item is Ellipsis for item in keys):
        return keys
    at = next(i for i, item in enumerate(keys) if item is Ellipsis)
    given = sum(1 for item in keys if item is not None and item is not Ellipsis)
    return (*keys[:at], *(slice(None),) * max(rank - given, 0), *keys[at + 1 :])


@module("ZeroPad1d", "ZeroPad2d", "ZeroPad3d", "_ConstantPadNd")
@function("pad")
def padded(call: Call) -> State:
    """Zero padding: a position is inside with probability f, else 0; other modes repeat values."""
    x = call.x
    mode = call.arg(2, "mode", "constant") if call.module is None else "constant"
    inside = math.prod(call.in_shape) / max(math.prod(call.shape), 1)
    if mode != "constant" or inside >= 1:
        return x
    if (
        len(call.shape) > x.axis and call.shape[x.axis] > call.in_shape[x.axis]
    ):  # more channels: zeros beside them
        return x.merged().on(x.axis, call.shape[x.axis])
    middle, t_middle = inside * (1 - inside) * (x.mean**2 + x.dev**2), x.t_mean**2 + x.t_dev**2
    overall = inside * (1 - inside) * (x.train_mean**2 + x.train_dev**2)
    return replace(
        x,
        t_mean=x.t_mean * inside,
        t_dev=x.t_dev * inside,
        t_var=inside * x.t_var + inside * (1 - inside) * t_middle,
        mean=x.mean * inside,
        dev=x.dev * inside,
        sig=np.sqrt(inside * x.sig**2 + middle),
        var=inside * x.var + middle,
        data=inside * x.data + overall,
        noise=x.noise * inside,
    )


@module("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d")
@function("interpolate", "upsample", "upsample_nearest2d", "upsample_bilinear2d")
def interpolated(call: Call) -> State:
    """Nearest: values repeat. Linear, to a finer grid: two neighbours at (¾, ¼) or so, Σw² = ⅝ for each
    dimension.
    """
    x = call.x
    mode = getattr(call.module, "mode", None) if call.module is not None else call.arg(3, "mode", "nearest")
    finer = math.prod(call.shape) > math.prod(call.in_shape)
    if mode not in ("linear", "bilinear", "trilinear", "bicubic") or not finer:
        return x
    from dropout_lint.noise.transfer.pooling import averaged

    dims = max(len(call.shape) - 2, 1)
    weight = (5 / 8) ** dims
    near = float(x.rho[0])
    return averaged(x.collapse(), weight + (1 - weight) * near, 1 / weight)


@module(
    "Identity",
    "PixelShuffle",
    "PixelUnshuffle",
    "ChannelShuffle",
    "Fold",
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
    "expand",
    "expand_as",
    "repeat",
    "tile",
    "repeat_interleave",
    "broadcast_to",
    "roll",
    "flip",
    "masked_fill",
    "alias",
    "requires_grad",
    "identity",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "unfold",
    "fold",
    "copy",
    "triu",
    "tril",
    "sort",
    "dropout_off",
    "checkpoint",
    "contiguous_format",
    "nan_to_num",
    "data",
    "scatter",
    "fill",
    "real",
    "cumsum",
    "grid_sample",
    "masked_select",
    "index_put",
    "diagonal",
    "as_tensor",
    "wrap",
    "argsort",
    "topk",
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
