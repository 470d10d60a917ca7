"""`# dropout-lint: ignore[DL101] reason`: find such comments, apply them, write them, name the unused.

A rule is named by its code, a prefix of codes, or its name, in either case. What looks like such a comment
and is none (`disable[DL101]`), or names no rule (`ignore[]`, `ignore[DL999]`), is reported as the unused are.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import msgspec

from dropout_lint.report.schema import FindingInfo, IgnoreInfo, Place, SuppressedInfo, TargetInfo

COMMENT = re.compile(
    r"#\s*dropout-lint\s*:\s*ignore\b(?:\[(?P<codes>[^\]#]*)\])?(?P<reason>[^#]*)", re.IGNORECASE
)
# other tools' words for it; any other word counts only with brackets, so that prose is let be
SLIP = re.compile(
    r"#\s*dropout-lint\s*:\s*(?P<word>(?:disable|noqa|skip|off|suppress|allow|ignored|ignores)\b|[\w-]+(?=\s*\[))",
    re.IGNORECASE,
)
EVERY = "ALL"
NAMES_NONE = "`ignore[]` names no rule and suppresses nothing: name one, or write `ignore` alone for all"


@dataclass(frozen=True)
class Ignore:
    """One ignore comment.

    Attributes:
        line, column: where the comment begins, from 1.
        codes: rule codes, prefixes or names in capitals, `ALL` where it has no brackets.
        reason: the text behind the brackets.
    """

    line: int
    column: int
    codes: tuple[str, ...]
    reason: str

    def matching(self, code: str, name: str) -> str | None:
        """The entry of `codes` that covers the rule `code` called `name`, or None."""
        return next((own for own in self.codes if own in (EVERY, name.upper()) or code.startswith(own)), None)


@dataclass(frozen=True)
class Commented:
    """The ignore comments of one file, and what is needed to place them.

    Attributes:
        ignores: by the line they stand on.
        slips: comments that are none for their first word: line, column and that word.
        ends: first line of a call → the lines on which calls that begin there end.
        spans: first and last line of each outermost function or class.
    """

    ignores: dict[int, Ignore] = field(default_factory=dict)
    ends: dict[int, frozenset[int]] = field(default_factory=dict)
    spans: tuple[tuple[int, int], ...] = ()
    slips: tuple[tuple[int, int, str], ...] = ()

    def at(self, line: int) -> list[Ignore]:
        """The comments that speak of the call beginning on `line`: on it, or where the call closes."""
        lines = [line, *sorted(self.ends.get(line, ()))]
        return [self.ignores[number] for number in dict.fromkeys(lines) if number in self.ignores]

    def scope(self, line: int) -> tuple[int, int]:
        """The outermost function or class that holds `line`, else the whole file."""
        return next(((first, last) for first, last in self.spans if first <= line <= last), (1, 1 << 30))

    def concerns(self, line: int, seen: set[int]) -> bool:
        """Whether a comment on `line` speaks of code of which some line was seen."""
        first, last = self.scope(line)
        return any(first <= number <= last for number in seen)


def read(file: str) -> Commented:
    """The comments of a file; none where it cannot be read or is no Python."""
    try:
        path = Path(file)
        return _read(file, path.stat().st_mtime_ns)
    except (OSError, ValueError, SyntaxError):
        return Commented()


def encoding_of(file: str | Path) -> str:
    """The encoding of a Python file, by its byte order mark (no part of the text then) or its declaration.

    Raises:
        OSError: the file cannot be read.
        SyntaxError: it declares an encoding that there is not.
    """
    with Path(file).open("rb") as stream:
        return tokenize.detect_encoding(stream.readline)[0]


@lru_cache(maxsize=256)
def _read(file: str, changed: int) -> Commented:
    text = Path(file).read_text(encoding=encoding_of(file), errors="replace")
    if "dropout-lint" not in text.lower():
        return Commented()
    return parse(text)


def parse(text: str) -> Commented:
    """The ignore comments of a source text; a comment inside a string is none."""
    ignores = {}
    slips = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type != tokenize.COMMENT:
                continue
            line, column = token.start
            if match := COMMENT.search(token.string):
                named = EVERY if match["codes"] is None else match["codes"]
                codes = tuple(code.strip().upper() for code in named.split(",") if code.strip())
                ignores[line] = Ignore(line, column + 1, codes, match["reason"].strip(" \t:-–—"))
            elif match := SLIP.search(token.string):
                slips.append((line, column + 1, match["word"]))
        tree = ast.parse(text)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return Commented()
    ends: dict[int, set[int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.end_lineno not in (None, node.lineno):
            ends.setdefault(node.lineno, set()).add(node.end_lineno)
    spans = tuple(
        (node.lineno, node.end_lineno or node.lineno)
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    )
    return Commented(ignores, {line: frozenset(lines) for line, lines in ends.items()}, spans, tuple(slips))


def places(finding: FindingInfo) -> list[Place]:
    """The lines on which an ignore suppresses a finding: construction and call of the dropout."""
    if finding.dropout is None:
        return []
    return [place for place in (finding.dropout.call, finding.dropout.location) if place is not None]


def apply(target: TargetInfo) -> tuple[TargetInfo, set[tuple[str, int, str]]]:
    """Take the suppressed findings of a target aside.

    Returns:
        The target, and what was used: file, line of the comment, the entry of its codes.
    """
    used: set[tuple[str, int, str]] = set()
    kept: list[FindingInfo] = []
    aside: list[SuppressedInfo] = list(target.suppressed)
    for finding in target.findings:
        hits = [
            (place.file, ignore, entry)
            for place in places(finding)
            for ignore in read(place.file).at(place.line)
            if (entry := ignore.matching(finding.code, finding.name))
        ]
        if hits:
            used.update((file, ignore.line, entry) for file, ignore, entry in hits)
            aside.append(SuppressedInfo(by="source", finding=finding, reason=hits[0][1].reason))
        else:
            kept.append(finding)
    return msgspec.structs.replace(target, findings=kept, suppressed=aside), used


def unused(
    visited: Iterable[Place],
    used: set[tuple[str, int, str]],
    active: Sequence[str],
    words: Mapping[str, str] | None = None,
) -> list[IgnoreInfo]:
    """The ignore comments that suppress nothing.

    Args:
        visited: places that the run saw (where modules were made and called): a comment counts as unused
            only where its function or class was seen, so that one model of a file says nothing of the others.
        used: what `apply` used, over all targets of the run.
        active: the codes of the rules that ran; an ignore of another rule is left alone.
        words: codes and names of all rules, in capitals, each with its code; what names none of them
            suppresses nothing, whatever ran.

    Returns:
        One entry for the idle codes of a comment, one for those that name no rule, and one for each slip.
    """
    lines: dict[str, set[int]] = {}
    for place in visited:
        lines.setdefault(place.file, set()).add(place.line)
    found: list[IgnoreInfo] = []
    for file, seen in sorted(lines.items()):
        commented = read(file)
        for ignore in commented.ignores.values():
            if commented.concerns(ignore.line, seen):
                found += idle_in(ignore, file, used, active, words)
        for line, column, word in commented.slips:
            if commented.concerns(line, seen):
                why = f"`dropout-lint: {word}` suppresses nothing: write ignore[DL101], with the rule's code"
                found.append(IgnoreInfo(place=Place(file=file, line=line, column=column), codes=[], why=why))
    return found


def idle_in(
    ignore: Ignore,
    file: str,
    used: set[tuple[str, int, str]],
    active: Sequence[str],
    words: Mapping[str, str] | None,
) -> list[IgnoreInfo]:
    """What of one comment suppresses nothing: all of it, codes that are no rule's, codes that are idle."""
    place = Place(file=file, line=ignore.line, column=ignore.column)
    if not ignore.codes:
        return [IgnoreInfo(place=place, codes=[], why=NAMES_NONE)]
    known = words or {code: code for code in active}
    idle, unknown = [], []
    for code in ignore.codes:
        if (file, ignore.line, code) in used:
            continue
        meant = rules_named(code, known)
        if code == EVERY or meant & set(active):
            idle.append(code)
        elif words is not None and not meant:
            unknown.append(code)
    found = [IgnoreInfo(place=place, codes=idle)] if idle else []
    if unknown:
        found.append(IgnoreInfo(place=place, codes=unknown, why=f"there is no rule {' or '.join(unknown)}"))
    return found


