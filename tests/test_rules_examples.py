"""Each rule file's examples, built and linted: the bad one gives exactly that rule, the better one none."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.prediction import predict
from dropout_lint.rules import SECTIONS, Rule, load_rules
from dropout_lint.survey.surveyor import survey
from dropout_lint.trace import trace

RULES = load_rules()
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CASES = [pytest.param(rule, id=rule.code) for rule in RULES]


def code_block(rule: Rule, section: str) -> str:
    blocks = BLOCK.findall(rule.sections[section])
    assert len(blocks) == 1, f"{rule.code}: {section} needs exactly one Python block"
    return str(blocks[0])


def build(code: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The last module class of an example, built, and the example's inputs."""
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example.py", "exec"), names)
    classes = [item for item in names.values() if isinstance(item, type) and issubclass(item, nn.Module)]
    return classes[-1](), names["example_inputs"]


def codes_in(code: str, rule: Rule) -> set[str]:
    model, inputs = build(code)
    recorded = trace(model, Inputs(args=inputs))
    assert not recorded.partial
    selected = [other.code for other in RULES if other.severity != "off"] + [rule.code]
    findings = RULES.match(survey(recorded, predict(recorded)), select=selected)
    return {finding.rule.code for finding in findings}


@pytest.mark.parametrize("rule", CASES)
def test_the_bad_example_triggers_exactly_this_rule(rule: Rule) -> None:
    assert codes_in(code_block(rule, "Example"), rule) == {rule.code}


@pytest.mark.parametrize("rule", CASES)
def test_the_better_version_is_clean(rule: Rule) -> None:
    assert codes_in(code_block(rule, "Use instead"), rule) == set()


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_file_has_every_section(rule: Rule) -> None:
    assert tuple(rule.sections) == SECTIONS
    assert all(rule.sections.values())


@pytest.mark.parametrize("rule", CASES)
def test_examples_run_forwards_and_backwards(rule: Rule) -> None:
    for section in ("Example", "Use instead"):
        model, inputs = build(code_block(rule, section))
        output = model.train()(*inputs)
        assert output.shape == (len(inputs[0]), 10)
        if rule.code != "DL404":  # overwriting what the backward pass needs is part of that fault
            output.sum().backward()
