"""What must hold on any graph: random modules of layers, adds, concats, gates and dropouts."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import predict
from dropout_lint.rules import load_rules
from dropout_lint.survey.placements import Survey
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import trace

RULES = load_rules()
WIDTH = 4
Step = tuple[str, int, int]
KINDS = ("linear", "norm", "relu", "drop", "call", "add", "cat", "gate", "split")


@st.composite
def programs(draw: st.DrawFn) -> tuple[Step, ...]:
    """Steps that each read one or two earlier values; value 0 is the input."""
    steps = []
    for place in range(draw(st.integers(2, 14))):
        # mostly the last value, so that chains and branches come about
        near = st.integers(max(place - 1, 0), place)
        steps.append((draw(st.sampled_from(KINDS)), draw(near), draw(st.integers(0, place))))
    return tuple(steps)


class Program(nn.Module):
    """Runs the steps; norms are made by `norm`, dropouts have ratio `p`."""

    def __init__(
        self, steps: tuple[Step, ...], norm: type[nn.Module] = nn.BatchNorm1d, p: float = 0.5
    ) -> None:
        super().__init__()
        self.steps, self.p = steps, p
        self.layers = nn.ModuleDict()
        for place, (kind, _, _) in enumerate(steps):
            if kind in ("linear", "gate"):
                self.layers[str(place)] = nn.Linear(WIDTH, WIDTH)
            elif kind == "norm":
                self.layers[str(place)] = norm(WIDTH)
            elif kind == "drop":
                self.layers[str(place)] = nn.Dropout(p)
            elif kind == "cat":
                self.layers[str(place)] = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        values = [x]
        for place, (kind, one, other) in enumerate(self.steps):
            a, b = values[one], values[other]
            layer: Any = self.layers._modules.get(str(place))
            match kind:
                case "linear" | "norm" | "drop":
                    value = layer(a)
                case "relu":
                    value = torch.relu(a)
                case "call":
                    value = F.dropout(a, self.p, self.training)
                case "add":
                    value = a + b
                case "cat":
                    value = layer(torch.cat([a, b], 1))
                case "gate":
                    value = a * torch.sigmoid(layer(b))
                case _:
                    value = torch.cat(a.chunk(2, 1)[::-1], 1)
            values.append(value)
        return values[-1], {"early": values[len(values) // 2], "none": None}


def look(steps: tuple[Step, ...], **options: Any) -> Survey:
    recorded = trace(Program(steps, **options), Inputs(args=(torch.randn(4, WIDTH),)))
    return survey(recorded, predict(recorded))


def placement_codes(surveyed: Survey) -> set[str]:
    return {f.rule.code for f in RULES.match(surveyed) if f.rule.report == "once"}


@settings(max_examples=60)
@given(programs())
def test_every_call_is_placed_and_reported_at_most_once(steps: tuple[Step, ...]) -> None:
    surveyed = look(steps)
    placed = [placement.dropout for placement in surveyed.placements]
    assert {id(site) for site in placed} == {id(site) for site in surveyed.trace.dropouts}
    for placement in surveyed.placements:
        facts = placement.facts
        assert placement.path[0] == placement.dropout.node.name
        assert (placement.norm is None) == (facts.norm is None) == (facts.weights_between is None)
        assert (
            facts.position is None
            or facts.in_branch
            or facts.position in ("P0", *(f"H{i}" for i in range(8)))
        )
    once = [f for f in RULES.match(surveyed) if f.rule.report == "once"]
    assert len({id(finding.dropout) for finding in once}) == len(once)
    for finding in once:
        assert finding.facts is not None
        assert finding.severity != "error" or not finding.facts.at_guideline


@settings(max_examples=40)
@given(programs())
def test_without_a_norm_that_shifts_only_heads_are_advised(steps: tuple[Step, ...]) -> None:
    surveyed = look(steps, norm=nn.LayerNorm)
    assert all(placement.norm is None for placement in surveyed.placements)
    assert placement_codes(surveyed) <= {"DL301", "DL302"}


@settings(max_examples=20)
@given(programs())
def test_a_ratio_of_zero_changes_nothing_and_is_not_reported(steps: tuple[Step, ...]) -> None:
    assert RULES.match(look(steps, p=0.0)) == ()


@settings(max_examples=30)
@given(programs())
def test_the_direct_case_is_found_wherever_it_is(steps: tuple[Step, ...]) -> None:
    """However the rest looks: input – linear – dropout – norm – the rest."""
    moved = tuple((kind, one + 3, other + 3) for kind, one, other in steps)
    head: tuple[Step, ...] = (("linear", 0, 0), ("drop", 1, 0), ("norm", 2, 0))
    surveyed = look(head + moved)
    found = [f for f in RULES.match(surveyed, select=["DL101"]) if f.dropout and f.dropout.name == "layers.1"]
    assert [finding.norm.name for finding in found if finding.norm] == ["layers.2"]
