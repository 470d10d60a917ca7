"""What several trainings make of a tensor, in one `State`: an operation that only adds, multiplies and takes
functions of moments is worked out once for all of them, since numpy carries the first dimension along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx

from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.state import PER_GROUP, PER_GROUP_OR_NONE, State

ARRAYS = (
    *PER_GROUP,
    *(name for name in PER_GROUP_OR_NONE if name != "sources"),
    *("rho", "data_correlation", "channel_correlation", "channel_spread", "withheld"),
)
"""What training changes in a `State`; the rest tells where values lie, and which mask is pending."""
PARTS = ("skew", "before_relu")
"""The same, of parts of it that hold arrays alone."""


class Apart(Exception):
    """An operation does not take several trainings abreast: it is worked out for one after the other."""


@dataclass(frozen=True)
class Each:
    """What each training makes of something, where it has no common form."""

    values: tuple[Any, ...]


def _parts(x: State) -> Iterator[tuple[str, Any]]:
    return ((name, part) for name in PARTS if (part := getattr(x, name)) is not None)


def _of_one(x: State, place: int) -> State:
    """What one of the trainings makes of a tensor."""
    own = {name: array[place] for name in ARRAYS if (array := getattr(x, name)) is not None}
    parts = {
        name: replace(part, **{field: array[place] for field, array in vars(part).items()})
        for name, part in _parts(x)
    }
    return replace(x, **own, **parts)


class OfOne(Mapping[fx.Node, Any]):
    """What one of the trainings makes of each node."""

    def __init__(self, of_all: Mapping[fx.Node, Any], place: int) -> None:
        self._of_all, self._place = of_all, place
        self._taken: dict[int, tuple[State, State]] = {}
        self._wholes: dict[int, State] = {}

    def __getitem__(self, node: fx.Node) -> Any:
        return self._of(self._of_all[node])

    def _of(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(self._of(item) for item in value)
        if isinstance(value, dict):
            return {key: self._of(item) for key, item in value.items()}
        if isinstance(value, Each):
            return value.values[self._place]
        if not isinstance(value, State) or not value.abreast:
            return value
        if id(value) not in self._taken:  # which stays alive with what is taken from it
            taken = _of_one(value, self._place)
            self._taken[id(value)], self._wholes[id(taken)] = (value, taken), value
        return self._taken[id(value)][1]

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._of_all)

    def __len__(self) -> int:
        return len(self._of_all)

    def whole(self, value: Any) -> State | None:
        """What all trainings make of a tensor, of which this was taken; None for anything else."""
        return self._wholes.get(id(value))


def abreast(values: Sequence[Any], taken: Sequence[OfOne]) -> Any:
    """The values of all trainings as one, or as they are where they have no common form.

    `taken`: by training, what the values were worked out from; what is passed on as it was stays one.
    """
    first, whole = values[0], taken[0].whole(values[0])
    if all(value is first for value in values):
        return first
    if whole is not None and all(one.whole(own) is whole for own, one in zip(values, taken, strict=True)):
        return whole
    if isinstance(first, State):
        return _stacked(values) if all(_alike(first, value) for value in values) else Each(tuple(values))
    if isinstance(first, (tuple, list)) and all(
        type(value) is type(first) and len(value) == len(first) for value in values
    ):
        return tuple(abreast(items, taken) for items in zip(*values, strict=True))
    return Each(tuple(values))


def _alike(one: State, other: Any) -> bool:
    """Whether two states differ in numbers alone."""
    if not isinstance(other, State):
        return False
    return all(
        value is vars(other)[name] or _same_form(name, value, vars(other)[name])
        for name, value in vars(one).items()
    )


def _same_form(name: str, value: Any, other: Any) -> bool:
    if value is None or other is None:
        return False
    if name in PARTS:
        return all(array.shape == vars(other)[field].shape for field, array in vars(value).items())
    if name in ARRAYS:
        return bool(np.shape(value) == np.shape(other))
    return bool(np.array_equal(value, other))


def _stacked(states: Sequence[State]) -> State:
    first = states[0]
    own = {
        name: np.array([getattr(x, name) for x in states])
        for name in ARRAYS
        if getattr(first, name) is not None
    }
    parts = {
        name: replace(
            part, **{field: np.array([vars(getattr(x, name))[field] for x in states]) for field in vars(part)}
        )
        for name, part in _parts(first)
    }
    return replace(first, **own, **parts)


def same_for_all(x: State, many: int) -> State:
    """What so many trainings make of a tensor that none of them changes."""
    return x if x.abreast else _stacked((x,) * many)


def level(*states: State) -> tuple[State, ...]:
    """States of as many trainings each."""
    many = max((len(x.t_var) for x in states if x.abreast), default=0)
    return tuple(same_for_all(x, many) for x in states) if many else states


def of_a_single(x: State) -> State:
    """`x`, unless it is what several trainings make.

    Raises:
        Apart: it is.
    """
    if x.abreast:
        raise Apart
    return x


def everywhere(x: State, holds: npt.NDArray[np.bool_]) -> bool:
    """Whether something holds of all values of `x`.

    Raises:
        Apart: of those that some of the trainings make, and not of others.
    """
    found = holds.reshape(len(x.t_var) if x.abreast else 1, -1).all(1)
    if found.any() != found.all():
        raise Apart
    return bool(found.all())
