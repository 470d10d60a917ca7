"""How rules are compared with facts, and which of several that match is reported."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import predict
from dropout_lint.rules import RuleSet, distinct, load_rules, read_rule, render_message
from dropout_lint.rules.conditions import compile_match
from dropout_lint.survey.facts import Facts
from dropout_lint.survey.placements import Survey
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import trace

RULES = load_rules()


def holds(match: dict[str, Any], threshold: float = 0.95, **facts: Any) -> bool:
    return all(condition.holds(Facts(**facts), threshold) for condition in compile_match(match))


@pytest.mark.parametrize(
    ("match", "facts", "expected"),
    [
        ({"weights_between": 0}, {"weights_between": 0}, True),
        ({"weights_between": 0}, {"weights_between": 1}, False),
        ({"weights_between": 0}, {"weights_between": None}, False),
        ({"norm": ["batch", "sync-batch"]}, {"norm": "sync-batch"}, True),
        ({"norm": ["batch", "sync-batch"]}, {"norm": "instance"}, False),
        ({"norm": {"not": "batch"}}, {"norm": None}, True),
        ({"norm": {"none_of": ["batch"], "known": True}}, {"norm": None}, False),
        ({"norm": {"known": True}}, {"norm": "batch"}, True),
        ({"norm": {"known": False}}, {"norm": "batch"}, False),
        ({"norm": {"known": False}}, {"norm": None}, True),
        ({"delta": {"below": "threshold"}}, {"delta": 0.94}, True),
        ({"delta": {"below": "threshold"}}, {"delta": 0.95}, False),
        ({"delta": {"below": "threshold"}}, {"delta": None}, False),
        ({"delta": {"below": "threshold", "or_unknown": True}}, {"delta": None}, True),
        ({"delta": {"below": 0.5, "at_least": 0.3}}, {"delta": 0.4}, True),
        ({"delta": {"below": 0.5, "at_least": 0.3}}, {"delta": 0.2}, False),
        ({"delta": {"outside": "threshold"}}, {"delta": 1.04}, False),
        ({"delta": {"outside": "threshold"}}, {"delta": 1.06}, True),
        ({"delta": {"outside": "threshold"}}, {"delta": 0.94}, True),
        ({"p": {"above": "shortfall"}}, {"p": 0.06}, True),
        ({"p": {"above": "shortfall"}}, {"p": 0.04}, False),
        ({"p": {"above": 0.1}}, {"p": math.nan}, False),
        ({"p": {"at_most": 0.1, "or_unknown": True}}, {"p": math.nan}, True),
        ({"inside": False, "position": "P3"}, {"inside": False, "position": "P3"}, True),
        ({"inside": False, "position": "P3"}, {"inside": True, "position": "P3"}, False),
    ],
)
def test_comparisons(match: dict[str, Any], facts: dict[str, Any], expected: bool) -> None:
    assert holds(match, **facts) is expected


@given(st.floats(0.01, 3), st.floats(0.5, 1))
def test_outside_is_the_shift_ratio(delta: float, threshold: float) -> None:
    expected = max(delta, 1 / delta) > 1 / threshold
    near = math.isclose(max(delta, 1 / delta), 1 / threshold)
    assert near or holds({"delta": {"outside": "threshold"}}, threshold, delta=delta) is expected


class Block(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(x)
        return x + self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))


def surveyed(model: nn.Module, *inputs: torch.Tensor) -> Survey:
    recorded = trace(model, Inputs(args=inputs or (torch.randn(2, 8, 8, 8),)))
    return survey(recorded, predict(recorded))


def test_a_placement_is_reported_once_by_the_most_specific_of_the_severest() -> None:
    found = RULES.match(surveyed(Block(0.5)))
    assert [finding.rule.code for finding in found] == ["DL201"]
    without = RULES.match(surveyed(Block(0.5)), ignore=["DL201"])
    assert [finding.rule.code for finding in without] == ["DL101"]
    assert without[0].norm is not None and without[0].norm.name == "norm1"
    assert without[0].path[0] == "drop" and without[0].path[-1] == "norm1"


def test_the_threshold_decides_what_counts() -> None:
    facts = surveyed(Block(0.04))
    assert RULES.match(facts) == ()
    assert [finding.rule.code for finding in RULES.match(facts, threshold=0.99)] == ["DL201"]


def test_a_ratio_of_zero_is_never_reported() -> None:
    assert RULES.match(surveyed(Block(0.0))) == ()


def test_own_faults_are_reported_beside_the_placement() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.norm = nn.Dropout1d(0.5), nn.BatchNorm1d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.drop(x))

    found = RULES.match(surveyed(Net(), torch.randn(4, 8)))
    assert [finding.rule.code for finding in found] == ["DL101", "DL405"]


def test_messages_speak_of_this_dropout() -> None:
    found = RULES.match(surveyed(Block(0.5)), ignore=["DL201"])
    assert found[0].message.startswith("Dropout (p = 0.5) feeds BatchNorm2d norm1 with no weight layer")
    unknown = survey(trace(Block(0.5), Inputs(args=(torch.randn(2, 8, 8, 8),))))
    assert RULES.match(unknown, ignore=["DL201"])[0].message.endswith("Δ = unknown")


def test_a_projects_rule_is_matched_like_the_others(tmp_path: Path) -> None:
    path = tmp_path / "ACME101-heavy.md"
    path.write_text(
        '+++\ncode = "ACME101"\nname = "heavy"\nseverity = "error"\nsource = "Acme"\nprecedence = 9\n'
        'message = "{dropout} drops {p:.0%}, more than {threshold:g} allows"\n'
        "[match]\np = { at_least = 0.5 }\n+++\n"
        "## What it does\n\nFinds heavy dropout.\n"
    )
    rules = load_rules([path])
    found = rules.match(surveyed(Block(0.5)), threshold=0.9)
    assert [finding.message for finding in found] == ["drop drops 50%, more than 0.9 allows"]


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("match", "message"), [("share = { above = 0.5 }\np", "heavy"), ("p", "{share:.0%} of the shift")]
)
def test_shares_that_were_left_out_matter_where_a_rule_names_them_and_all_else_holds(
    tmp_path: Path, match: str, message: str, asked: bool
) -> None:
    path = tmp_path / "ACME101-heavy.md"
    path.write_text(
        '+++\ncode = "ACME101"\nname = "heavy"\nseverity = "error"\nsource = "Acme"\n'
        f'message = "{message}"\n[match]\n{match} = {{ at_least = 0.5 }}\n+++\n'
        "## What it does\n\nFinds heavy dropout.\n"
    )
    recorded = trace(Block(0.5 if asked else 0.4), Inputs(args=(torch.randn(2, 8, 8, 8),)))
    without = survey(recorded, predict(recorded, shares=False))
    assert {place.facts.share for place in without.placements} == {None}
    assert RuleSet((read_rule(path),)).weigh_shares(without) is asked
    assert RULES.weigh_shares(without)


def test_a_rule_that_is_off_reports_as_info_when_it_is_named(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.drop, self.fc2 = nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc2(self.drop(torch.relu(self.fc1(x))))

    facts = surveyed(Net(), torch.randn(4, 8))
    assert RULES.match(facts) == ()
    assert [finding.severity for finding in RULES.match(facts, select=["DL502"])] == ["info"]


def test_rounds_of_a_loop_read_as_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.drop, self.norm = nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = self.norm(self.drop(torch.relu(self.cell(x))))
            return x

    found = RULES.match(surveyed(Net(), torch.randn(4, 8)))
    assert len(found) == 5 and len({finding.dropout.node.name for finding in found if finding.dropout}) == 5
    assert [finding.rule.code for finding in distinct(found)] == ["DL101"]


@pytest.mark.parametrize(("p", "severity"), [(0.5, "error"), (0.1, "warning")])
def test_a_small_shift_is_a_warning(p: float, severity: str) -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.Dropout(p), nn.BatchNorm1d(32), nn.Linear(32, 2))
    (finding,) = RULES.match(surveyed(model, torch.randn(4, 8)))
    assert finding.facts is not None and finding.facts.delta is not None
    assert (finding.rule.code, finding.severity) == ("DL101", severity)
    assert (finding.facts.delta >= 0.8) is (severity == "warning")


def test_a_rule_about_norms_can_be_mild_as_well(tmp_path: Path) -> None:
    path = tmp_path / "ACME501-shifted-norm.md"
    path.write_text(
        '+++\ncode = "ACME501"\nname = "shifted-norm"\nseverity = "error"\nsource = "x"\n'
        'message = "{shift}"\n'
        'mild = { severity = "info", delta = 0.8 }\n'
        '[match]\nsubject = "norm"\ndelta = { below = "threshold" }\n+++\n## What it does\n\nx\n'
    )
    facts = {
        p: surveyed(nn.Sequential(nn.Linear(8, 32), nn.Dropout(p), nn.BatchNorm1d(32)), torch.randn(4, 8))
        for p in (0.1, 0.5)
    }
    found = {p: RuleSet((read_rule(path),)).match(survey) for p, survey in facts.items()}
    assert {p: [finding.severity for finding in findings] for p, findings in found.items()} == {
        0.1: ["info"],
        0.5: ["error"],
    }


def test_among_equals_more_precedence_then_more_keys_then_the_lower_code(tmp_path: Path) -> None:
    def rule(code: str, match: str, extra: str = "") -> Any:
        path = tmp_path / f"{code}.md"
        path.write_text(
            f'+++\ncode = "{code}"\nname = "{code.lower()}"\nseverity = "error"\nsource = "x"\n'
            f"message = 'x'\n{extra}\n[match]\n{match}\n+++\n## What it does\n\nx\n"
        )
        return read_rule(path)

    plain, lower = rule("AA200", "p = 0.5"), rule("AA100", "p = 0.5")
    longer = rule("AA300", "p = 0.5\ninside = false")
    preferred = rule("AA400", "p = 0.5", "precedence = 1")
    facts = surveyed(Block(0.5))
    for rules, winner in (
        ((plain, lower), "AA100"),
        ((plain, lower, longer), "AA300"),
        ((plain, lower, longer, preferred), "AA400"),
        ((plain, replace(preferred, severity="warning")), "AA200"),
    ):
        assert [finding.rule.code for finding in RuleSet(rules).match(facts)] == [winner]


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (
            {"weights_between": 1, "delta_low": 0.6, "delta_high": 0.85, "basis": "trained-estimate"},
            "through 1 weight layer; Δ = 0.73 (0.60–0.85)",
        ),
        (
            {"weights_between": 2, "delta_low": 0.7, "delta_high": 0.96, "basis": "trained-estimate"},
            "through 2 weight layers; Δ = 0.73 (0.70–0.96), may be harmless",
        ),
        ({"weights_between": 2, "basis": "checkpoint"}, "through 2 weight layers; Δ = 0.73"),
    ],
)
def test_a_headline_says_how_sure_its_delta_is(known: dict[str, Any], words: str) -> None:
    rule = load_rules().get("DL102")
    message = render_message(rule, Facts(delta=0.73, **known), 0.95, norm_name="bn", norm_kind="BatchNorm2d")
    assert message.endswith(f"BatchNorm2d bn {words}")
