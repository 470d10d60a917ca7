"""A program of one mode: what its dropouts and norms do in it, whatever format holds it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dropout_lint.inputs.example import Location

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


@dataclass(frozen=True)
class Step:
    """One dropout or norm of a program.

    Attributes:
        name: the node's name.
        kind: the operation, as the format writes it (`Dropout`, `aten.feature_dropout`).
        is_norm: a norm that has running statistics; otherwise a dropout, or a draw that can be one's mask.
        trains: it acts as in training: drops, or normalises by the batch; None where the program leaves that
            open until it runs.
        p: drop ratio; NaN where the program does not hold it.
        source: the line that it was made from, where the program names it and the file is there.
    """

    name: str
    kind: str
    is_norm: bool
    trains: bool | None
    p: float = float("nan")
    source: Location | None = None


@dataclass(frozen=True)
class Program:
    """What was read of one program; it was not run.

    Attributes:
        form: what made it or how it is kept: `ONNX`, `torch.export`, `TorchScript`.
        operations: how many it has.
        dropouts: its dropouts, each with the first norm that its data reach, None where they reach none.
        norms: its norms that have running statistics.
    """

    form: str
    operations: int
    dropouts: tuple[tuple[Step, Step | None], ...]
    norms: tuple[Step, ...]

    def set_against(self, dropout: Step, reached: Step | None) -> Step | None:
        """The norm that a dropout is compared with: the one it reaches, else the first if all agree."""
        if reached is not None or not self.norms:
            return reached
        return self.norms[0] if len({norm.trains for norm in self.norms}) == 1 else None


def differ(dropout: Step, norm: Step) -> bool:
    """Whether one acts as in training and the other as in testing."""
    return None not in (dropout.trains, norm.trains) and dropout.trains != norm.trains


class Reader:
    """Puts a program together from its operations, which come in the order in which they run."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._operations = 0
        self._dropouts: list[Step] = []
        self._norms: list[Step] = []
        self._reached: dict[int, Step] = {}  # the place among the dropouts → the norm
        self._carried: dict[Hashable, frozenset[int]] = {}  # value → the dropouts that have met no norm yet

    def flow(self, reads: Iterable[Hashable], writes: Iterable[Hashable], step: Step | None = None) -> None:
        """What `reads` carry goes on in `writes`; a norm ends it, a dropout adds itself."""
        nothing = frozenset[int]()
        carried = nothing.union(*(self._carried.get(value, nothing) for value in reads))
        if step is not None and step.is_norm:
            self._norms.append(step)
            self._reached |= {place: step for place in carried if place not in self._reached}
            carried = nothing
        elif step is not None:
            carried |= {len(self._dropouts)}
            self._dropouts.append(step)
        for value in writes:
            self._carried[value] = carried

    def count(self) -> None:
        """One more operation."""
        self._operations += 1

    def program(self) -> Program:
        """What was read."""
        pairs = tuple((step, self._reached.get(place)) for place, step in enumerate(self._dropouts))
        return Program(self._form, self._operations, pairs, tuple(self._norms))


def source_line(stack_trace: str | None) -> Location | None:
    """The innermost line outside torch in a stack trace that an exporter kept, where that file is there."""
    for file, line in reversed(_FRAME.findall(stack_trace or "")):
        if "torch" not in Path(file).parts and Path(file).is_file():
            return Location(file, int(line))
    return None
