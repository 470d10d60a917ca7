"""Held out: tables and graphs."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import data_heldout as data
from .kinds import noise
from .settings import Network


def mlp(sizes: tuple[int, ...], act: type[nn.Module], kind: str, p: float) -> nn.Module:
    """Linear, norm, activation, dropout for each size but the first and the last."""
    layers: list[nn.Module] = []
    for inner, width in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(inner, width), nn.BatchNorm1d(width), act(), noise(kind, p)]
    return nn.Sequential(*layers, nn.Linear(*sizes[-2:]))


def narrow(kind: str, p: float) -> nn.Module:
    """Three layers of 64."""
    return mlp((30, 64, 64, 64, 2), nn.ReLU, kind, p)


def wide(kind: str, p: float) -> nn.Module:
    """256, 1024 and 256 units, dropout on the inputs too."""
    return nn.Sequential(noise(kind, p), *mlp((24, 256, 1024, 256, 2), nn.ReLU, kind, p))


def handwriting(kind: str, p: float) -> nn.Module:
    """512, 256 and 128 units on the digits' pixels."""
    return mlp((784, 512, 256, 128, 10), nn.ReLU, kind, p)


def regression(kind: str, p: float) -> nn.Module:
    """128 and 64 units with SiLU that tell a value."""
    return mlp((10, 128, 64, 1), nn.SiLU, kind, p)


def selu(kind: str, p: float) -> nn.Module:
    """Linear, SELU, dropout, norm: three layers of 96."""
    layers: list[nn.Module] = []
    for inner in (13, 96, 96):
        layers += [nn.Linear(inner, 96), nn.SELU(), noise(kind, p), nn.BatchNorm1d(96)]
    return nn.Sequential(*layers, nn.Linear(96, 3))


class Messages(nn.Module):
    """Each node adds up what its neighbours send (Xu et al. 2019), then two linear layers with a norm."""

    def __init__(self, inner: int, outer: int, kind: str, p: float) -> None:
        super().__init__()
        self.drop = noise(kind, p)
        self.one, self.norm, self.two = (
            nn.Linear(inner, outer),
            nn.BatchNorm1d(outer),
            nn.Linear(outer, outer),
        )
        self.after = nn.BatchNorm1d(outer)

    def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        x = self.drop(x)
        total = torch.zeros_like(x).index_add_(0, target, x[source])
        y = self.two(F.relu(self.norm(self.one(x + total / 16))))
        return F.relu(self.after(y))


class Graph(nn.Module):
    """Three rounds of messages."""

    def __init__(self, kind: str, p: float) -> None:
        super().__init__()
        self.one, self.two, self.three = (
            Messages(32, 48, kind, p),
            Messages(48, 48, kind, p),
            Messages(48, 48, kind, p),
        )
        self.out = nn.Linear(48, 10)

    def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        x = self.two(self.one(x, source, target), source, target)
        return self.out(self.three(x, source, target))


D = "Dropout"

NETWORKS: tuple[Network, ...] = (
    Network(
        "narrow",
        "tabular MLP",
        narrow,
        data.breast_cancer,
        "momentum",
        0.05,
        30,
        ((D, 0.1), (D, 0.3), (D, 0.5), ("Gaussian", 0.5)),
        batch=32,
    ),
    Network(
        "wide",
        "tabular MLP",
        wide,
        data.power,
        "adamw",
        1e-3,
        12,
        ((D, 0.1), (D, 0.2), (D, 0.5), ("Uout", 0.5)),
        cosine=False,
    ),
    Network(
        "pixels",
        "tabular MLP",
        handwriting,
        data.mnist_flat,
        "adamw",
        1e-3,
        5,
        ((D, 0.2), (D, 0.5)),
        decay=0.01,
    ),
    Network(
        "value",
        "tabular MLP",
        regression,
        data.diabetes,
        "momentum",
        0.01,
        50,
        ((D, 0.1), (D, 0.3)),
        batch=32,
        loss="values",
    ),
    Network(
        "selu",
        "SELU and alpha dropout",
        selu,
        data.wine,
        "momentum",
        0.02,
        50,
        (("Alpha", 0.1), ("Alpha", 0.3), (D, 0.2)),
        batch=32,
    ),
    Network(
        "graph", "graph, index_add", Graph, data.graph, "adamw", 5e-3, 50, ((D, 0.1), (D, 0.3), (D, 0.5))
    ),
)
