"""What the shell offers where a rule is named."""

from __future__ import annotations

from dropout_lint.rules import load_rules


def complete(incomplete: str) -> list[str]:
    """The codes and names that begin so, for the shell."""
    words = [word for rule in load_rules() for word in (rule.code, rule.name)]
    return [word for word in words if word.lower().startswith(incomplete.lower())]
