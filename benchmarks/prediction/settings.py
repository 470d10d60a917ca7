"""What is trained: a network, its data, its optimiser, and the kinds and ratios of dropout it is built with.

Two sets, never mixed: constants are chosen while looking at `tuning`; `heldout` shows what they are worth.
Families, data sets and optimisers differ between the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Data:
    """Training data: inputs of equal length and what belongs to each row.

    Attributes:
        inputs: the forward's positional arguments; row i of each belongs to sample i.
        labels: (N,) classes, (N, …) values, or (N, H, W) classes of pixels.
        whole: the inputs are one graph and are never split into batches.
    """

    inputs: Tensors
    labels: Tensor
    whole: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: Tensor) -> tuple[Tensors, Tensor]:
        """The inputs and labels of these rows; all of them where the data are whole."""
        if self.whole:
            return self.inputs, self.labels
        return tuple(x[index] for x in self.inputs), self.labels[index]


@dataclass(frozen=True)
class Network:
    """One network and how it is trained.

    Attributes:
        name: unique within both sets.
        family: what the page groups by.
        build: kind of noise, ratio → the network, untrained.
        data: what it learns.
        optimiser: `adam`, `rmsprop`, `sgd`, `momentum` or `adamw`; `published` where nothing is trained.
        rate: learning rate at the start.
        epochs: passes over the data.
        settings: (kind, ratio) of each training.
        batch: rows of a training batch.
        loss: `classes` (cross-entropy) or `values` (squared error).
        cosine: the rate falls to zero by a cosine; it stays as it is without.
        decay: weight decay.
        weights: published weights and statistics, in place of a training.
        seen: while measuring, train-mode passes go on until at least so many rows were seen.
    """

    name: str
    family: str
    build: Callable[[str, float], nn.Module]
    data: Callable[[], Data]
    optimiser: str
    rate: float
    epochs: int
    settings: Sequence[tuple[str, float]]
    batch: int = 64
    loss: str = "classes"
    cosine: bool = True
    decay: float = 0.0
    weights: Callable[[], Mapping[str, Tensor]] | None = None
    seen: int = 4000


@dataclass(frozen=True)
class Setting:
    """One network with one kind and ratio of dropout."""

    network: Network
    kind: str
    p: float

    @property
    def key(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.network.name}-{self.kind}-{self.p:g}"

    @property
    def seed(self) -> int:
        """Of its initialisation, batches and masks."""
        return int(hashlib.sha1(self.key.encode()).hexdigest()[:6], 16)


def settings(networks: Sequence[Network]) -> Iterator[Setting]:
    """Every setting of these networks."""
    for network in networks:
        yield from (Setting(network, kind, p) for kind, p in network.settings)
