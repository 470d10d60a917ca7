"""Indices, and codes of them: what is known of whole numbers that no data tell.

An index is anything that its uses take, each value as likely as another. It is followed back through integer
arithmetic to where it comes from, so that `i % 4` stays below 4. A code of indices (one-hot, thermometer, the
rows of a table) is its operation run on them: a mean and a variance for each channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from dropout_lint.prediction.ops.base import Call, Ledger, Parameter, function_name
from dropout_lint.prediction.ops.maximum import like_rectified
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.state import State, fresh
from dropout_lint.trace.traced import TensorInfo, function_of

COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "greater", "less"}
FOLLOWED = COMPARISONS | {
    "add", "sub", "radd", "rsub", "mul", "rmul", "floordiv", "floor_divide", "div", "mod",
    "remainder", "fmod", "neg", "abs", "pow", "square", "clamp", "clamp_min", "clamp_max",
    "minimum", "maximum", "and", "or", "xor", "invert", "lshift", "rshift", "bitwise_and",
    "bitwise_or", "bitwise_xor", "bitwise_not", "bitwise_left_shift", "bitwise_right_shift",
    "logical_and", "logical_or", "logical_not", "where", "getitem", "unsqueeze", "squeeze", "view",
    "reshape", "flatten", "expand", "transpose", "permute", "flip", "cumsum", "one_hot", "long",
    "int", "float", "to",
}  # fmt: skip
"""Operations that an index is followed back through; all of them refuse an index that is none of theirs."""
FAR = 16
"""How many operations an index is followed back through."""
MOST_INDEX = 1 << 16
"""What takes an index of this size takes any."""
DRAWN = 1 << 12
"""Number of indices drawn for a code, and the most runs that they are drawn in."""
MOST_RUNS = 1 << 8
TRIES = 8
"""Runs that tell whether indices of some size are taken."""
MOST_CODE = 1 << 20
"""Largest tensor that a code is made of."""
SEED = 20
Draws = dict[fx.Node, Tensor]


def sizes_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of what a node returns; () where it is no tensor."""
    value = node.meta.get("value")
    return tuple(int(size) for size in value.shape) if isinstance(value, TensorInfo) else ()


def any_indices(node: fx.Node, info: TensorInfo) -> Tensor:
    """Indices of which nothing is known: any that every use of them allows; truth values, half and half."""
    if info.dtype == torch.bool:
        return torch.rand(info.shape) < 0.5
    bounds = [bound for user in node.users if (bound := _bound(user, node)) is not None]
    return torch.randint(0, max(min(bounds, default=2), 1), info.shape).to(info.dtype)


def followed_indices(node: fx.Node, ledger: Ledger) -> Callable[[], Tensor] | None:
    """What draws the whole numbers at a node that are made of other ones; None where it is not seen how, or
    nothing says how large these are.
    """
    inner = _inner([node], ledger)
    bounds = [bound for user in node.users if (bound := _bound(user, node)) is not None]
    if not inner:
        return None
    limits = {node: min(bounds)} if bounds else {}
    shape = sizes_of(node)
    size = _largest(inner, ledger, limits, min(bounds) if bounds else shape[-1] if shape else 1, bool(bounds))
    return None if size is None else lambda: _run(inner, ledger, _rolled(inner, ledger, size, 1)[0])[node]


