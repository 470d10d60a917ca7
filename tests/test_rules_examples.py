"""Each rule file's examples, built and linted: the bad one gives exactly that rule, the better one none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_project import ROOT, cli

from dropout_lint.rules import SECTIONS, Rule, load_rules
from dropout_lint.runs.examples import build, check_examples, code_block

RULES = load_rules()
CASES = [pytest.param(rule, id=rule.code) for rule in RULES]


@pytest.mark.parametrize("rule", CASES)
def test_the_bad_example_triggers_exactly_this_rule_and_the_better_one_none(rule: Rule) -> None:
    checked = list(check_examples(RULES, [rule]))
    assert [(item.section, item.problem) for item in checked] == [("Example", ""), ("Use instead", "")]


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


def test_a_projects_own_rule_files_are_tested(tmp_path: Path) -> None:
    text = (ROOT / "rules" / "DL101-dropout-before-batch-norm.md").read_text(encoding="utf-8")
    text = text.replace('code = "DL101"', 'code = "OWN101"').replace(
        'name = "dropout-before-batch-norm"', 'name = "our-rule"\nprecedence = 9'
    )
    (tmp_path / "lint").mkdir()
    (tmp_path / "lint" / "OWN101-our-rule.md").write_text(text)
    done = cli("rule", "--test", "lint/OWN101-our-rule.md", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "OWN101 Example: ok\nOWN101 Use instead: ok\n"), done.stderr
    (tmp_path / "pyproject.toml").write_text('[tool.dropout-lint]\nrules = ["lint"]\n')
    tame = re.sub(r"nn\.Dropout\([\d.]+\)", "nn.Dropout(0.0)", text)
    (tmp_path / "lint" / "OWN101-our-rule.md").write_text(tame)
    done = cli("rule", "--test", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "OWN101 Example: nothing is found in it, and it should be OWN101" in done.stdout
    (tmp_path / "pyproject.toml").write_text("[tool.dropout-lint]\n")
    empty = cli("rule", "--test", cwd=tmp_path)
    assert empty.returncode == 2 and "there is no rule to test" in empty.stderr
