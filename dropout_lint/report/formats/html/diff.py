"""Before and after of a fix: the lines that its edits take out and put in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dropout_lint.report.locations import source
from dropout_lint.report.schema import EditInfo

CONTEXT = 2


@dataclass(frozen=True)
class DiffLine:
    """One line; `kind` is `out`, `in`, `same` or `file` (a heading)."""

    kind: str
    number: str
    text: str


def diff_of(edits: Iterable[EditInfo]) -> list[DiffLine]:
    """The edits with a little of what surrounds them; a file that is gone shows its new lines alone."""
    shown: list[DiffLine] = []
    file, told = "", 0
    for edit in sorted(edits, key=lambda edit: (edit.file, edit.first)):
        lines = source(edit.file)
        if edit.file != file:
            shown.append(DiffLine("file", "", edit.file))
            file, told = edit.file, 0
        start = max(told, edit.first - 1 - CONTEXT)
        shown += [
            DiffLine("same", str(at + 1), lines[at]) for at in range(start, min(edit.first - 1, len(lines)))
        ]
        old, new = lines[edit.first - 1 : edit.last], edit.text.splitlines()
        kept = 0  # an insertion takes the line before it along
        while kept < min(len(old), len(new)) and old[kept] == new[kept]:
            shown.append(DiffLine("same", str(edit.first + kept), old[kept]))
            kept += 1
        shown += [
            DiffLine("out", str(edit.first + index), line) for index, line in enumerate(old) if index >= kept
        ]
        shown += [DiffLine("in", "", line) for line in new[kept:]]
        told = edit.last
    return shown
