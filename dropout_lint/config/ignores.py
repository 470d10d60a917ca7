"""`# dropout-lint: ignore[DL101] reason`: find such comments, apply them, write them, name the unused.

A rule is named by its code, a prefix of codes, or its name, in either case.
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
    r"#\s*dropout-lint\s*:\s*ignore(?:\[(?P<codes>[^\]#]*)\])?(?P<reason>[^#]*)", re.IGNORECASE
)
EVERY = "ALL"


@dataclass(frozen=True)
class Ignore:
    """One ignore comment.

    Attributes:
        line, column: where the comment begins, from 1.
        codes: rule codes, prefixes or names in capitals, `ALL` where it names none.
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
        ends: first line of a call → the lines on which calls that begin there end.
        spans: first and last line of each outermost function or class.
    """

    ignores: dict[int, Ignore] = field(default_factory=dict)
    ends: dict[int, frozenset[int]] = field(default_factory=dict)
    spans: tuple[tuple[int, int], ...] = ()

    def at(self, line: int) -> list[Ignore]:
        """The comments that speak of the call beginning on `line`: on it, or where the call closes."""
        lines = [line, *sorted(self.ends.get(line, ()))]
        return [self.ignores[number] for number in dict.fromkeys(lines) if number in self.ignores]

    def scope(self, line: int) -> tuple[int, int]:
        """The outermost function or class that holds `line`, else the whole file."""
        return next(((first, last) for first, last in self.spans if first <= line <= last), (1, 1 << 30))


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
    if "dropout-lint" not in text:
        return Commented()
    return parse(text)


def parse(text: str) -> Commented:
    """The ignore comments of a source text; a comment inside a string is none."""
    ignores = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            match = COMMENT.search(token.string) if token.type == tokenize.COMMENT else None
            if match:
                codes = tuple(
                    code.strip().upper() for code in (match["codes"] or EVERY).split(",") if code.strip()
                )
                line, column = token.start
                ignores[line] = Ignore(line, column + 1, codes or (EVERY,), match["reason"].strip(" \t:-–—"))
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
    return Commented(ignores, {line: frozenset(lines) for line, lines in ends.items()}, spans)


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
    """
    known = words or {code: code for code in active}
    lines: dict[str, set[int]] = {}
    for place in visited:
        lines.setdefault(place.file, set()).add(place.line)
    found = []
    for file, seen in sorted(lines.items()):
        commented = read(file)
        for ignore in commented.ignores.values():
            first, last = commented.scope(ignore.line)
            if not any(first <= line <= last for line in seen):
                continue
            idle = [
                code
                for code in ignore.codes
                if (file, ignore.line, code) not in used
                and (
                    code == EVERY
                    or (meant := rules_named(code, known)) & set(active)
                    or (words is not None and not meant)
                )
            ]
            if idle:
                found.append(
                    IgnoreInfo(place=Place(file=file, line=ignore.line, column=ignore.column), codes=idle)
                )
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
