"""Every rule that names a fix: its own example is fixed, in the graph and in source, by one call each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dropout_lint.analysis import analyse_trace
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.source.engine import fix_source
from dropout_lint.loading.resolving import resolve
from dropout_lint.rules import Rule, load_rules
from dropout_lint.terms import Strategy
from dropout_lint.trace import trace

FIXABLE = [rule for rule in load_rules() if rule.fix is not None and rule.severity != "off"]


def example(rule: Rule) -> str:
    match = re.search(r"```python\n(.*?)```", rule.sections["Example"], re.DOTALL)
    assert match is not None
    return match[1]


def strategy_for(rule: Rule) -> Strategy:
    """What `auto` does only where it is worth it, and a ratio below half of it, has to be asked for."""
    return "reduce" if rule.fix == "reduce" else "move" if rule.severity == "info" else "auto"


@pytest.mark.parametrize("rule", FIXABLE, ids=lambda rule: rule.code)
def test_the_example_of_a_rule_is_fixed(rule: Rule, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(example(rule))
    (built,) = resolve(str(file))
    before = trace(built.model, built.inputs, constructed=built.constructed)
    findings = analyse_trace(before).findings
    assert rule.code in {finding.rule.code for finding in findings}
    fixed = fix_graph(analyse_trace(before), findings, strategy=strategy_for(rule))
    assert fixed.applied and not fixed.skipped
    assert not analyse_trace(trace(fixed.model, before.inputs)).findings


@pytest.mark.slow
@pytest.mark.parametrize("rule", FIXABLE, ids=lambda rule: rule.code)
def test_the_example_of_a_rule_is_fixed_in_source(rule: Rule, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(example(rule))
    (built,) = resolve(str(file))
    before = trace(built.model, built.inputs, constructed=built.constructed)
    result = fix_source(built, analyse_trace(before), strategy=strategy_for(rule))
    if rule.code == "DL104":  # the blocks are given their ratios, and what a caller gives is not capped
        assert not result.changes
        assert {item.reason for item in result.skipped} == {"its ratio is `rate`, which is yours to lower"}
        assert all("hand it a ratio of at most 0." in item.advice for item in result.skipped)
        return
    assert result.changes and not result.skipped
