"""Survey and rules against the tables of known truths, which were worked out by hand from the papers."""

from __future__ import annotations

import ast
import importlib
from typing import Any

import pytest
from torch import nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import predict
from dropout_lint.rules import Finding, load_rules
from dropout_lint.rules.findings import SEVERITIES
from dropout_lint.survey.placements import Placement, Survey
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import DropoutSite, Trace, trace
from fixtures.truths import ANY, TRUTHS, ModelTruth, Truth

pytestmark = pytest.mark.filterwarnings(
    "ignore:dropout[12]d.*:UserWarning", "ignore:Lazy modules:UserWarning"
)
RULES = load_rules()


def build(target: str) -> tuple[nn.Module, Any]:
    name, _, attribute = target.partition(":")
    module = importlib.import_module(name)
    call = ast.parse(attribute, mode="eval").body
    if isinstance(call, ast.Name):
        return getattr(module, call.id)(), module.example_inputs
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    return getattr(module, call.func.id)(**given), module.example_inputs


def calls_of(recorded: Trace) -> dict[str, list[DropoutSite]]:
    """Dropout calls by the name that the tables use, in the order of the data."""
    calls: dict[str, list[DropoutSite]] = {}
    for site in recorded.dropouts:
        name = site.name.partition("@")[0] + "@" if site.functional else site.name
        calls.setdefault(name, []).append(site)
    return calls


def nearest(surveyed: Survey, site: DropoutSite) -> Placement:
    return next(placement for placement in surveyed.placements if placement.dropout is site)


def severest(findings: list[Finding]) -> str | None:
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return ordered[0].rule.code if ordered else None


def check(row: Truth, entry: ModelTruth, surveyed: Survey, findings: tuple[Finding, ...]) -> None:
    if row.unused:
        assert row.dropout in [unused.name for unused in surveyed.unused]
        return
    calls = calls_of(surveyed.trace)
    site = calls[row.dropout][row.call]
    placement = nearest(surveyed, site)
    if row.position != ANY:
        assert placement.facts.position == row.position
    assert (placement.norm.name if placement.norm else None) == row.norm
    assert placement.facts.weights_between == row.weights
    assert placement.facts.adds_between == row.adds
    code = severest([finding for finding in findings if finding.dropout is site])
    if ANY not in row.codes:
        assert code in row.codes, f"{entry.target} {row.dropout}: {code}"


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.target) for entry in TRUTHS])
def test_every_dropout_is_placed_and_judged_right(entry: ModelTruth) -> None:
    model, inputs = build(entry.target)
    recorded = trace(model, Inputs(args=inputs if isinstance(inputs, tuple) else (inputs,)))
    listed = {(row.dropout, row.call) for row in entry.dropouts if not row.unused}
    found = {(name, call) for name, sites in calls_of(recorded).items() for call in range(len(sites))}
    assert found == listed
    # with the weights' values where there are any, and from shapes alone as the command line does it
    for prediction in (predict(recorded), predict(recorded, basis="initialisation")):
        surveyed = survey(recorded, prediction)
        findings = RULES.match(surveyed)
        for row in entry.dropouts:
            check(row, entry, surveyed, findings)
