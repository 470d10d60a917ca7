"""A kernel's positions, and rows of channels sent through a layer's weights.

As they are, squared, or added up over positions before they are squared; `linear` has the derivation.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dropout_lint.prediction.quadrature import Array

MOST_TAPS = 121
"""In kernels of more taps than this, as a patch embedding has, positions are taken as separate."""


def by_dimension(value: Any, dims: int) -> tuple[int, ...]:
    """A kernel size, stride, … for each dimension: one number may stand for all."""
    if isinstance(value, (tuple, list)):
        return tuple(int(v) for v in value) if len(value) == dims else (int(value[0]),) * dims
    return (int(value),) * dims


@dataclass(frozen=True)
class Taps:
    """The positions of a kernel: how often each lies inside the input, alone and in pairs.

    Attributes:
        single: (T,) fraction of output positions at which tap t sees the input.
        pair: (T, T) fraction at which both do.
        window: size of the kernel in each dimension.
    """

    single: Array
    pair: Array
    kernel_size: tuple[int, ...] = ()

    @functools.cached_property
    def means(self) -> tuple[float, float, float]:
        """Mean over the taps of the fraction, of how it varies over the output, and of its square."""
        single, count = self.single, len(self.single)
        return single.sum() / count, (single - single**2).sum() / count, (single**2).sum() / count

    @property
    def neighbours(self) -> bool:
        """Whether what its positions have in common is to be added up."""
        return 1 < len(self.single) <= MOST_TAPS


@functools.lru_cache(maxsize=256)
def taps_of(  # noqa: PLR0917 - a convolution's own, by place for the cache
    sizes: tuple[int, ...],
    outputs: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    transposed: bool = False,
) -> Taps:
    """Fractions for a kernel of any number of dimensions; they factor into one per dimension."""
    inside = []
    for n, m, k, s, p, d in zip(sizes, outputs, kernel, stride, padding, dilation, strict=True):
        if transposed:  # input position i reaches output i·s - p + t·d
            reach = np.arange(n)[None] * s - p + np.arange(k)[:, None] * d
            hit = np.zeros((k, m))
            for t in range(k):
                ok = reach[t][(reach[t] >= 0) & (reach[t] < m)]
                hit[t, ok] = 1.0
        else:
            seen = np.arange(m)[None] * s - p + np.arange(k)[:, None] * d
            hit = ((seen >= 0) & (seen < n)).astype(float)
        inside.append(hit)
    single, pair = np.ones(1), np.ones((1, 1))
    for hit in inside:
        single, pair = np.kron(single, hit.mean(1)), np.kron(pair, hit @ hit.T / hit.shape[1])
    return Taps(single, pair, tuple(int(k) for k in kernel))


ONE_TAP = Taps(np.ones(1), np.ones((1, 1)))

SAMPLED = 32
"""Input channels, evenly spaced, that tell how a filter's taps add up; all of them would take as long as the
rest of a prediction.
"""


def squares(
    weight: torch.Tensor, fraction: Array, patterns: Mapping[str, Array]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two (c_out, c_in / groups) sums over the taps: Σ_t f_t w_t², and by name Σ_tt' P_tt' w_t w_t' for each
    (T, T) pattern P of what positions of a channel have in common.

    Of many input channels, the ratio of the two is taken from some, and is one for each output.
    """
    w = weight.detach().float()
    if w.shape[2] == 1:
        apart = w[:, :, 0].square() * float(fraction[0])
        return apart, {name: apart * float(p[0, 0] / fraction[0]) for name, p in patterns.items()}
    apart, together = w.square() @ _float(fraction), {}
    every = -(-w.shape[1] // SAMPLED)
    some = w[:, ::every].contiguous()
    for name, pattern in patterns.items():
        total = ((some @ _float(pattern)) * some).sum(2)
        if every > 1:
            ratio = total.sum(1) / apart[:, ::every].sum(1).clamp_min(1e-30)
            total = apart * ratio[:, None]
        together[name] = total
    return apart, together


def _float(values: Array) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def apply(matrix: torch.Tensor, rows: Array, groups: int) -> Array:
    """(R, c_in) through a (c_out, c_in / groups) matrix."""
    x = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    if groups == 1:
        result: Any = x @ matrix.T
    else:
        blocks = matrix.view(groups, -1, matrix.shape[1])
        result = torch.einsum("goi,rgi->rgo", blocks, x.view(len(x), groups, -1)).reshape(len(x), -1)
    return np.asarray(result.numpy(), dtype=np.float64)


def powers(matrix: torch.Tensor, rows: Mapping[str, Array], groups: int) -> dict[str, Array]:
    """`apply` to several blocks of rows at once."""
    return _blocks(apply(matrix, np.concatenate(list(rows.values())), groups), rows)


def _blocks(joined: Array, like: Mapping[str, Array]) -> dict[str, Array]:
    """The rows of `joined` under the names of the blocks that they came from."""
    blocks, start = {}, 0
    for name, block in like.items():
        blocks[name] = joined[start : start + len(block)]
        start += len(block)
    return blocks


def responses(
    weight: torch.Tensor, means: Mapping[str, Array], taps: Taps, groups: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Per block of rows the (R, c_out) mean, and its variance over positions where the padding cuts it."""
    first, border = _response(weight, np.concatenate(list(means.values())), taps, groups)
    return _blocks(first, means), _blocks(border, means)


def _response(weight: torch.Tensor, means: Array, taps: Taps, groups: int) -> tuple[Array, Array]:
    if weight.shape[2] == 1:
        matrix = weight.detach().float()[:, :, 0] * float(taps.single[0])
        first = apply(matrix, means, groups)
        if taps.pair[0, 0] - taps.single[0] ** 2 <= 1e-12:
            return first, np.zeros_like(first)
        return first, (first / taps.single[0]) ** 2 * (taps.pair[0, 0] - taps.single[0] ** 2)
    rows, count = len(means), weight.shape[2]
    w = weight.detach().float().view(groups, weight.shape[0] // groups, -1, count)
    x = torch.from_numpy(means.astype(np.float32)).view(rows, groups, -1).transpose(0, 1)[:, None]
    u = (x @ w).permute(2, 0, 1, 3).reshape(rows, weight.shape[0], count)
    per_tap: Array = np.asarray(u.numpy(), dtype=np.float64)
    cut = taps.pair - np.outer(taps.single, taps.single)
    border: Array = np.maximum(((per_tap @ cut) * per_tap).sum(-1), 0.0)
    return per_tap @ taps.single, border
