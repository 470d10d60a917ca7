"""Rules: Markdown files whose `match` tables are compared with the survey's facts."""

from dropout_lint.rules.findings import Finding, Rule
from dropout_lint.rules.loader import SECTIONS, builtin_folder, load_rules, read_rule
from dropout_lint.rules.ruleset import DEFAULT_THRESHOLD, RuleSet, distinct, render_message

__all__ = [
    "DEFAULT_THRESHOLD",
    "SECTIONS",
    "Finding",
    "Rule",
    "RuleSet",
    "builtin_folder",
    "distinct",
    "load_rules",
    "read_rule",
    "render_message",
]
