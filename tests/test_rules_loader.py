"""Rule files are read strictly: every error names the file, the key and what would be allowed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dropout_lint.errors import RuleError
from dropout_lint.rules import RuleSet, builtin_folder, load_rules, read_rule
from dropout_lint.rules.conditions import COMPARISONS, fact_types

GOOD = """+++
code = "ACME101"
name = "no-heavy-dropout"
severity = "warning"
source = "Acme's handbook"
message = "{kind} drops {p:.0%}"

[match]
p = { at_least = 0.6 }
+++

## What it does

Finds heavy dropout.
"""

TABLE = {
    "DL101": ("dropout-before-batch-norm", "error"),
    "DL102": ("dropout-before-weight-and-batch-norm", "error"),
    "DL103": ("high-drop-ratio-before-batch-norm", "warning"),
    "DL104": ("drop-path-before-batch-norm", "warning"),
    "DL201": ("dropout-on-block-output", "error"),
    "DL202": ("dropout-before-last-norm-of-branch", "warning"),
    "DL203": ("dropout-after-last-weight-of-branch", "info"),
    "DL204": ("several-dropouts-in-branch", "warning"),
    "DL301": ("dropout-after-global-pooling", "info"),
    "DL302": ("dropout-on-predictions", "error"),
    "DL303": ("dropout-before-head-norm", "warning"),
    "DL401": ("dropout-active-in-eval", "error"),
    "DL402": ("dropout-never-active", "warning"),
    "DL403": ("degenerate-drop-ratio", "error"),
    "DL404": ("in-place-dropout-on-shared-tensor", "error"),
    "DL405": ("channel-dropout-on-wrong-rank", "warning"),
    "DL406": ("dropout-never-called", "info"),
    "DL407": ("mask-of-another-mean", "warning"),
    "DL408": ("dropout-on-in-program", "warning"),
    "DL409": ("norm-in-other-mode-than-dropout", "warning"),
    "DL501": ("stale-batch-norm-statistics", "warning"),
    "DL502": ("initialisation-ignores-dropout", "off"),
    "DL503": ("norm-forgets-at-once", "info"),
    "DL504": ("checkpointed-norm-updates-twice", "info"),
}


@pytest.fixture
def write(tmp_path: Path) -> Path:
    """A rule file that is as it should be."""
    path = tmp_path / "ACME101-no-heavy-dropout.md"
    path.write_text(GOOD)
    return path


def test_the_rules_that_come_with_the_tool() -> None:
    assert {rule.code: (rule.name, rule.severity) for rule in load_rules()} == TABLE
    assert all(Path(rule.path).name == f"{rule.code}-{rule.name}.md" for rule in load_rules())


def test_a_projects_own_rules_join_them(write: Path) -> None:
    (write.parent / "README.md").write_text("no rule")
    for entry in (write, write.parent, str(write)):
        rules = load_rules([entry])
        assert [rule.code for rule in rules if rule.code not in TABLE] == ["ACME101"]
    assert rules.get("no-heavy-dropout").match == {"p": {"at_least": 0.6}}


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("p = {", "pp = {", 'match.pp: there is no fact "pp"', 'Did you mean "p"?'),
        ("p = { at_least = 0.6 }", "positon = 'P3'", 'there is no fact "positon"', '"position"'),
        ("at_least", "atleast", 'no comparison "atleast"', 'Did you mean "at_least"?'),
        ("at_least = 0.6", 'at_least = "much"', "'much' is not a number", "shortfall"),
        ("p = { at_least = 0.6 }", "p = true", "match.p.is: True is not a number", "a number"),
        ("p = { at_least = 0.6 }", 'norm = "sync_batch"', '"sync_batch" is no value of norm', "sync-batch"),
        ("p = { at_least = 0.6 }", "norm = { below = 1 }", "norm is no number", "any_of"),
        ("p = { at_least = 0.6 }", "weights_between = 0.5", "0.5 is not a whole number", "whole"),
        (
            "p = { at_least = 0.6 }",
            "weights_between = { below = 'threshold' }",
            "not a whole number",
            "whole",
        ),
        ("p = { at_least = 0.6 }", "functional = 'yes'", "'yes' is not true or false", "true or false"),
        ("p = { at_least = 0.6 }", "norm = { known = 1 }", "1 is not true or false", "known = true"),
        ("p = { at_least = 0.6 }", "norm = { any_of = 'batch' }", "'batch' is not a list", "list"),
        ("p = { at_least = 0.6 }", "norm = []", "an empty list", "list"),
        ("p = { at_least = 0.6 }", "p = {}", "match.p: an empty table", "Comparisons"),
        ("p = { at_least = 0.6 }", "", "match: empty", "Name"),
        ('"warning"', '"warn"', 'severity: "warn" is not allowed', 'Did you mean "warning"?'),
        ('"warning"', "3", "severity: 3 is not a string", "string"),
        ("severity", "severty", "severty: there is no such key", 'Did you mean "severity"?'),
        ('source = "Acme\'s handbook"\n', "", "source: missing", "source"),
        ("ACME101", "acme101", 'code: "acme101" is no code', "ACME101"),
        ("no-heavy-dropout", "No Heavy", 'name: "No Heavy" is no name', "hyphens"),
        ("{kind} drops", "{knd} drops", 'message: there is no fact "knd"', 'Did you mean "kind"?'),
        ("{kind} drops", "{kind drops", "message:", "braces"),
        ("+++\ncode", "code", "no front matter", "+++"),
        ("severity =", "severity", "front matter is not TOML", "rules/"),
        (
            'severity = "warning"',
            'severity = "warning"\nmild = "info"',
            "mild: 'info' is not a table",
            "table",
        ),
        (
            'severity = "warning"',
            'severity = "warning"\nmild = { delta = 0.8 }',
            "mild: it needs severity",
            "delta = 0.8",
        ),
        (
            'severity = "warning"',
            'severity = "warning"\nmild = { severity = "off", delta = 0.8 }',
            'mild: "off" is no severity',
            "error, warning, info",
        ),
        (
            'severity = "warning"',
            'severity = "warning"\nmild = { severity = "info", delta = 2 }',
            "mild: delta: 2 is not between 0 and 1",
            "delta = 0.8",
        ),
        ("## What it does", "# What it does", "What it does", "sentence"),
        ("[match]", "fix = 'mend'\n[match]", 'fix: "mend" is not allowed', "move"),
    ],
)
def test_a_malformed_rule_says_what_is_wrong(
    write: Path, old: str, new: str, message: str, hint: str
) -> None:
    assert old in GOOD
    write.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(RuleError) as caught:
        read_rule(write)
    assert str(write) in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint is not None and hint in caught.value.hint


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="no such rule file"):
        load_rules([tmp_path / "lint"])


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ACME101-x.md"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RuleError, match="cannot be read"):
        read_rule(path)


@pytest.mark.parametrize(
    ("old", "new"), [("ACME101", "DL101"), ("no-heavy-dropout", "dropout-on-predictions")]
)
def test_codes_and_names_are_used_once(write: Path, old: str, new: str) -> None:
    write.write_text(GOOD.replace(old, new))
    with pytest.raises(RuleError, match="as well"):
        load_rules([write])


def codes(rules: RuleSet, select: list[str] | None, ignore: list[str]) -> list[str]:
    return [rule.code for rule in rules.selected(select, ignore)]


def test_selection() -> None:
    rules = load_rules()
    everything = [code for code in TABLE if code != "DL502"]
    assert codes(rules, None, []) == codes(rules, ["ALL"], []) == everything
    assert codes(rules, ["DL3"], []) == ["DL301", "DL302", "DL303"]
    assert codes(rules, ["DL5"], []) == ["DL501", "DL503", "DL504"]
    assert codes(rules, ["dl101", "dropout-on-predictions"], []) == ["DL101", "DL302"]
    assert codes(rules, ["DL502"], []) == ["DL502"]
    assert codes(rules, ["DL1"], ["DL10", "DL101"]) == []
    assert codes(rules, None, ["DL2", "DL502"]) == [code for code in everything if code[:3] != "DL2"]


@pytest.mark.parametrize("word", ["DL999", "DLL", "dropout-on-prediction", ""])
def test_an_unknown_code_is_an_error(word: str) -> None:
    for select, ignore in (([word], []), (None, [word])):
        with pytest.raises(RuleError) as caught:
            load_rules().selected(select, ignore)
        assert f'no rule "{word}"' in caught.value.message
    if word == "dropout-on-prediction":
        assert "dropout-on-predictions" in str(caught.value.hint)


def test_reading_rules_imports_no_torch() -> None:
    program = (
        "import sys; from dropout_lint.rules import load_rules;"
        "load_rules().get('DL101'); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_guide_for_authors_names_every_fact_and_comparison() -> None:
    text = (builtin_folder() / "README.md").read_text(encoding="utf-8")
    for name in fact_types():
        assert f"| `{name}` |" in text
    for word in COMPARISONS:
        assert re.search(rf"\b{word} = ", text)


def test_a_folder_without_rule_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Our rules\n")
    with pytest.raises(RuleError, match="no rule files in this folder") as caught:
        load_rules([tmp_path])
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint
