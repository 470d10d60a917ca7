"""What a `State` is made with: copies, ratios, the values behind a rectifier, third moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dropout_lint.prediction.quadrature import Array

_T = TypeVar("_T")


def replace(old: _T, /, **values: Any) -> _T:
    """`dataclasses.replace` for what is copied thousands of times: without a call of the constructor."""
    fields = vars(old) | values
    if len(fields) != len(vars(old)):
        raise TypeError(f"{type(old).__name__} has no {sorted(values.keys() - vars(old).keys())}")
    new = object.__new__(type(old))
    object.__setattr__(new, "__dict__", fields)
    return new


def quotient(part: Array | float, whole: Array, otherwise: float = 0.0) -> Array:
    """`part / whole` where the whole is above 0, else `otherwise`."""
    if whole.size == 1 and whole.item() > 0:
        return part / whole
    positive = whole > 0
    if positive.all():
        return part / whole
    result: Array = np.divide(
        part, whole, out=np.full(np.broadcast(part, whole).shape, otherwise), where=positive
    )
    return result


def by_row(of: Array | float) -> Array | float:
    """(G,) values as (1, G), so that they go with each row of (K, G) or (S, G) arrays; a number as it is."""
    return of[..., None, :] if isinstance(of, np.ndarray) else of


@dataclass(frozen=True)
class Normals:
    """Normal values behind others: moments in train mode, (G,) or (K, G) for each component of a mask, and in
    test mode, (G,); `rho` as `State` has it.
    """

    mean: Array
    dev: Array
    var: Array
    sig2: Array
    t_mean: Array
    t_dev: Array
    t_var: Array
    rho: Array

    def pick(self, index: npt.NDArray[Any]) -> Normals:
        """Groups `index`."""
        names = ("mean", "dev", "var", "sig2", "t_mean", "t_dev", "t_var")
        return replace(self, **{name: getattr(self, name)[..., index] for name in names})


@dataclass(frozen=True)
class Skewness:
    """Third central moment over variance^1.5: (K, G) in train mode within a component, (K, G) of its data
    part, (G,) in test mode.
    """

    train: Array
    data: Array
    test: Array

    def pick(self, index: npt.NDArray[Any]) -> Skewness:
        """Groups `index`."""
        return Skewness(self.train[..., index], self.data[..., index], self.test[..., index])

    def components(self, index: Sequence[int]) -> Skewness:
        """Components `index`, repeats allowed."""
        rows = list(index)
        return Skewness(self.train[..., rows, :], self.data[..., rows, :], self.test)

    def times(self, sign: Array | float) -> Skewness:
        """That of the same values with other signs."""
        return Skewness(self.train * by_row(sign), self.data * by_row(sign), self.test * sign)
