"""The facts about the dropouts of a deployed program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dropout_lint.deployed import Program, Step, differ
from dropout_lint.survey.facts import Facts


@dataclass(frozen=True)
class InProgram:
    """One dropout of a program with its facts.

    Attributes:
        dropout: the node.
        norm: the norm that it is compared with: the first that its data reach, else one of all where these
            agree.
        path: names of the dropout and of the norm that its data reach.
        facts: what the rules compare.
    """

    dropout: Step
    norm: Step | None
    path: tuple[str, ...]
    facts: Facts


def survey_program(program: Program) -> Iterator[InProgram]:
    """The facts about each dropout, in the order of the data."""
    for dropout, reached in program.dropouts:
        norm = program.set_against(dropout, reached)
        facts = Facts(
            kind=dropout.kind,
            p=dropout.p,
            active_in_eval=dropout.trains is True,
            modes_differ=norm is not None and differ(dropout, norm),
            norm_trains=norm.trains if norm else None,
            subject="program",
        )
        path = (dropout.name,) if reached is None else (dropout.name, reached.name)
        yield InProgram(dropout, norm, path, facts)
