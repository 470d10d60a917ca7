"""One question about one model, answered in a process of its own, in the scratch project."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import msgspec

from dropout_lint.config import Settings
from dropout_lint.loading.resolving import resolve
from dropout_lint.runs.check import rules_of
from dropout_lint.runs.linting import analyse_built, options_of

from ..third_party.measured import measure
from ..third_party.models import entries
from ..third_party.packages import importable

NAME = "lint_target:build"
TARGET = '''"""The model that is linted and fixed here."""

from pathlib import Path

from benchmarks.fixes_third_party.child import made


def build():
    return made({key!r}, Path({packages!r}))
'''


def made(key: str, packages: Path) -> tuple[Any, Any]:
    """The model with one batch of its data."""
    importable(packages)
    entry = entries()[key]
    return entry.linted(entry.made()), entry.data()[0]


def linted() -> tuple[dict[str, float | None], list[tuple[str, str]]]:
    """Δ at every norm, unrounded, and what is found at warning or above, as `check` would have it."""
    settings = Settings()
    (built,) = resolve(NAME)
    analysis = analyse_built(built, options_of(settings, rules_of(settings)))
    deltas = {shift.norm: shift.delta for shift in analysis.prediction.norms}
    found = [
        ("the model" if item.dropout is None else item.dropout.name, item.rule.code)
        for item in analysis.findings
        if item.severity in ("warning", "error")
    ]
    return deltas, found


def main(question: str, key: str, packages: str, output: str) -> None:
    """Write the answer to `output` as JSON: `measure` gives Δ by brute force, `lint` what a lint finds."""
    warnings.filterwarnings("ignore")
    importable(Path(packages))
    answer: Any = measure(entries()[key]) if question == "measure" else linted()
    Path(output).write_bytes(msgspec.json.encode(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
