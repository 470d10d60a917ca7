"""Places in the user's source: which line a finding points at, and what stands there."""

from __future__ import annotations

import ast
import linecache
import re
from dataclasses import dataclass
from pathlib import Path

from dropout_lint.config.installed import short
from dropout_lint.config.load import display
from dropout_lint.loading.parse import FILES, PROGRAMS
from dropout_lint.loading.roots import roots
from dropout_lint.report.schema import FindingInfo, Place


def primary(finding: FindingInfo) -> Place | None:
    """The line to show: the dropout's own call, else its construction, else the call of what holds it."""
    dropout = finding.dropout
    if dropout is None:
        return None
    if dropout.call is None or (dropout.location is not None and not dropout.call_is_own):
        return dropout.location
    return dropout.call


def secondary(finding: FindingInfo) -> tuple[Place, str] | None:
    """The other line of a dropout, with what happens there (`built`, `called`); None where it is the same."""
    dropout, shown = finding.dropout, primary(finding)
    if dropout is None or shown is None:
        return None
    other, word = (dropout.location, "built") if shown is dropout.call else (dropout.call, "called")
    if other is None or (other.file, other.line) == (shown.file, shown.line):
        return None
    return other, word


def home(target: str) -> Place | None:
    """The top of the file that a target names, for what has no line; None where it is not one of these."""
    name = target.partition("(")[0]
    name = name.rpartition(":")[0] or name
    module = name.endswith(PROGRAMS) and name != target  # `pkg.pt:attr`
    file = Path(name) if name.endswith(FILES) and not module else Path(*name.split("."))
    for folder in (Path(), *roots()):
        for found in (folder / file, folder / file.with_suffix(".py"), folder / file / "__init__.py"):
            if found.is_file():
                return Place(file=display(found), line=1)
    return None


def spot(place: Place | None) -> str:
    """`file:line:column`, "" for no place."""
    return f"{plain_spot(place)}:{place.column}" if place else ""


def plain_spot(place: Place) -> str:
    """`file:line`."""
    return f"{short(place.file)}:{place.line}"


@dataclass(frozen=True)
class Frame:
    """A few lines of source around a place.

    Attributes:
        first: number of the first line.
        lines: the lines, without their ends.
        line: number of the line that is meant.
        start, end: columns (from 0) of what is underlined in it.
    """

    first: int
    lines: tuple[str, ...]
    line: int
    start: int
    end: int


def frame(place: Place, name: str | None, context: int = 2) -> Frame | None:
    """The lines around `place`, with the call of the dropout `name` underlined; None if the file is gone."""
    lines = source(place.file)
    if not 1 <= place.line <= len(lines):
        return None
    text = lines[place.line - 1]
    if not text.strip():
        return None
    first = max(1, place.line - context)
    last = min(len(lines), place.line + context)
    while last > place.line and not lines[last - 1].strip():
        last -= 1
    while first < place.line and not lines[first - 1].strip():
        first += 1
    start, end = underline(text, place.column, name)
    shown = tuple(line.replace("\t", " ") for line in lines[first - 1 : last])
    return Frame(first, shown, place.line, start, end)


def span(place: Place, name: str | None) -> tuple[int, int] | None:
    """The columns (from 1, in characters, the last excluded) of what is meant; None if the file is gone."""
    shown = frame(place, name)
    return None if shown is None else (shown.start + 1, shown.end + 1)


def source(file: str) -> list[str]:
    """The lines of a source file, none where it cannot be read."""
    path = Path(file)
    if not path.is_file():
        return []
    linecache.checkcache(str(path))
    return [line.rstrip("\r\n") for line in linecache.getlines(str(path))]


def underline(text: str, column: int, name: str | None) -> tuple[int, int]:
    """Columns (from 0) of the call in `text`: at `column`, else by the dropout's name, else all of it."""
    indent = len(text) - len(text.lstrip())
    whole = (indent, len(text.rstrip().partition("  #")[0].rstrip()) or len(text.rstrip()))
    if column > 1:
        start = len(text.encode()[: column - 1].decode(errors="ignore"))
        if start < len(text):
            return start, call_end(text, start) or whole[1]
    last = (name or "").partition("@")[0].rpartition(".")[2]
    for pattern in (
        rf"[\w.]*\b{re.escape(last)}\s*\(" if last.isidentifier() else None,
        r"[\w.]*drop\w*\s*\(",
    ):
        match = re.search(pattern, text, re.IGNORECASE) if pattern else None
        if match:
            return match.start(), call_end(text, match.start()) or whole[1]
    return whole


def call_end(text: str, start: int) -> int | None:
    """Where the call that begins at `start` ends on this line, None if it does not."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] in "([{":
            depth += 1
        elif text[index] in ")]}":
            depth -= 1
            if depth == 0 and text[index] == "]" and text[index + 1 : index + 2] in ("(", "["):
                continue  # `layers[0](x)` is called further on
            if depth == 0:
                candidate = text[start : index + 1]
                try:
                    ast.parse(candidate.strip(), mode="eval")
                except SyntaxError:
                    return None
                return index + 1
            if depth < 0:
                return index
    return None
