"""Samples of one tensor that have its state's moments: in test mode, and in train mode under two draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from dropout_lint.prediction.ops.base import Parameter
from dropout_lint.prediction.ops.indices import any_indices
from dropout_lint.prediction.parts import quotient
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State
from dropout_lint.trace.traced import TensorInfo


@dataclass(frozen=True)
class Sample:
    """One tensor drawn: in test mode, and in train mode under two draws of everything random.

    Attributes:
        test: as test mode shows it.
        train: row of the source whose noise is the first draw's, the others' being the second's → the tensor.
            `ALL` has the first draw's noise throughout, `NONE` nowhere.
    """

    test: Tensor
    train: Mapping[int, Tensor]


ALL, NONE = -1, -2


class Unrunnable(Exception):
    """An operation cannot be run on samples."""


def leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, Mapping):
        yield from leaves(tuple(value.values()))
    elif isinstance(value, slice):
        yield from leaves((value.start, value.stop, value.step))
    else:
        yield value


def draw(
    node: fx.Node,
    value: Any,
    spread: Tensor | None,
    apart: Sequence[int],
    indices: Callable[[], Tensor] | None = None,
) -> Any:
    """`value` at a node as a `Sample`, or as it is where it is no tensor; `indices` draws whole numbers."""
    info = node.meta.get("value")
    if isinstance(value, State) and isinstance(info, TensorInfo):
        if not info.dtype.is_floating_point and (_is_index(info, value) or not np.any(value.t_var)):
            tensor = any_indices(node, info) if indices is None else indices()
            return Sample(tensor, _Always(tensor))
        if info.dtype == torch.bool:
            drawn = _of_state(value, info, spread, apart)
            return Sample(drawn.test > 0.5, {key: one > 0.5 for key, one in drawn.train.items()})
        return _of_state(value, info, spread, apart)
    if isinstance(value, Parameter):
        tensor = value.tensor if value.known or value.start is None else value.start
        tensor = untrained(tensor) if tensor.is_meta else tensor.detach()
        return Sample(tensor, dict.fromkeys((ALL, NONE, *apart), tensor))
    if isinstance(value, (State, TensorInfo)) or (value is None and isinstance(info, TensorInfo)):
        raise Unrunnable("nothing is known of an argument")
    if isinstance(value, (tuple, list)) and any(isinstance(v, (State, TensorInfo)) for v in leaves(value)):
        raise Unrunnable("several tensors in one argument")
    return value


def _is_index(info: TensorInfo, value: State) -> bool:
    """Whether a tensor holds whole numbers that no noise reaches: places, whatever they were joined from."""
    return info.dtype != torch.bool and not np.any(value.noise)


class _Always(dict[int, Tensor]):
    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor

    def __missing__(self, key: int) -> Tensor:
        return self.tensor


def untrained(tensor: Tensor) -> Tensor:
    """Weights as torch's layers start with; of a vector, a scale or a limit or a bias, nothing is known."""
    if tensor.dim() < 2:
        raise Unrunnable("a vector without values")
    kind = tensor.dtype if tensor.is_complex() else None
    return torch.randn(tensor.shape, dtype=kind) / math.sqrt(3 * math.prod(tensor.shape[1:]))