def code(call: Call) -> State | None:
    """The result of an operation on nothing but indices and constants; None where it is none, or where
    nothing says how large the indices are.
    """
    arguments, info, ledger = call.node.all_input_nodes, call.value, call.ledger
    before = _inner(arguments, ledger) if call.node.op in ("call_function", "call_method") else None
    if before is None or not isinstance(info, TensorInfo) or not call.shape or info.dtype.is_complex:
        return None
    inner = [*before, call.node]
    roots = _roots(inner, ledger)
    if not roots or max(math.prod(sizes_of(node)) for node in (call.node, *arguments)) > MOST_CODE:
        return None
    made = [node for node in arguments if node in before or node in roots]
    limits = {node: bound for node in made if (bound := _bound(call.node, node, ledger)) is not None}
    start = min(limits.values(), default=call.shape[-1])
    size = _largest(inner, ledger, limits, start, bool(limits) or call.name == "one_hot")
    results = _results(call, inner, size) if size is not None else []
    if not results or not all(bool(result.isfinite().all()) for result in results):
        return None
    values, rows = torch.stack(results).double(), len(ledger.dropouts)
    if len(call.shape) == 1:  # one number for each index
        x = _per_channel(values.flatten()[:, None].numpy(), rows, 0)
        return replace(x, counts=np.array([float(call.shape[0])]))
    return _per_channel(values.flatten(0, -2).numpy(), rows, len(call.shape) - 1)


def is_of_indices(node: fx.Node, ledger: Ledger) -> bool:
    """Whether a node is made of nothing but indices, of which it is not known what values they take."""
    inner = _inner([node], ledger)
    return inner is not None and bool(_roots(inner, ledger))


def _results(call: Call, inner: Sequence[fx.Node], size: int) -> list[Tensor]:
    """The call run on indices below `size`, as often as it takes; nothing where it does not take some."""
    runs = max(1, min(DRAWN // max(math.prod(call.shape[:-1] or call.shape), 1), MOST_RUNS))
    try:
        return [
            _run(inner, call.ledger, drawn)[call.node]
            for drawn in _rolled(inner, call.ledger, size, runs, torch.Generator().manual_seed(SEED))
        ]
    except Exception:  # any operation at all, on values that it may not be made for
        return []


def _per_channel(values: Any, rows: int, axis: int) -> State:
    """(M, C) values as a state, each channel its own group."""
    mean, var = values.mean(0), values.var(0)
    base = fresh(rows, axis=axis, channels=len(mean), mean=float(mean.mean()), var=float(var.mean()))
    wide = base.pick(np.zeros(len(mean), dtype=int), np.ones(len(mean)))
    x = replace(
        wide, t_mean=mean, t_var=var, mean=mean[None], var=var[None], sig=np.sqrt(var)[None], data=var
    )
    return x if values.min() < 0 else replace(x, before_relu=like_rectified(x))


# --- where indices come from ------------------------------------------------------------------------------


def _inner(nodes: Sequence[fx.Node], ledger: Ledger) -> list[fx.Node] | None:
    """The operations that make `nodes` of other indices, in order; None where data or noise are in them."""
    found: set[fx.Node] = set()
    if not all(_leads(node, ledger, found, FAR) for node in nodes):
        return None
    return sorted(found, key=ledger.order.__getitem__)


def _leads(node: fx.Node, ledger: Ledger, found: set[fx.Node], left: int) -> bool:
    """Whether a node is a constant, an index, or made of these by the operations that are `found`."""
    info, value = node.meta.get("value"), ledger.results.get(node)
    if isinstance(value, Parameter):
        return value.known
    if not isinstance(info, TensorInfo):
        return not isinstance(value, State)
    if node in ledger.noisy or info.dtype.is_complex:
        return False
    way = set(found)
    if node in found or (
        left > 0
        and node.op in ("call_function", "call_method")
        and function_name(node.target) in FOLLOWED
        and node.all_input_nodes
        and all(_leads(source, ledger, way, left - 1) for source in node.all_input_nodes)
    ):
        found |= way | {node}
        return True
    return _is_whole(node)


def _is_whole(node: fx.Node) -> bool:
    info = node.meta.get("value")
    return isinstance(info, TensorInfo) and not info.dtype.is_floating_point and info.dtype != torch.bool


def _roots(inner: Sequence[fx.Node], ledger: Ledger) -> list[fx.Node]:
    """The indices that `inner` is made of."""
    sources = dict.fromkeys(source for node in inner for source in node.all_input_nodes)
    return [
        source
        for source in sources
        if source not in inner and _is_whole(source) and not isinstance(ledger.results.get(source), Parameter)
    ]


def _run(inner: Sequence[fx.Node], ledger: Ledger, drawn: Draws) -> dict[fx.Node, Any]:
    """What the operations return for indices `drawn`."""
    known: dict[fx.Node, Any] = dict(drawn)

    def at(node: fx.Node) -> Any:
        if node not in known:
            value = ledger.results.get(node, node.meta.get("value"))
            known[node] = value.tensor.detach().clone() if isinstance(value, Parameter) else value
        return known[node]

    for node in inner:
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), at)
        known[node] = function_of(node)(*args, **kwargs)
        if tuple(known[node].shape) != sizes_of(node):
            raise ValueError(f"{node} has another shape")
    return known


