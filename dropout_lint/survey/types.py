"""What the survey room hands on: the facts about every dropout that the rules compare."""

from __future__ import annotations

from dataclasses import dataclass, field

from dropout_lint.trace.types import DropoutSite, NormSite, Trace, UnusedDropout


@dataclass(frozen=True)
class Facts:
    """The facts about one dropout call, or about one dropout→norm path of it: what a rule's `match` may name.

    `norm`-related facts are None where no norm that shifts is reached. Add a fact here and fill it in one
    function of the survey; rule files can then compare it.
    """

    # the dropout
    kind: str
    noise: str
    p: float
    functional: bool
    inplace: bool
    inside: bool
    active_in_train: bool
    active_in_eval: bool
    input_rank: int | None
    # the path to the first norm that shifts
    norm: str | None = None
    weights_between: int | None = None
    adds_between: int | None = None
    concats_between: int | None = None
    norms_between: int | None = None
    width: int | None = None
    delta: float | None = None
    share: float | None = None
    prior_delta: float | None = None
    basis: str | None = None
    # the placement
    position: str | None = None
    in_branch: bool = False
    branch_style: str | None = None
    dropouts_in_branch: int = 0
    at_guideline: bool = False
    in_head: bool = False
    pooled_before: bool = False
    on_logits: bool = False
    skip_shares_inplace: bool = False


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
    """

    trace: Trace
    placements: tuple[Placement, ...]
    unused: tuple[UnusedDropout, ...] = field(default=())
