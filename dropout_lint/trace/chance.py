"""Numbers that chance makes in Python, within one recording: `float(torch.bernoulli(p))`, `random.random()`.

What becomes of them in Python no graph shows. They can be answered as one likes, though: what changes in the
graph when a number is another one is what it does (`trace/redrawn.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from dropout_lint.trace.quantiles import DRAWS, made_of_draws

Values = np.ndarray[Any, np.dtype[np.float64]]
Wish = Callable[[int], float]
"""Which quantile of its distribution the n-th number takes, 0 to 1."""
_NUMBERS = (bool, int, float, np.generic)
_AS: dict[str, Callable[[float], Any]] = {"__bool__": bool, "__int__": int, "__float__": float}


class Compared(float):
    """A number that chance has made and that remembers what it is compared with."""

    thresholds: list[float]

    def __new__(cls, value: float) -> Compared:
        """With no comparison yet."""
        number = super().__new__(cls, value)
        number.thresholds = []
        return number

    def _compared(self, other: Any, how: Callable[[float, Any], bool]) -> bool:
        if isinstance(other, (int, float, np.generic)):
            self.thresholds.append(float(other))
        return how(float(self), other)

    def __lt__(self, other: Any) -> bool:
        return self._compared(other, operator.lt)

    def __le__(self, other: Any) -> bool:
        return self._compared(other, operator.le)

    def __gt__(self, other: Any) -> bool:
        return self._compared(other, operator.gt)

    def __ge__(self, other: Any) -> bool:
        return self._compared(other, operator.ge)


@dataclass
class Read:
    """One number, or one array, that chance made in Python.

    Attributes:
        place: of its draw, among those of the witness.
        value: what the code got.
        values: at least DRAWS equally likely values, in random order: of a number, or of the elements of an
            array; None where they were not asked for.
        exact: whether they are quantiles, and not a sample.
        nodes: how many nodes the graph had.
    """

    place: int
    value: Any
    values: Values | None
    exact: bool
    nodes: int

    @property
    def number(self) -> bool:
        """Whether it is a number."""
        return isinstance(self.value, _NUMBERS)


@dataclass
class Chance:
    """Answers what a model asks of chance while it is recorded.

    Attributes:
        wish: which values its numbers take; None to let Python's and numpy's come as they do, and those of
            tensors be the likeliest.
        seed: what generators start from: arrays come as they do.
        known: what was asked in another recording, whose values are taken.
        reads: what was asked, in this order.
    """

    wish: Wish | None = None
    seed: int = 0
    known: Sequence[Read] = ()
    reads: list[Read] = field(default_factory=list)

    def of_tensor(self, name: str, node: fx.Node | None, place: int, nodes: int) -> Any:
        """The number that a method reads from a tensor which draws alone have made; None of any other."""
        found = made_of_draws(node) if node is not None else None
        values: Values | None = None if found is None else found.numpy()
        if values is None or name not in (*_AS, "item"):
            return None
        quantile = 0.5 if self.wish is None else self.wish(len(self.reads))
        drawn = float(np.sort(values)[round(quantile * (DRAWS - 1))])
        order = np.random.RandomState(len(self.reads)).permutation(DRAWS)
        kind = node.meta["value"].dtype if node is not None else torch.float32
        kinds: Callable[[float], Any] = float if kind.is_floating_point else int
        number = _AS.get(name, kinds)(drawn)
        if self.wish is not None and name == "item" and type(number) is float:
            number = Compared(number)
        self.reads.append(Read(place, number, values[order], exact=True, nodes=nodes))
        return number

    def of_python(self, draw: Callable[[], Any], place: int, nodes: int) -> Any:
        """What a function of `random` or numpy returns."""
        value, number = draw(), len(self.reads)
        values = self.known[number].values if number < len(self.known) else None
        if self.wish is not None and isinstance(value, _NUMBERS):
            if values is None:
                values = np.array([draw() for _ in range(DRAWS)], dtype=float)
            chosen = float(np.sort(values)[round(self.wish(number) * (DRAWS - 1))])
            value = Compared(chosen) if type(value) is float else type(value)(chosen)
        elif self.wish is not None and isinstance(value, np.ndarray) and value.size and values is None:
            more = [draw() for _ in range(DRAWS // value.size)]
            values = np.concatenate([value, *more], axis=None).astype(float)
        self.reads.append(Read(place, value, values, exact=False, nodes=nodes))
        return value
