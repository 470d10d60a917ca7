"""Held out: two-dimensional convolutions on handwriting."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import data_heldout as data
from .kinds import noise
from .settings import Network


def relu_first(kind: str, p: float) -> nn.Module:
    """Convolution, ReLU, norm, max-pool, dropout; the last stage without a pool."""
    layers: list[nn.Module] = []
    for inner, outer, pool in ((1, 24, True), (24, 48, False), (48, 64, True), (64, 64, False)):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outer)]
        layers += [nn.MaxPool2d(2)] if pool else []
        layers.append(noise(kind, p))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def smooth(kind: str, p: float) -> nn.Module:
    """Convolution, norm, then GELU, SiLU or Hardswish, dropout before each convolution but the first."""
    layers: list[nn.Module] = []
    stages = (
        (1, 24, nn.GELU(), 1),
        (24, 48, nn.SiLU(), 2),
        (48, 48, nn.Hardswish(), 1),
        (48, 64, nn.GELU(), 2),
    )
    for inner, outer, act, stride in stages:
        layers += [] if inner == 1 else [noise(kind, p)]
        layers += [nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), act]
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), noise(kind, p), nn.Linear(256, 64)]
    return nn.Sequential(*layers, nn.BatchNorm1d(64), nn.Hardswish(), nn.Linear(64, 10))


class Excite(nn.Module):
    """Squeeze and excitation (Hu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class ExciteBlock(nn.Module):
    """Two convolutions with dropout between, squeeze and excitation, add, ReLU."""

    def __init__(self, inner: int, outer: int, stride: int, kind: str, p: float) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.drop, self.excite = noise(kind, p), Excite(outer)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inner != outer:
            self.skip = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.excite(self.bn2(self.conv2(self.drop(y))))
        return F.relu(y + self.skip(x))


def excited(kind: str, p: float) -> nn.Module:
    """Four residual blocks with squeeze and excitation."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        ExciteBlock(16, 16, 1, kind, p), ExciteBlock(16, 32, 2, kind, p), ExciteBlock(32, 32, 1, kind, p),
        ExciteBlock(32, 48, 2, kind, p), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


class Inverted(nn.Module):
    """Expand, depthwise, project (Sandler et al. 2018); noise on what is projected, or before it."""

    def __init__(self, inner: int, outer: int, stride: int, kind: str, p: float) -> None:
        super().__init__()
        wide = 3 * inner
        self.expand = nn.Sequential(nn.Conv2d(inner, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6())
        self.depth = nn.Sequential(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer))
        self.drop = noise(kind, p)
        self.last, self.adds = kind == "DropPath", inner == outer and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        y = self.drop(self.project(y)) if self.last else self.project(self.drop(y))
        return x + y if self.adds else y


def depthwise(kind: str, p: float) -> nn.Module:
    """Six inverted residual blocks."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        Inverted(16, 16, 1, kind, p), Inverted(16, 24, 2, kind, p), Inverted(24, 24, 1, kind, p),
        Inverted(24, 24, 1, kind, p), Inverted(24, 40, 2, kind, p), Inverted(40, 40, 1, kind, p),
        nn.Conv2d(40, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip


class DenseLayer(nn.Module):
    """Norm, ReLU, convolution, dropout; its output is joined to its input (Huang et al. 2017)."""

    def __init__(self, inner: int, growth: int, kind: str, p: float) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inner), nn.Conv2d(inner, growth, 3, 1, 1, bias=False)
        self.drop = noise(kind, p)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.drop(self.conv(F.relu(self.norm(x))))], 1)


