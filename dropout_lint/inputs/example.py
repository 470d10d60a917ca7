"""What the target room hands on: a built model and the inputs to trace it with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dropout_lint.inputs.values import describe_value


@dataclass(frozen=True)
class Location:
    """A place in the user's source; `file` is absolute, `line` and `column` count from 1."""

    file: str
    line: int
    column: int = 1


@dataclass(frozen=True)
class Inputs:
    """Example inputs of a model.

    Attributes:
        args: positional arguments of `forward`.
        kwargs: keyword arguments of `forward`.
        guessed: nobody gave them; they were worked out from the model.
        origin: where they come from, for the report (`--input`, `example_inputs`, `guessed from conv1`).
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    guessed: bool = False
    origin: str = "given"

    def describe(self) -> tuple[str, ...]:
        """One line for each tensor argument: `8x3x32x32`, `2x16:int64`, `mask=2x16:bool`."""
        lines = [describe_value(value) for value in self.args]
        lines += [f"{name}={describe_value(value)}" for name, value in self.kwargs.items()]
        return tuple(lines)


@dataclass(frozen=True)
class Built:
    """A built target.

    Attributes:
        target: the text that the user typed.
        model: the module, on the meta device where it could be built there.
        inputs: example inputs, or None where they still have to be guessed.
        constructed: the line that constructed each module, by `id(module)`.
        on_meta: whether the weights have no values.
        checkpoint: the file whose weights were loaded, or None.
        notes: things to say aloud (a schema that was declared, a fall-back that was taken).
        unseen: those of the notes that tell of what could not be looked at in the file or folder; the first
            model found in it has them.
    """

    target: str
    model: nn.Module
    inputs: Inputs | None
    constructed: Mapping[int, Location] = field(default_factory=dict)
    on_meta: bool = False
    checkpoint: str | None = None
    notes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
