"""Sizes that remember where they were read, so that a recorded graph works at other sizes as well."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx


class SizeInt(int):
    """An int read from a tensor's shape; arithmetic on it is recorded when, and only if, it is used."""

    _operation: Callable[..., Any] | str
    _operands: tuple[Any, ...]
    _node: fx.Node | None

    @classmethod
    def read(cls, value: int, tensor: fx.Node, dim: int) -> SizeInt:
        """The size of dimension `dim` of the tensor that `tensor` returned."""
        return cls._make(value, "size", (tensor, dim))

    @classmethod
    def _make(cls, value: int, operation: Callable[..., Any] | str, operands: tuple[Any, ...]) -> SizeInt:
        size = int.__new__(cls, value)
        size._operation = operation
        size._operands = operands
        size._node = None
        return size

    def node(self, graph: fx.Graph) -> fx.Node:
        """The node that computes this size, created at the first use."""
        if self._node is None:
            operands = tuple(
                operand.node(graph) if isinstance(operand, SizeInt) else operand for operand in self._operands
            )
            if isinstance(self._operation, str):
                self._node = graph.call_method(self._operation, operands)
            else:
                self._node = graph.call_function(self._operation, operands)
            self._node.meta["value"] = int(self)
        return self._node

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)


def _binary(operation: Callable[[Any, Any], Any], reflected: bool) -> Callable[[SizeInt, Any], Any]:
    def apply(self: SizeInt, other: Any) -> Any:
        if isinstance(other, bool) or not isinstance(other, int):
            plain = int(self)
            return operation(other, plain) if reflected else operation(plain, other)
        pair = (other, self) if reflected else (self, other)
        return SizeInt._make(operation(int(pair[0]), int(pair[1])), operation, pair)

    return apply


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    _operation = getattr(operator, _name)
    setattr(SizeInt, f"__{_name}__", _binary(_operation, reflected=False))
    setattr(SizeInt, f"__r{_name}__", _binary(_operation, reflected=True))


def _negative(self: SizeInt) -> SizeInt:
    return SizeInt._make(-int(self), operator.neg, (self,))


SizeInt.__neg__ = _negative  # type: ignore[method-assign, assignment]
