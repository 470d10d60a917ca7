"""Golden files of source fixes: what a file is before a fix, and what it has to be after it.

`tests/golden/fixes/NAME.before.py` is fixed and must become `NAME.after.py`; where that is missing, the fix
has to refuse. `NAME.diff` is the diff of a model of `fixtures/`. Comments at the top say what is expected:

    # target: build()          what of the file is fixed; Net without it
    # strategy: move           as `--strategy`; auto without it
    # beta: 0.3                as `--beta`
    # left: words              why a dropout is left, one line for each reason
    # note: words              what is noted, one line for each note

    python tests/golden_fixes.py [NAME ...]

writes the after files and diffs anew, and prints what is noted and left. Read them before you commit.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dropout_lint.analysis import Analysis, analyse_trace
from dropout_lint.fixes.plan.info import plan
from dropout_lint.fixes.source.engine import SourceFix, draft_source, fix_source
from dropout_lint.loading.resolving import resolve
from dropout_lint.trace import trace

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "golden" / "fixes"
BEFORE, AFTER, DIFF = ".before.py", ".after.py", ".diff"


def fix(target: str, **options: Any) -> SourceFix:
    """The source fix of a target, as the command line makes it."""
    (built,) = resolve(target)
    traced = trace(built.model, built.inputs, constructed=built.constructed)
    return fix_source(built, analyse_trace(traced), **options)


@dataclass(frozen=True)
class Case:
    """One golden file.

    Attributes:
        name: its name without the endings.
        text: the file before the fix, or the diff of a fixture.
        golden: the file that holds what has to come out.
        header: the comment lines at its top.
    """

    name: str
    text: str
    golden: Path
    header: tuple[str, ...]

    def said(self, key: str) -> list[str]:
        """What the header says under a key."""
        start = f"# {key}: "
        return [line.removeprefix(start) for line in self.header if line.startswith(start)]

    @property
    def target(self) -> str:
        """What is fixed: the name in the file, or the whole target of a fixture."""
        return next(iter(self.said("target")), "Net")

    @property
    def options(self) -> dict[str, Any]:
        """The options of the fix."""
        options: dict[str, Any] = {key: value for key in ("strategy",) for value in self.said(key)}
        return options | {key: float(value) for key in ("beta",) for value in self.said(key)}

    @property
    def left(self) -> list[str]:
        """Why dropouts have to be left."""
        return self.said("left")

    @property
    def notes(self) -> list[str]:
        """What the fix has to note."""
        return self.said("note")

    def fix(self, text: str | None = None) -> SourceFix:
        """The fix of the file, or of another `text` of it; nothing is written."""
        if self.golden.suffix == DIFF:
            with contextlib.chdir(ROOT):
                return fix(self.target, **self.options)
        text = self.text if text is None else text
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{self.name}.py"
            file.write_text(text)
            result = fix(f"{file}:{self.target}", **self.options)
            assert file.read_text() == text, "nothing may be written before write()"
            assert [path.name for path in file.parent.glob("*.py")] == [file.name]
        return replace(result, notes=tuple(note.replace(f"{folder}/", "") for note in result.notes))

    @contextlib.contextmanager
    def analysed(self) -> Iterator[Analysis]:
        """The file, or fixture, as it is linted."""
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(ROOT):
            target = self.target
            if self.golden.suffix != DIFF:
                file = Path(folder) / f"{self.name}.py"
                file.write_text(self.text)
                target = f"{file}:{target}"
            (built,) = resolve(target)
            yield analyse_trace(trace(built.model, built.inputs, constructed=built.constructed))

    def promised(self) -> set[tuple[str | None, str]]:
        """What `check` says that `dropout-lint fix` will do: dropouts and titles."""
        with self.analysed() as analysis:
            promises = plan(analysis, least="info", source=draft_source)
        by_source = [item for item in analysis.findings if promises[id(item)].by == "dropout-lint fix"]
        return {(item.dropout and item.dropout.name, promises[id(item)].title) for item in by_source}

    def outcome(self, result: SourceFix) -> str:
        """What the golden file has to be."""
        if self.golden.suffix == DIFF:
            return "".join(f"{line}\n" for line in self.header) + result.diff
        (change,) = result.changes
        return change.after


def cases() -> Iterator[Case]:
    """All golden files."""
    for file in sorted([*FOLDER.glob(f"*{BEFORE}"), *FOLDER.glob(f"*{DIFF}")]):
        text = file.read_text()
        header = tuple(itertools.takewhile(lambda line: line.startswith("# "), text.splitlines()))
        name = file.name.removesuffix(BEFORE).removesuffix(DIFF)
        golden = file if file.suffix == DIFF else file.with_name(name + AFTER)
        yield Case(name, text, golden, header)


CASES = {case.name: case for case in cases()}


@functools.cache
def fixed(name: str) -> SourceFix:
    """The fix of a golden file, made once."""
    return CASES[name].fix()


def lines(diff: str, sign: str) -> list[str]:
    """The lines of a diff that start with a sign, without blanks."""
    return [
        line[1:].strip()
        for line in diff.splitlines()
        if line.startswith(sign) and not line.startswith(sign * 3) and line[1:].strip()
    ]


def main() -> None:
    """Write golden files anew."""
    unknown = set(sys.argv[1:]) - set(CASES)
    if unknown:
        sys.exit(
            f"no golden file is named {', '.join(sorted(unknown))}; they lie in {FOLDER.relative_to(ROOT)}"
        )
    for name in sys.argv[1:] or CASES:
        case, result = CASES[name], fixed(name)
        for note in result.notes if result.changes else ():
            print(f"{name}: note: {note}")
        for reason in dict.fromkeys(item.reason for item in result.skipped):
            print(f"{name}: left: {reason}")
        if not result.changes:
            case.golden.unlink(missing_ok=True)
            print(f"{name}: refused")
            continue
        old = case.golden.read_text() if case.golden.exists() else ""
        new = case.outcome(result)
        case.golden.write_text(new)
        print(f"{name}: {'as it was' if new == old else 'written'}")


if __name__ == "__main__":
    main()
