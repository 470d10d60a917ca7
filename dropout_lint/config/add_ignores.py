"""`--add-ignores`: write an ignore comment on the line of every finding."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dropout_lint.config.ignores import places, with_ignore
from dropout_lint.report.schema import Report


def add_ignores(report: Report) -> tuple[dict[str, list[int]], list[str]]:
    """Write the comments.

    Only files at or below the current directory are touched, never an installed package. Each file is
    replaced at once, and only where its code is the same as before.

    Returns:
        For each changed file the lines that got a comment, and one sentence for each finding that got none.
    """
    wanted: dict[tuple[str, int], set[str]] = {}
    skipped = []
    for target in report.targets:
        for finding in target.findings:
            own = [place for place in places(finding) if is_ours(place.file)]
            name = finding.dropout.name if finding.dropout else finding.norm.name if finding.norm else ""
            if not own:
                skipped.append(
                    f"{finding.code} at {name or target.target}: no line of this project to write on"
                )
                continue
            wanted.setdefault((own[0].file, own[0].line), set()).add(finding.code)
    written: dict[str, list[int]] = {}
    for (file, line), codes in sorted(wanted.items()):
        path = Path(file)
        with path.open(encoding="utf-8", newline="") as stream:
            text = stream.read()
        changed = with_ignore(text, line, sorted(codes))
        if changed is None:
            skipped.append(f"{file}:{line}: no comment can stand on this line; write it by hand")
        elif changed != text:
            replace(path, changed)
            written.setdefault(file, []).append(line)
    return written, skipped


def is_ours(file: str) -> bool:
    """Whether a file lies below the current directory and in no environment or installed package."""
    path = Path(file)
    if path.is_absolute() or not path.is_file():
        return False
    return not {"site-packages", "dist-packages", ".venv", "venv"} & set(path.parts)


def replace(path: Path, text: str) -> None:
    """Put `text` in the place of a file at once, its permissions kept."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)
    Path(partial).chmod(path.stat().st_mode & 0o777)
    Path(partial).replace(path)
