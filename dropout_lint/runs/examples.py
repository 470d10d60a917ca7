"""The examples of rule files, built and linted: the bad one gives its rule alone, the better one nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dropout_lint.analysis import Options, analyse, judge_program
from dropout_lint.deployed import read_program
from dropout_lint.errors import DropoutLintError, RuleError
from dropout_lint.guard.arguments import as_graph
from dropout_lint.rules import Rule, RuleSet

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Checked:
    """One example of one rule.

    Attributes:
        rule: the rule.
        section: `Example` or `Use instead`.
        problem: what is wrong with it; "" where it does what it should.
    """

    rule: Rule
    section: str
    problem: str = ""


def check_examples(rules: RuleSet, wanted: list[Rule]) -> Iterator[Checked]:
    """Check both examples of each of the `wanted` rules, among all `rules` that are on."""
    for rule in wanted:
        for section, expected in (("Example", {rule.code}), ("Use instead", set[str]())):
            try:
                found = codes_in(code_block(rule, section), rule, rules)
            except DropoutLintError as error:
                yield Checked(rule, section, error.message)
            except Exception as error:  # the example is the user's code
                yield Checked(rule, section, f"it does not build: {type(error).__name__}: {error}")
            else:
                yield Checked(rule, section, "" if found == expected else _told(found, expected))


def code_block(rule: Rule, section: str) -> str:
    """The Python block of a section.

    Raises:
        RuleError: it has none, or several.
    """
    blocks = BLOCK.findall(rule.sections.get(section, ""))
    if len(blocks) != 1:
        raise RuleError(f"{rule.path}: {section} holds {len(blocks)} Python blocks, and one is built")
    return str(blocks[0])


def build(code: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The last module class of an example, built, and the example's inputs.

    Raises:
        RuleError: the example has no module class, or no `example_inputs`.
    """
    return _built(_run(code))


def _built(names: Mapping[str, Any]) -> tuple[nn.Module, tuple[Any, ...]]:
    classes = [item for item in names.values() if isinstance(item, type) and issubclass(item, nn.Module)]
    if not classes or "example_inputs" not in names:
        raise RuleError("an example defines a subclass of nn.Module and `example_inputs`")
    return classes[-1](), names["example_inputs"]


def _run(code: str) -> dict[str, Any]:
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example.py", "exec"), names)
    return names


def codes_in(code: str, rule: Rule, rules: RuleSet) -> set[str]:
    """The codes of what is found in an example, by all rules that are on and by `rule`.

    An example with a `program` is judged by that, not by its module.
    """
    selected = [other.code for other in rules if other.severity != "off"] + [rule.code]
    options = Options(rules=rules, select=tuple(selected))
    names = _run(code)
    program = as_graph(names.get("program"))
    if program is not None:
        return {found.rule.code for found in judge_program(read_program(program), options)}
    model, inputs = _built(names)
    analysis = analyse(model, inputs, options)
    if analysis.trace.partial:
        raise RuleError("the example could only partly be traced")
    return {finding.rule.code for finding in analysis.findings}


def _told(found: set[str], expected: set[str]) -> str:
    names = ", ".join(sorted(found)) or "nothing"
    return f"{names} is found in it, and it should be {', '.join(sorted(expected)) or 'nothing'}"