def _of_state(s: State, info: TensorInfo, spread: Tensor | None, apart: Sequence[int]) -> Sample:
    shape = tuple(int(size) for size in info.shape)
    if spread is None or s.channels != shape[s.axis]:
        s = s.merged()
    axis = min(s.axis, len(shape) - 1)
    index = np.repeat(np.arange(s.groups), s.counts.astype(int)) if s.groups > 1 else np.zeros(1, dtype=int)
    wide = [1] * len(shape)
    if wide:
        wide[axis] = len(index)

    def channels(values: Array) -> Tensor:
        """(K, G) or (G,) values, by component and channel, in the tensor's dimensions."""
        rows = torch.from_numpy(np.atleast_2d(values)[:, index]).float()
        return rows.view(len(rows), *wide)

    zeta = torch.zeros(())
    if spread is not None:
        zeta = spread.view([-1 if d == axis else 1 for d in range(len(shape))])
    under = s.before_relu if s.components == 1 or s.levels else None
    t_mean, t_dev, t_var, rho = s.t_mean, s.t_dev, s.t_var, s.rho
    mean, dev, sig2, var = s.mean, s.dev, s.sig**2, s.var
    if under is not None:  # a mask times ReLU of normals
        levels = np.array(s.levels or (1.0,))[:, None]
        mean, dev, sig2, var = (
            np.atleast_2d(v) * levels**n
            for v, n in ((under.mean, 1), (under.dev, 1), (under.sig2, 2), (under.var, 2))
        )
        t_mean, t_dev, t_var, rho = under.t_mean, under.t_dev, under.t_var, under.rho
    xi = _smooth(shape, axis, rho)
    centre, tilt, signal = channels(mean), channels(dev), channels(np.sqrt(sig2))
    loose = channels(np.sqrt(np.maximum(var - sig2, 0.0)))
    own = set(s.pending.tolist())
    others = np.array([0.0 if row in own else 1.0 for row in range(len(s.noise))])[:, None] * s.noise
    weights = others if others.any() else s.noise
    total = weights.sum(0)
    active = [int(row) for row in np.flatnonzero(weights.any(1))]
    if not apart and active:  # together: none of them is told apart
        active, weights = active[:1], np.repeat(total[None], len(weights), axis=0)
    parts = {row: channels(np.sqrt(quotient(weights[row], total)))[0] for row in active}
    fields = {
        row: [_field(shape, axis, float(np.clip(s.shared_by_positions[row].mean(), 0.0, 1.0))) for _ in "ab"]
        for row in active
    }
    masks = [_component(s, shape, axis) for _ in "ab"]

    def train(key: int) -> Tensor:
        mask = masks[0 if key == ALL or key in own else 1]
        drawn = (parts[row] * fields[row][0 if key in (ALL, row) else 1] for row in active)
        noise = sum(drawn, torch.zeros(()))

        def at(values: Tensor) -> Tensor:
            if len(values) == 1:
                return values[0]
            return torch.gather(values.expand(len(values), *shape), 0, mask.expand(shape)[None])[0]

        whole = at(centre) + at(tilt) * zeta + at(signal) * xi + at(loose) * noise
        return whole if under is None else whole.clamp(min=0)

    test = channels(t_mean)[0] + channels(t_dev)[0] * zeta + channels(np.sqrt(t_var))[0] * xi
    if under is not None:
        test = test.clamp(min=0)
    kind = info.dtype if info.dtype in (torch.float32, torch.float64) else torch.float32
    keys = (ALL, NONE, *apart)
    return Sample(test.expand(shape).to(kind), {key: train(key).expand(shape).to(kind) for key in keys})


def _field(shape: tuple[int, ...], axis: int, alike: float) -> Tensor:
    """Standard normals that correlate by `alike` among the positions of a channel."""
    loose = torch.randn(shape)
    if alike <= 0 or len(shape) < 3:
        return loose
    common = torch.randn([size if d in (0, axis) else 1 for d, size in enumerate(shape)])
    return math.sqrt(alike) * common + math.sqrt(1 - alike) * loose


def _smooth(shape: tuple[int, ...], axis: int, rho: Array) -> Tensor:
    """Standard normals that correlate by rho[k] at a distance of 2^k positions: a sum of fields that are
    constant on blocks, of 3·2^k positions as much as is lost from a distance of 2^k to twice it.
    """
    places = [d for d in range(len(shape)) if d not in (0, axis)]
    longest = max((shape[d] for d in places), default=1)
    known = np.clip(rho, 0.0, 1.0)[: max(math.ceil(math.log2(longest)), 1)]
    if longest == 1 or not known.any():
        return torch.randn(shape)
    steps = np.maximum(-np.diff(known, prepend=1.0, append=0.0), 0.0)
    steps /= steps.sum()
    blocks = [1, *(3 << k for k in range(len(known) - 1)), longest]
    field = torch.zeros(shape)
    for block, part in zip(blocks, steps, strict=True):
        if part > 0:
            field += math.sqrt(part) * _on_blocks(shape, places, block)
    return field


def _on_blocks(shape: tuple[int, ...], places: Sequence[int], block: int) -> Tensor:
    """Standard normals, one for each block of `block` positions along each of the dimensions `places`."""
    beside = block > 1  # since the first block begins anywhere
    counts = [-(-size // block) + beside if d in places else size for d, size in enumerate(shape)]
    result = torch.randn(counts)
    for d in places if block > 1 else ():
        start = int(torch.randint(block, ())) if block < shape[d] else 0
        result = result.index_select(d, (torch.arange(shape[d]) + start) // block)
    return result


def _component(s: State, shape: tuple[int, ...], axis: int) -> Tensor:
    """Which component each value is drawn from, by what the pending mask is shared over."""
    if s.components == 1:
        return torch.zeros([1] * len(shape), dtype=torch.long)
    over = {"sample": (0,), "channel": (0, axis)}.get(s.mask, tuple(range(len(shape))))
    sizes = [size if d in over else 1 for d, size in enumerate(shape)]
    flat = torch.multinomial(torch.from_numpy(s.prob).float(), math.prod(sizes), replacement=True)
    return flat.view(sizes)