def _rolled(
    inner: Sequence[fx.Node], ledger: Ledger, size: int, runs: int, random: torch.Generator | None = None
) -> list[Draws]:
    """Indices below `size` for each run, all values as often as can be, the last among them."""
    roots = _roots(inner, ledger)
    each: list[Draws] = [{} for _ in range(runs)]
    for root in roots:
        shape = sizes_of(root)
        total = runs * math.prod(shape)
        values = (
            torch.arange(total) % size
            if size <= total
            else torch.randint(0, size, (total,), generator=random)
        )
        values[-1:] = size - 1
        values = (
            values[torch.randperm(total, generator=random)].view(runs, *shape).to(root.meta["value"].dtype)
        )
        for one, drawn in zip(each, values, strict=True):
            one[root] = drawn.clone()
    return each


def _largest(
    inner: Sequence[fx.Node], ledger: Ledger, limits: Mapping[fx.Node, int], start: int, bounded: bool
) -> int | None:
    """How many different indices are taken, looked for from `start` on; `start` itself where any are, if that
    is `bounded`.
    """

    def taken(size: int) -> bool:
        try:
            for drawn in _rolled(inner, ledger, size, TRIES, random):
                known = _run(inner, ledger, drawn)
                for node, bound in limits.items():
                    if int(known[node].min()) < 0 or int(known[node].max()) >= bound:
                        return False
        except Exception:  # as in `_results`
            return False
        return True

    random = torch.Generator().manual_seed(SEED)
    if taken(MOST_INDEX):
        return start if bounded else None
    size = max(start, 1)
    while size > 1 and not taken(size):
        size //= 2
    if not taken(size):
        return None
    while size < MOST_INDEX and taken(2 * size):
        size *= 2
    step = size
    while step := step // 2:
        size += step * taken(size + step)
    return size


def _bound(user: fx.Node, index: fx.Node, ledger: Ledger | None = None) -> int | None:
    """How many values an index may take in `user`: those of the dimension that it stands for, else of any
    that it may; beside constants that it is compared with, as many as these are.
    """
    others = [node for node in user.all_input_nodes if node is not index and sizes_of(node)]
    if not others or not _is_whole(index):
        return None
    if function_name(user.target) in COMPARISONS and ledger is not None:
        return _told_apart(user, index, ledger.results.get(others[0]))
    shape = sizes_of(others[0])
    dim = _dimension(user, index)
    return min(shape) if dim is None else shape[dim] if -len(shape) <= dim < len(shape) else None


def _told_apart(user: fx.Node, index: fx.Node, constants: Any) -> int | None:
    """How many numbers from 0 on a comparison with constants tells apart."""
    if not isinstance(constants, Parameter) or not constants.known or constants.tensor.numel() < 2:
        return None
    above = ("gt", "greater", "le") if user.args[0] is index else ("lt", "less", "ge")
    return int(constants.tensor.max()) + 1 + (function_name(user.target) in above)


def _dimension(user: fx.Node, index: fx.Node) -> int | None:
    """The dimension of another tensor whose places an index names in `user`; None where that is not seen."""
    if function_name(user.target) in ("getitem", "take") and user.args[1] is index:
        return 0
    places = next((arg for arg in user.args if isinstance(arg, tuple) and index in arg), ())
    if places and all(isinstance(place, fx.Node) or place == slice(None) for place in places):
        return places.index(index)
    return next((value for value in user.args if type(value) is int), None)
