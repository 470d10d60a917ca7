"""What the survey room hands on: the facts about every dropout that the rules compare."""

from __future__ import annotations

from dataclasses import dataclass, field

from dropout_lint.prediction.shifts import NormShift
from dropout_lint.survey.facts import Facts
from dropout_lint.trace.traced import DropoutSite, NormSite, Trace, UnusedDropout

__all__ = ["Facts", "Placement", "Survey"]


@dataclass(frozen=True)
class Placement:
    """One dropout call with its facts, and the path that they speak of.

    Attributes:
        dropout: the call.
        norm: the norm that the facts speak of, None where no norm that shifts is reached.
        path: names of the nodes from the dropout to the norm (or to the output), both ends included.
        facts: what the rules compare.
    """

    dropout: DropoutSite
    norm: NormSite | None
    path: tuple[str, ...]
    facts: Facts


@dataclass(frozen=True)
class Survey:
    """Everything the rules look at.

    Attributes:
        trace: what was surveyed.
        placements: for each dropout call one placement for each norm that it reaches first on some path
            (the nearest along every way through the graph), or one without a norm.
        unused: dropouts that are never called.
        shifts: the predicted shift at each norm, in the order of the data.
    """

    trace: Trace
    placements: tuple[Placement, ...]
    unused: tuple[UnusedDropout, ...] = field(default=())
    shifts: tuple[NormShift, ...] = field(default=())
