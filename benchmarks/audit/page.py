"""The page of the audit."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dropout_lint.terms import worst_first
from dropout_lint.words import severity_of_shift

from ..remedy_tables import table
from .linted import Linted

NOTES = Path(__file__).with_name("notes.md")


HEAD = """# An audit of public models

Every torchvision model, the smallest model of every timm family, and {transformers} models of transformers
with the configuration that their class has by itself, linted by `dropout-lint check` with no input given: as
shipped, and with rates that papers train with where a model takes them (torchvision: DenseNet's 0.2, ViT's
0.1; timm: `drop_rate` 0.2 as of DenseNet and EfficientNet, `drop_path_rate` 0.1 as of DeiT and ConvNeXt-T).
{versions}. Δ is what is expected of the trained network, from shapes alone.

Made by `python -m benchmarks.audit`, of whose {asked} lints {lints} stand here.
"""


def report(rows: Sequence[Linted], asked: int) -> str:
    """The page as Markdown."""
    packages = dict.fromkeys(("torch", *(row.package for row in rows)))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    count = len({row.name for row in rows if row.package == "transformers"})
    loud = [row for row in rows if row.loud]
    quiet = [row for row in rows if row.findings and not row.loud]
    trouble = [f"- `{row.name}`: {row.trouble}" for row in rows if row.trouble]
    notes = NOTES.read_text(encoding="utf-8").rstrip() if NOTES.exists() else ""
    return (
        "\n\n".join(
            part
            for part in (
                HEAD.format(transformers=count, versions=versions, lints=len(rows), asked=asked).rstrip(),
                "## How many",
                counts(rows),
                notes,
                "## Models with errors or warnings",
                table(("model", "rates", "findings", "worst Δ", "first at"), map(_cells, loud)),
                "## Models with nothing but remarks (info)",
                table(("model", "rates", "findings", "worst Δ", "first at"), map(_cells, quiet)),
                "## No answer" if trouble else "",
                "\n".join(trouble),
            )
            if part
        )
        + "\n"
    )


def counts(rows: Sequence[Linted]) -> str:
    """A line for each package, as shipped and with rates."""
    lines = []
    for package in dict.fromkeys(row.package for row in rows):
        for shipped in (True, False):
            chosen = [
                row for row in rows if row.package == package and (row.rates == "as shipped") == shipped
            ]
            if chosen:
                lines.append(_count(package, "as shipped" if shipped else "with rates", chosen))
    header = ("package", "rates", "models", "with batch norm and dropout before it", "with errors",
              "with warnings, no errors", "worst Δ below 0.95", "partly traced", "no answer")  # fmt: skip
    return table(header, lines)


def _count(package: str, rates: str, rows: Sequence[Linted]) -> tuple[object, ...]:
    errors = [row for row in rows if any(found.severity == "error" for found in row.findings)]
    warned = [row for row in rows if row.loud and row not in errors]
    low = sum(row.worst is not None and row.worst < 0.95 for row in rows)
    reached = sum(row.worst is not None for row in rows)
    partial, trouble = (sum(row.status == status for row in rows) for status in ("partial", "error"))
    return package, rates, len(rows), reached, len(errors), len(warned), low, partial, trouble


def _cells(row: Linted) -> tuple[str, ...]:
    chosen = row.loud or row.findings
    codes = Counter(found.code for found in chosen)
    shift = "–" if row.worst is None else f"{row.worst:.2f} {severity_of_shift(row.worst)}"
    first = min(chosen, key=lambda found: worst_first(found.delta))
    found = ", ".join(f"{number} {code}" for code, number in sorted(codes.items()))
    return f"`{short(row)}`", row.rates, found, shift, first.where


def short(row: Linted) -> str:
    """A model's own name."""
    if row.package == "timm":
        return row.name.split('"')[1]
    return row.name.partition(":")[2].partition("(")[0]