def dense(kind: str, p: float) -> nn.Module:
    """Two dense blocks of five layers, a transition between."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, 1, 1, bias=False)]
    layers += [DenseLayer(16 + 12 * i, 12, kind, p) for i in range(5)]
    layers += [
        nn.BatchNorm2d(76),
        nn.ReLU(),
        nn.Conv2d(76, 38, 1, bias=False),
        noise(kind, p),
        nn.AvgPool2d(2),
    ]
    layers += [DenseLayer(38 + 12 * i, 12, kind, p) for i in range(5)]
    return nn.Sequential(
        *layers, nn.BatchNorm2d(98), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(98, 10)
    )


class UNet(nn.Module):
    """Two levels down and up with joins (Ronneberger et al. 2015), a dropout in each pair of convolutions."""

    def __init__(self, kind: str, p: float) -> None:
        super().__init__()

        def pair(inner: int, outer: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(inner, outer, 3, 1, 1), nn.BatchNorm2d(outer), nn.ReLU(), noise(kind, p),
                nn.Conv2d(outer, outer, 3, 1, 1), nn.BatchNorm2d(outer), nn.ReLU(),
            )  # fmt: skip

        self.one, self.two, self.deep = pair(1, 12), pair(12, 24), pair(24, 32)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 24, 2, 2), nn.ConvTranspose2d(24, 12, 2, 2)
        self.back2, self.back1 = pair(48, 24), pair(24, 12)
        self.out = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(F.max_pool2d(one, 2))
        deep = self.deep(F.max_pool2d(two, 2))
        two = self.back2(torch.cat([two, self.up2(deep)], 1))
        return self.out(self.back1(torch.cat([one, self.up1(two)], 1)))


class Whole(nn.Module):
    """A post-activation block whose branch is dropped whole before the add."""

    def __init__(self, width: int, kind: str, p: float) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.drop = noise(kind, p)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.drop(self.bn2(self.conv2(F.gelu(self.bn1(self.conv1(x)))))))


def gelu_residual(kind: str, p: float) -> nn.Module:
    """Residual blocks with GELU, noise at the branch's end, norms in front of the strides."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.GELU(), Whole(24, kind, p), Whole(24, kind, p),
        nn.BatchNorm2d(24), nn.Conv2d(24, 48, 2, 2), Whole(48, kind, p), Whole(48, kind, p),
        nn.BatchNorm2d(48), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


D, D2, PATH = "Dropout", "Dropout2d", "DropPath"

NETWORKS: tuple[Network, ...] = (
    Network(
        "relu_first",
        "ReLU before the norm",
        relu_first,
        data.mnist_14,
        "momentum",
        0.05,
        8,
        ((D, 0.1), (D, 0.3), (D, 0.5), (D2, 0.2)),
    ),
    Network(
        "smooth",
        "GELU, SiLU, Hardswish",
        smooth,
        data.mnist_14,
        "adamw",
        2e-3,
        10,
        ((D, 0.1), (D, 0.2), (D, 0.5), ("Gaussian", 0.3)),
        decay=0.05,
    ),
    Network(
        "excited",
        "squeeze-excite",
        excited,
        data.mnist_16,
        "momentum",
        0.1,
        6,
        ((D, 0.2), (D, 0.5), (D2, 0.3)),
        decay=5e-4,
    ),
    Network(
        "depthwise",
        "depthwise",
        depthwise,
        data.mnist_14,
        "adamw",
        3e-3,
        5,
        ((D, 0.1), (D, 0.3), (PATH, 0.2)),
        cosine=False,
    ),
    Network(
        "dense",
        "dense blocks",
        dense,
        data.mnist_14,
        "momentum",
        0.1,
        4,
        ((D, 0.2), (D, 0.5), (D2, 0.1)),
        decay=1e-4,
    ),
    Network(
        "unet",
        "U-Net",
        UNet,
        data.ink,
        "adamw",
        2e-3,
        4,
        ((D, 0.2), (D, 0.5), (D2, 0.3)),
        batch=32,
        decay=0.01,
    ),
    Network(
        "gelu_residual",
        "GELU, SiLU, Hardswish",
        gelu_residual,
        data.mnist_20,
        "adamw",
        2e-3,
        6,
        ((PATH, 0.1), (PATH, 0.3), (D, 0.2), ("Uout", 0.5)),
        decay=0.05,
    ),
    Network(
        "once",
        "ReLU before the norm",
        relu_first,
        data.mnist_20,
        "adamw",
        1e-3,
        1,
        ((D, 0.3), (D2, 0.5)),
        batch=32,
        cosine=False,
    ),
)
