"""Small data of every shape, made of scikit-learn's digits: images, frames, volumes, rows, ids, graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..prediction.data_tuning import digits

Batches = Callable[[torch.Generator], Tensor]


@functools.cache
def _pictures() -> Tensor:
    return digits()[0]


@functools.cache
def _rows() -> Tensor:
    """(1797, 20): principal components, standardised; the largest loading of each is positive."""
    flat = _pictures().flatten(1) - _pictures().flatten(1).mean(0)
    v = torch.linalg.svd(flat.double(), full_matrices=False).Vh[:20].T
    z = flat @ (v * v.gather(0, v.abs().argmax(0, keepdim=True)).sign()).to(flat)
    return z / z.std(0)


def drawn(count: int, generator: torch.Generator) -> Tensor:
    """(count, 1, 8, 8): that many of the digits."""
    return _pictures()[torch.randperm(len(_pictures()), generator=generator)[:count]]


def images(count: int, size: int, channels: int = 3) -> Batches:
    """(count, channels, size, size): every channel shows the digit, each in a contrast of its own."""

    def batch(generator: torch.Generator) -> Tensor:
        x = F.interpolate(drawn(count, generator), (size, size), mode="bilinear", align_corners=False)
        return x * torch.linspace(1.0, 0.8, channels)[:, None, None]

    return batch


def frames(count: int, channels: int, length: int, last: bool = False) -> Batches:
    """(count, channels, length), or with channels last: a digit read column by column, standardised."""

    def batch(generator: torch.Generator) -> Tensor:
        x = F.interpolate(drawn(count, generator), (channels, length), mode="bilinear", align_corners=False)
        x = x[:, 0]
        x = (x - x.mean((0, 2), keepdim=True)) / x.std((0, 2), keepdim=True).clamp(min=1e-2)
        return x.transpose(1, 2).contiguous() if last else x

    return batch


def volumes(count: int, size: int, channels: int = 1, depth: int | None = None) -> Batches:
    """(count, channels, depth, size, size): one digit turns into another from the first slice to the last."""

    def batch(generator: torch.Generator) -> Tensor:
        pair = torch.stack([drawn(count, generator), drawn(count, generator)], 2)
        x = F.interpolate(pair, (depth or size, size, size), mode="trilinear", align_corners=False)
        return x.expand(-1, channels, -1, -1, -1).contiguous()

    return batch


def rows(count: int, features: int = 20) -> Batches:
    """(count, features), at most 20: standardised principal components."""
    return lambda generator: _rows()[torch.randperm(len(_rows()), generator=generator)[:count], :features]


def ids(count: int, sizes: tuple[int, ...]) -> Batches:
    """(count, fields) of int64: one category of each field, rare ones more rarely."""

    def batch(generator: torch.Generator) -> Tensor:
        u = torch.rand(count, len(sizes), generator=generator)
        return (u.square() * torch.tensor(sizes)).long()

    return batch


def graph(
    nodes: int, degree: int = 4, features: int = 20
) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """x (nodes, features) and edge_index (2, nodes * degree): random neighbours."""

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        target = torch.arange(nodes).repeat(degree)
        source = torch.randint(nodes, (nodes * degree,), generator=generator)
        return rows(nodes, features)(generator), torch.stack([source, target])

    return batch
