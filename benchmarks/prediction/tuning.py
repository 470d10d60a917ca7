"""Networks that constants may be chosen on: other families, data and optimisers than `heldout`'s."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import data_tuning as data
from .kinds import noise
from .settings import Network


class Residual(nn.Module):
    """x + branch(x), then whatever follows."""

    def __init__(
        self, branch: nn.Module, after: nn.Module | None = None, skip: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.branch = branch
        self.skip = nn.Identity() if skip is None else skip
        self.after = nn.Identity() if after is None else after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.skip(x) + self.branch(x))


def conv(inner: int, outer: int, act: nn.Module | None, stride: int = 1, **options: int) -> list[nn.Module]:
    """Convolution (`size` 3, `groups` 1), norm and activation."""
    size = options.pop("size", 3)
    layers: list[nn.Module] = [
        nn.Conv2d(inner, outer, size, stride, size // 2, bias=False, **options),
        nn.BatchNorm2d(outer),
    ]
    return layers if act is None else [*layers, act]


def head(width: int, classes: int) -> list[nn.Module]:
    """Global average pooling and the classifier."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def plain(kind: str, p: float) -> nn.Module:
    """Six convolutions with leaky rectifiers, dropout before every second one, strides in place of pools."""
    layers: list[nn.Module] = conv(3, 24, nn.LeakyReLU(0.1))
    for inner, outer, stride in ((24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1)):
        if inner == outer:
            layers.append(noise(kind, p))
        layers += conv(inner, outer, nn.LeakyReLU(0.1), stride)
    return nn.Sequential(*layers, *head(96, 8))


def pooled_first(kind: str, p: float) -> nn.Module:
    """Convolution, rectifier, average pool, norm, dropout: the norm last in each of four stages."""
    layers: list[nn.Module] = []
    for inner, outer, pool in ((1, 24, False), (24, 48, True), (48, 48, False), (48, 64, True)):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.LeakyReLU(0.01)]
        layers += [nn.AvgPool2d(2)] if pool else []
        layers += [nn.BatchNorm2d(outer), noise(kind, p)]
    return nn.Sequential(*layers, *head(64, 10))


def soft_first(kind: str, p: float) -> nn.Module:
    """Convolution, softplus or ELU, norm, max-pool, dropout."""
    layers: list[nn.Module] = []
    for inner, outer, act in ((3, 32, nn.Softplus()), (32, 64, nn.ELU()), (64, 96, nn.Softplus())):
        layers += [
            nn.Conv2d(inner, outer, 3, padding=1),
            act,
            nn.BatchNorm2d(outer),
            nn.MaxPool2d(2),
            noise(kind, p),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 4, 8))


