"""Reads rule files: TOML front matter between `+++` lines, then Markdown sections. Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from dropout_lint.errors import RuleError
from dropout_lint.rules.conditions import Malformed, compile_match, suggestion
from dropout_lint.rules.findings import RULE_SEVERITIES, Mild, Rule
from dropout_lint.rules.ruleset import MESSAGE_EXTRAS, RuleSet, named_in
from dropout_lint.survey.facts import Facts
from dropout_lint.terms import REMEDIES, SEVERITIES

SECTIONS = (
    "What it does",
    "Why it hurts",
    "Example",
    "Use instead",
    "Fix safety",
    "When to ignore it",
    "References",
)
REQUIRED: Mapping[str, type] = {
    "code": str,
    "name": str,
    "severity": str,
    "source": str,
    "message": str,
    "match": dict,
}
OPTIONAL: Mapping[str, type] = {"fix": str, "report": str, "precedence": int, "mild": dict}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "severity": RULE_SEVERITIES,
    "fix": REMEDIES,
    "report": ("once", "always"),
}
CODE = re.compile(r"[A-Z]{2,10}[0-9]{3,4}")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
WORDS = {str: "a string", dict: "a table", int: "a whole number"}


def builtin_folder() -> Path:
    """The folder of the rules that come with the tool: in the wheel, or `rules/` of a checkout."""
    packaged = Path(__file__).parent / "builtin"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "rules"


def load_rules(extra: Iterable[str | Path] = ()) -> RuleSet:
    """The rules that come with the tool, and those of a project.

    Args:
        extra: rule files, or folders of them (every `*.md` but `README.md`).

    Raises:
        RuleError: a file is missing or malformed (it names file, key and what is allowed), a folder holds
            none, or a code or a name is used twice.
    """
    rules = list(_builtin())
    for entry in extra:
        files = _files(Path(entry))
        if not files:
            raise RuleError(
                f"{entry}: no rule files in this folder",
                "A rule is a Markdown file (*.md, but not README.md) directly in it.",
            )
        rules.extend(read_rule(path) for path in files)
    for key in ("code", "name"):
        seen: dict[str, Rule] = {}
        for rule in rules:
            word = getattr(rule, key)
            if word in seen:
                raise RuleError(
                    f'{rule.path}: {key}: "{word}" is the {key} of {seen[word].path} as well',
                    f"Give one of the two rules another {key}.",
                )
            seen[word] = rule
    return RuleSet(tuple(sorted(rules, key=lambda rule: rule.code)))


def own_files(rules: RuleSet) -> list[str]:
    """The files of the rules that a project has beside those that come with the tool."""
    known = {rule.path for rule in _builtin()}
    return [rule.path for rule in rules if rule.path not in known]


@cache
def _builtin() -> tuple[Rule, ...]:
    folder = builtin_folder()
    rules = tuple(read_rule(path) for path in _files(folder))
    if not rules:
        raise RuleError(f"{folder}: no rules here", "Reinstall dropout-lint.")
    return rules


def _files(entry: Path) -> list[Path]:
    if entry.is_dir():
        return sorted(path for path in entry.glob("*.md") if path.name.lower() != "readme.md")
    if entry.is_file():
        return [entry]
    raise RuleError(f"{entry}: no such rule file or folder", "Correct the path that `rules` names.")


def read_rule(path: Path) -> Rule:
    """One rule file.

    Raises:
        RuleError: naming the file, the key and what would be allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(f"{path}: cannot be read: {error}", "A rule is a UTF-8 Markdown file.") from error
    head, body = _split(path, text)
    try:
        front = tomllib.loads(head)
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"{path}: front matter is not TOML: {error}", "See any file in rules/.") from error
    _check_keys(path, front)
    _check_message(path, front["message"])
    try:
        compile_match(front["match"])
    except Malformed as error:
        raise RuleError(f"{path}: {error.message}", error.hint) from error
    sections = _sections(body)
    if not sections.get("What it does"):
        raise RuleError(f"{path}: no section '## What it does'", "Say in a sentence what the rule finds.")
    return Rule(
        code=front["code"],
        name=front["name"],
        severity=front["severity"],
        fix=front.get("fix"),
        source=front["source"],
        match=front["match"],
        message=front["message"],
        sections=sections,
        path=str(path),
        report=front.get("report", "once"),
        precedence=front.get("precedence", 0),
        mild=_mild(path, front["mild"]) if "mild" in front else None,
    )


def _mild(path: Path, table: Mapping[str, Any]) -> Mild:
    example = 'Write mild = { severity = "warning", delta = 0.8 }.'
    if set(table) != {"severity", "delta"}:
        raise RuleError(f"{path}: mild: it needs severity and delta, and nothing else", example)
    severity, delta = table["severity"], table["delta"]
    if severity not in SEVERITIES:
        raise RuleError(
            f'{path}: mild: "{severity}" is no severity', f"It is one of {', '.join(SEVERITIES)}."
        )
    if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 0 < delta < 1:
        raise RuleError(f"{path}: mild: delta: {delta!r} is not between 0 and 1", example)
    return Mild(severity, float(delta))


def _split(path: Path, text: str) -> tuple[str, str]:
    parts = re.split(r"^\+\+\+\s*$", text, maxsplit=2, flags=re.MULTILINE)
    if len(parts) != 3 or parts[0].strip():
        raise RuleError(
            f"{path}: no front matter", "A rule starts with TOML between two lines of +++, then Markdown."
        )
    return parts[1], parts[2]


def _check_keys(path: Path, front: Mapping[str, Any]) -> None:
    known = {**REQUIRED, **OPTIONAL}
    for key, value in front.items():
        if key not in known:
            hint = suggestion(key, list(known)) + "The keys are: " + ", ".join(known) + "."
            raise RuleError(f"{path}: {key}: there is no such key", hint)
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise RuleError(
                f"{path}: {key}: {value!r} is not {WORDS[known[key]]}", f"Write {WORDS[known[key]]}."
            )
        choices = CHOICES.get(key)
        if choices is not None and value not in choices:
            hint = suggestion(str(value), choices) + f"{key} takes " + ", ".join(choices) + "."
            raise RuleError(f'{path}: {key}: "{value}" is not allowed', hint)
    for key in REQUIRED:
        if key not in front:
            raise RuleError(f"{path}: {key}: missing", f"A rule needs {', '.join(REQUIRED)}.")
    if not CODE.fullmatch(front["code"]):
        raise RuleError(
            f'{path}: code: "{front["code"]}" is no code', "Write capitals and a number, such as ACME101."
        )
    if not NAME.fullmatch(front["name"]):
        raise RuleError(f'{path}: name: "{front["name"]}" is no name', "Write lower-case-words-with-hyphens.")
    if not front["match"]:
        raise RuleError(
            f"{path}: match: empty, so that it would name every dropout", "Name at least one fact."
        )


def _check_message(path: Path, message: str) -> None:
    allowed = [*(field.name for field in fields(Facts)), *MESSAGE_EXTRAS]
    try:
        names = named_in(message)
    except ValueError as error:
        raise RuleError(f"{path}: message: {error}", "Write facts in braces: {delta:.2f}.") from error
    for name in names:
        if name not in allowed:
            hint = suggestion(name, allowed) + "A message may name: " + ", ".join(allowed) + "."
            raise RuleError(f'{path}: message: there is no fact "{name}"', hint)


def _sections(body: str) -> dict[str, str]:
    """Text by second-level heading; headings inside code blocks are text."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    fenced = False
    for line in body.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if line.startswith("## ") and not fenced:
            current = sections.setdefault(line[3:].strip(), [])
        else:
            current.append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in sections.items()}
