"""What the tuning networks learn: scikit-learn's digits, and data made by formula."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .settings import Data


def generator(seed: int) -> torch.Generator:
    """A generator of its own, so that no data set changes another."""
    return torch.Generator().manual_seed(seed)


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """(1797, 1, 8, 8) standardised digits of scikit-learn in a fixed order, and their labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None]
    order = torch.randperm(len(images), generator=generator(0))
    images = (images - images.mean()) / images.std()
    return images[order], torch.tensor(bunch.target)[order]


def digit_images() -> Data:
    """Digits as (N, 1, 8, 8)."""
    images, labels = digits()
    return Data((images,), labels)


def digit_images_16() -> Data:
    """Digits as (N, 1, 16, 16), interpolated."""
    images, labels = digits()
    return Data((F.interpolate(images, (16, 16), mode="bilinear", align_corners=False),), labels)


def digit_restoration() -> Data:
    """Noisy digits as (N, 1, 16, 16), and what they were."""
    clean = digit_images_16().inputs[0]
    return Data((clean + torch.randn(clean.shape, generator=generator(1)),), clean)


def textures() -> Data:
    """2,000 gratings (N, 3, 16, 16) in eight directions, of random phase, wavelength, colour and noise."""
    g = generator(2)
    count, size = 2000, 16
    labels = torch.randint(8, (count,), generator=g)
    angle = labels * math.pi / 8 + 0.1 * torch.randn(count, generator=g)
    wave = 3 + 4 * torch.rand(count, generator=g)
    phase = 2 * math.pi * torch.rand(count, generator=g)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    grey = torch.sin(2 * math.pi * along / wave[:, None, None] + phase[:, None, None])
    colour = torch.rand(count, 3, 1, 1, generator=g)
    images = colour * grey[:, None] + 0.5 * torch.randn(count, 3, size, size, generator=g)
    return Data((images / images.std(),), labels)


def table() -> Data:
    """3,000 rows of 24 correlated columns in six classes, each of three clusters."""
    g = generator(3)
    count, columns = 3000, 24
    cluster = torch.randint(18, (count,), generator=g)
    centres = 1.2 * torch.randn(18, 10, generator=g)
    inner = centres[cluster] + torch.randn(count, 10, generator=g)
    rows = inner @ torch.randn(10, columns, generator=g) / 3 + 0.5 * torch.randn(count, columns, generator=g)
    return Data(((rows - rows.mean(0)) / rows.std(0),), cluster % 6)


def friedman() -> Data:
    """2,500 rows of ten columns, and Friedman's (1991) first function of five of them, standardised."""
    g = generator(4)
    x = torch.rand(2500, 10, generator=g)
    y = 10 * torch.sin(math.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = y + torch.randn(2500, generator=g)
    return Data(((x - 0.5) * math.sqrt(12),), ((y - y.mean()) / y.std())[:, None])


def points() -> Data:
    """1,200 clouds (N, 3, 64) on sphere, cube, torus, cone or helix, turned about the upright axis."""
    g = generator(5)
    count, each = 1200, 64
    labels = torch.randint(5, (count,), generator=g)
    u, v = 2 * math.pi * torch.rand(2, count, each, generator=g)
    r = torch.rand(count, each, generator=g)
    sphere = torch.stack([u.cos() * v.sin(), u.sin() * v.sin(), v.cos()], 1)
    cube = sphere / sphere.abs().amax(1, keepdim=True)
    ring = 0.7 + 0.3 * v.cos()
    torus = torch.stack([ring * u.cos(), ring * u.sin(), 0.3 * v.sin()], 1)
    cone = torch.stack([r * u.cos(), r * u.sin(), 1 - 2 * r], 1)
    helix = torch.stack([u.cos(), u.sin(), u / math.pi - 1], 1)
    clouds = torch.stack([sphere, cube, torus, cone, helix])[labels, torch.arange(count)]
    turn = 2 * math.pi * torch.rand(count, generator=g)
    x = clouds[:, 0] * turn.cos()[:, None] - clouds[:, 1] * turn.sin()[:, None]
    y = clouds[:, 0] * turn.sin()[:, None] + clouds[:, 1] * turn.cos()[:, None]
    return Data(
        (torch.stack([x, y, clouds[:, 2]], 1) + 0.05 * torch.randn(count, 3, each, generator=g),), labels
    )


def chains() -> Data:
    """2,000 sequences (N, 24) of 32 symbols by one of four Markov chains."""
    g = generator(6)
    count, length, symbols = 2000, 24, 32
    labels = torch.randint(4, (count,), generator=g)
    chain = torch.softmax(2.5 * torch.randn(4, symbols, symbols, generator=g), -1)
    state = torch.randint(symbols, (count,), generator=g)
    found = [state]
    for _ in range(length - 1):
        state = torch.multinomial(chain[labels, state], 1, generator=g)[:, 0]
        found.append(state)
    return Data((torch.stack(found, 1),), labels)


def motion() -> Data:
    """800 small films (N, 1, 6, 12, 12) of a blob that moves in one of six directions."""
    g = generator(7)
    count, frames, size = 800, 6, 12
    labels = torch.randint(6, (count,), generator=g)
    angle = labels * math.pi / 3 + 0.2 * torch.randn(count, generator=g)
    start = 3 + 5 * torch.rand(count, 2, generator=g)
    step = 0.8 * torch.stack([angle.cos(), angle.sin()], 1)
    place = start[:, None] + step[:, None] * (torch.arange(frames) - frames / 2)[None, :, None]
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    gap = (x - place[..., 0, None, None]) ** 2 + (y - place[..., 1, None, None]) ** 2
    films = torch.exp(-gap / 4)[:, None] + 0.2 * torch.randn(count, 1, frames, size, size, generator=g)
    return Data(((films - films.mean()) / films.std(),), labels)