def grouped_residual(kind: str, p: float) -> nn.Module:
    """Bottlenecks of grouped convolutions with PReLU and dropout before the last convolution."""
    layers: list[nn.Module] = conv(1, 32, nn.PReLU())
    width = 32
    for outer, stride in ((32, 1), (64, 2), (64, 1), (96, 2), (96, 1)):
        branch = [
            *conv(width, outer // 2, nn.PReLU(), size=1),
            *conv(outer // 2, outer // 2, nn.PReLU(), stride, groups=4),
            noise(kind, p),
            *conv(outer // 2, outer, None, size=1),
        ]
        skip = (
            nn.Sequential(*conv(width, outer, None, stride, size=1)) if stride > 1 or outer != width else None
        )
        layers.append(Residual(nn.Sequential(*branch), nn.PReLU(), skip))
        width = outer
    return nn.Sequential(*layers, *head(width, 10))


def residual_table(kind: str, p: float) -> nn.Module:
    """A residual MLP of width 48: norm, linear, ReLU, dropout, linear in each of four branches."""
    blocks = [
        Residual(
            nn.Sequential(
                nn.BatchNorm1d(48),
                nn.Linear(48, 40),
                nn.ReLU(),
                noise(kind, p),
                nn.Linear(40, 48),
                noise(kind, p),
            )
        )
        for _ in range(4)
    ]
    return nn.Sequential(nn.Linear(24, 48), *blocks, nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 6))


def regression(kind: str, p: float) -> nn.Module:
    """A narrow MLP that regresses: linear, norm, tanh or ReLU, dropout."""
    return nn.Sequential(
        nn.Linear(10, 40), nn.BatchNorm1d(40), nn.Tanh(), noise(kind, p),
        nn.Linear(40, 32), nn.BatchNorm1d(32), nn.ReLU(), noise(kind, p),
        nn.Linear(32, 24), nn.BatchNorm1d(24), nn.ReLU(), noise(kind, p),
        nn.Linear(24, 1),
    )  # fmt: skip


def restorer(kind: str, p: float) -> nn.Module:
    """A denoising autoencoder with transposed convolutions."""

    def up(inner: int, outer: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]

    return nn.Sequential(
        *conv(1, 24, nn.ReLU(), 2), noise(kind, p), *conv(24, 48, nn.ReLU(), 2), noise(kind, p),
        *conv(48, 48, nn.ReLU()), noise(kind, p), *up(48, 32), noise(kind, p), *up(32, 24),
        nn.Conv2d(24, 1, 3, padding=1),
    )  # fmt: skip


class Inception(nn.Module):
    """Three branches side by side, joined along the channels, dropout behind the join."""

    def __init__(self, inner: int, width: int, kind: str, p: float) -> None:
        super().__init__()
        self.one = nn.Sequential(*conv(inner, width, nn.ReLU(), size=1))
        self.three = nn.Sequential(
            *conv(inner, width // 2, nn.ReLU(), size=1), *conv(width // 2, width, nn.ReLU())
        )
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), *conv(inner, width, nn.ReLU(), size=1))
        self.drop = noise(kind, p)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(torch.cat([self.one(x), self.three(x), self.pool(x)], 1))


def branches(kind: str, p: float) -> nn.Module:
    """Four inception blocks, a pool between each pair."""
    return nn.Sequential(
        *conv(3, 24, nn.ReLU()), Inception(24, 16, kind, p), Inception(48, 24, kind, p), nn.MaxPool2d(2),
        Inception(72, 24, kind, p), Inception(72, 32, kind, p), *head(96, 8),
    )  # fmt: skip


class Cloud(nn.Module):
    """Each point by itself, then the largest value over the points (Qi et al. 2017)."""

    def __init__(self, kind: str, p: float) -> None:
        super().__init__()

        def point(inner: int, outer: int) -> list[nn.Module]:
            return [nn.Conv1d(inner, outer, 1), nn.BatchNorm1d(outer), nn.ReLU()]

        self.points = nn.Sequential(
            *point(3, 32), noise(kind, p), *point(32, 64), noise(kind, p), *point(64, 128)
        )
        self.head = nn.Sequential(
            nn.Linear(128, 64), noise(kind, p), nn.BatchNorm1d(64), nn.ReLU(),
            noise(kind, p), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.points(x).amax(2))


class Glu(nn.Module):
    """Half of a convolution's channels gate the other half (Dauphin et al. 2017)."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, 2 * outer, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, 1)
        return value * torch.sigmoid(gate)


def gated(kind: str, p: float) -> nn.Module:
    """Gated convolutions, each followed by norm and dropout."""
    layers: list[nn.Module] = []
    for inner, outer, pool in ((1, 24, False), (24, 32, True), (32, 48, False), (48, 64, True)):
        layers += [Glu(inner, outer), nn.BatchNorm2d(outer), noise(kind, p)]
        layers += [nn.AvgPool2d(2)] if pool else []
    return nn.Sequential(*layers, *head(64, 10))


class Symbols(nn.Module):
    """The mean of embeddings, dropout on them, and two hidden layers with norms."""

    def __init__(self, kind: str, p: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, 24)
        self.drop = noise(kind, p)
        self.mix = nn.Sequential(nn.Linear(24 * 24, 64), nn.BatchNorm1d(64), nn.ReLU(), noise(kind, p))
        self.out = nn.Sequential(
            nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), noise(kind, p), nn.Linear(48, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mix(self.drop(self.embed(x)).flatten(1)))


def films(kind: str, p: float) -> nn.Module:
    """Residual blocks of three-dimensional convolutions."""

    def conv3(inner: int, outer: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv3d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm3d(outer)]

    def block(width: int) -> nn.Module:
        branch = [*conv3(width, width), nn.ReLU(), noise(kind, p), *conv3(width, width)]
        return Residual(nn.Sequential(*branch), nn.ReLU())

    return nn.Sequential(
        *conv3(1, 12), nn.ReLU(), block(12), *conv3(12, 24, 2), nn.ReLU(), block(24), noise(kind, p),
        *conv3(24, 32, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 6),
    )  # fmt: skip


def highway(kind: str, p: float) -> nn.Module:
    """Pre-activation blocks of two convolutions with ELU, dropout on the block's output every second time."""

    def block(width: int, last: bool) -> list[nn.Module]:
        branch = nn.Sequential(
            nn.BatchNorm2d(width), nn.ELU(), nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width), nn.ELU(), noise(kind, p), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip
        return [Residual(branch), *([noise(kind, p)] if last else [])]

    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), *block(24, False), *block(24, True), nn.Conv2d(24, 48, 3, 2, 1),
        *block(48, False), *block(48, True), nn.BatchNorm2d(48), nn.ELU(), *head(48, 8),
    )  # fmt: skip


