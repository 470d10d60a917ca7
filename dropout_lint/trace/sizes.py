"""Sizes that remember where they were read, so that a recorded graph works at other sizes as well."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx


@dataclass(frozen=True)
class Comparison:
    """A comparison of sizes that the model made: another outcome may have led another way.

    Attributes:
        operation: `operator.eq`, `operator.lt`, …; `operator.truth` for one size alone.
        operands: sizes, as `SizeInt`, and numbers.
        outcome: how it came out.
    """

    operation: Callable[..., bool]
    operands: tuple[Any, ...]
    outcome: bool


class SizeInt(int):
    """An int read from a tensor's shape; arithmetic on it is recorded when, and only if, it is used.

    Comparisons are noted in a list that all sizes of one recording share. A size that was kept from another
    recording (in a cache of the user's) is a plain int to this one; what is kept by such a size is not found
    by one of this recording.
    """

    _operation: Callable[..., Any] | str
    _operands: tuple[Any, ...]
    _node: fx.Node | None
    _noted: list[Comparison]

    @classmethod
    def read(cls, value: int, tensor: fx.Node, dim: int, noted: list[Comparison]) -> SizeInt:
        """The size of dimension `dim` of the tensor that `tensor` returned."""
        return cls._make(value, "size", (tensor, dim), noted)

    @classmethod
    def _make(
        cls,
        value: int,
        operation: Callable[..., Any] | str,
        operands: tuple[Any, ...],
        noted: list[Comparison],
    ) -> SizeInt:
        size = int.__new__(cls, value)
        size._operation = operation
        size._operands = operands
        size._node = None
        size._noted = noted
        return size

    @property
    def form(self) -> tuple[Any, ...]:
        """How it is worked out: equal for two sizes that are equal whatever the inputs."""
        operands = (side.form if isinstance(side, SizeInt) else side for side in self._operands)
        return (self._operation, *operands)

    def _own(self, other: Any) -> Any:
        """`other`, as a plain int where it is a size of another recording."""
        return int(other) if isinstance(other, SizeInt) and other._noted is not self._noted else other

    def belongs_to(self, graph: fx.Graph) -> bool:
        """Whether it was read from a tensor of this graph."""
        return any(
            side.belongs_to(graph) if isinstance(side, SizeInt) else side.graph is graph
            for side in self._operands
            if isinstance(side, (SizeInt, fx.Node))
        )

    def node(self, graph: fx.Graph) -> fx.Node:
        """The node that computes this size, created at the first use."""
        if self._node is None:
            self._node = self._written(
                graph, lambda side: side.node(graph) if isinstance(side, SizeInt) else side
            )
            self._node.meta["value"] = int(self)
        return self._node

    def computed(self, graph: fx.Graph, mapped: Callable[[fx.Node], fx.Node]) -> fx.Node:
        """A new node that computes this size in a copy of the graph, where `mapped` has its nodes."""
        return self._written(
            graph, lambda side: side.computed(graph, mapped) if isinstance(side, SizeInt) else mapped(side)
        )

    def _written(self, graph: fx.Graph, of: Callable[[Any], fx.Node]) -> fx.Node:
        """A node for the operation; `of` has those of its operands."""
        operands = tuple(
            of(side) if isinstance(side, (SizeInt, fx.Node)) else side for side in self._operands
        )
        if isinstance(self._operation, str):
            return graph.call_method(self._operation, operands)
        return graph.call_function(self._operation, operands)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)


def _binary(operation: Callable[[Any, Any], Any], reflected: bool) -> Callable[[SizeInt, Any], Any]:
    def apply(self: SizeInt, other: Any) -> Any:
        if isinstance(other, bool) or not isinstance(other, int):
            plain = int(self)
            return operation(other, plain) if reflected else operation(plain, other)
        other = self._own(other)
        pair = (other, self) if reflected else (self, other)
        return SizeInt._make(operation(int(pair[0]), int(pair[1])), operation, pair, self._noted)

    return apply


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    _operation = getattr(operator, _name)
    setattr(SizeInt, f"__{_name}__", _binary(_operation, reflected=False))
    setattr(SizeInt, f"__r{_name}__", _binary(_operation, reflected=True))


def _negative(self: SizeInt) -> SizeInt:
    return SizeInt._make(-int(self), operator.neg, (self,), self._noted)


SizeInt.__neg__ = _negative  # type: ignore[method-assign, assignment]  # as the others, one by one


_IDENTITY = (operator.eq, operator.ne)


def _comparison(operation: Callable[[Any, Any], bool]) -> Callable[[SizeInt, Any], Any]:
    def compare(self: SizeInt, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        if isinstance(other, SizeInt) and other._noted is not self._noted and operation in _IDENTITY:
            return operation is operator.ne
        outcome = operation(int(self), int(other) if isinstance(other, int) else other)
        self._noted.append(Comparison(operation, (self, self._own(other)), outcome))
        return outcome

    return compare


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(SizeInt, f"__{_name}__", _comparison(getattr(operator, _name)))


def _truth(self: SizeInt) -> bool:
    outcome = int(self) != 0
    self._noted.append(Comparison(operator.truth, (self,), outcome))
    return outcome


SizeInt.__bool__ = _truth  # type: ignore[method-assign, assignment]  # as the others, one by one
SizeInt.__hash__ = int.__hash__  # type: ignore[method-assign]  # lost with another `__eq__`