def rules_named(entry: str, words: Mapping[str, str]) -> set[str]:
    """The codes that an entry of a comment means: by code, prefix or name."""
    return {
        code for word, code in words.items() if word == entry or (word == code and code.startswith(entry))
    }


def with_ignore(text: str, line: int, codes: Sequence[str]) -> str | None:
    """`text` with an ignore of `codes` on `line` (merged into one that is there).

    Returns None where no comment can stand: the line ends inside a string or with a backslash.
    """
    lines = text.splitlines(keepends=True)
    if not 1 <= line <= len(lines):
        return None
    body = lines[line - 1].rstrip("\r\n")
    end = lines[line - 1][len(body) :]
    present = parse(text).ignores.get(line)
    if present:
        if EVERY in present.codes:
            return text
        merged = list(dict.fromkeys([*present.codes, *codes]))
        start = present.column - 1
        comment = COMMENT.sub(
            lambda match: match[0].replace(f"[{match['codes']}]", f"[{', '.join(merged)}]", 1),
            body[start:],
            count=1,
        )
        body = body[:start] + comment
    else:
        body = f"{body.rstrip()}  # dropout-lint: ignore[{', '.join(codes)}]"
    lines[line - 1] = body + end
    changed = "".join(lines)
    try:
        same = ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text))
    except SyntaxError:
        return None
    return changed if same and line in parse(changed).ignores else None