D, D2 = "Dropout", "Dropout2d"

NETWORKS: tuple[Network, ...] = (
    Network(
        "plain",
        "strided, leaky ReLU",
        plain,
        data.textures,
        "adam",
        3e-3,
        6,
        ((D, 0.1), (D, 0.3), (D, 0.5), (D2, 0.2)),
    ),
    Network(
        "pooled_first",
        "pool before norm",
        pooled_first,
        data.digit_images_16,
        "rmsprop",
        1e-3,
        6,
        ((D, 0.2), (D, 0.5), (D2, 0.3), ("Uout", 0.5)),
    ),
    Network(
        "soft_first",
        "softplus before norm",
        soft_first,
        data.textures,
        "adam",
        2e-3,
        8,
        ((D, 0.1), (D, 0.3), (D2, 0.5)),
    ),
    Network(
        "grouped",
        "grouped bottlenecks, PReLU",
        grouped_residual,
        data.digit_images,
        "sgd",
        0.1,
        12,
        ((D, 0.2), (D, 0.5), (D2, 0.3), ("DropPath", 0.2)),
    ),
    Network(
        "residual_table",
        "residual MLP",
        residual_table,
        data.table,
        "adam",
        3e-3,
        15,
        ((D, 0.1), (D, 0.3), (D, 0.5), ("Gaussian", 0.25)),
    ),
    Network(
        "regression",
        "narrow MLP",
        regression,
        data.friedman,
        "rmsprop",
        2e-3,
        30,
        ((D, 0.1), (D, 0.3), (D, 0.5), ("Uout", 0.3)),
        loss="values",
    ),
    Network(
        "restorer",
        "autoencoder",
        restorer,
        data.digit_restoration,
        "adam",
        3e-3,
        6,
        ((D, 0.2), (D2, 0.3), (D, 0.5)),
        loss="values",
    ),
    Network("branches", "inception", branches, data.textures, "sgd", 0.1, 6, ((D, 0.2), (D, 0.4), (D2, 0.3))),
    Network(
        "cloud",
        "point cloud",
        Cloud,
        data.points,
        "adam",
        2e-3,
        12,
        ((D, 0.1), (D, 0.3), (D, 0.5), ("Gaussian", 0.5)),
    ),
    Network(
        "gated",
        "gated convolutions",
        gated,
        data.digit_images,
        "rmsprop",
        1e-3,
        10,
        ((D, 0.1), (D, 0.3), (D2, 0.5)),
    ),
    Network(
        "symbols",
        "embeddings",
        Symbols,
        data.chains,
        "adam",
        3e-3,
        8,
        ((D, 0.2), (D, 0.5), ("Gaussian", 0.3)),
    ),
    Network("films", "three dimensions", films, data.motion, "adam", 3e-3, 5, ((D, 0.2), (D, 0.5))),
    Network(
        "elu_blocks",
        "pre-activation, ELU",
        highway,
        data.textures,
        "sgd",
        0.05,
        5,
        ((D, 0.1), (D, 0.3), (D2, 0.2)),
    ),
)
