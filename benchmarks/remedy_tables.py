"""What the benchmarks of the remedies share: where results go, and what they were made with."""

from __future__ import annotations

import platform
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def made_with(device: str = "cpu") -> str:
    """The command and the versions, as the last lines of every result."""
    command = " ".join(["python", *map(shlex.quote, [str(Path(sys.argv[0]).name), *sys.argv[1:]])])
    where = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    return (
        f"Made by `{command.replace('python ', 'python benchmarks/', 1)}` with Python "
        f"{platform.python_version()}, torch {torch.__version__} on {where}, "
        f"{torch.get_num_threads()} thread(s)."
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join([' --- ', *[' ---: '] * (len(header) - 1)])}|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


def difference(values: Sequence[float], base: Sequence[float], digits: int = 2) -> str:
    """Mean of the paired differences ± its standard error."""
    pairs = [a - b for a, b in zip(values, base, strict=True)]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0
    return f"{statistics.fmean(pairs):+.{digits}f} ± {error:.{digits}f}"


def save(name: str, text: str) -> None:
    """Write one result and say where it is."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / name
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(text)
    print(f"\nwritten to {path.relative_to(Path(__file__).parents[1])}")
