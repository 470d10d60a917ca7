"""`dropout-lint` as the command line runs it, for the benchmarks."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dropout_lint.api  # noqa: F401 - what each fork would import
from dropout_lint import cli

FORK: Any = multiprocessing.get_context("fork")  # not on Windows


class Said(NamedTuple):
    """What a command has written, and its exit status."""

    status: int
    out: str
    err: str


def run(folder: Path, *words: str, limit: float | None = None) -> Said:
    """`dropout-lint` with these words, in a folder: a fork, since each start anew would import torch anew.

    What takes longer than `limit` seconds is stopped: its status is negative.
    """
    with tempfile.TemporaryDirectory() as kept:
        out, err = Path(kept, "out"), Path(kept, "err")
        process = FORK.Process(target=_command, args=(folder, words, out, err))
        process.start()
        process.join(limit)
        process.kill()
        process.join()
        return Said(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def _command(folder: Path, words: Sequence[str], out: Path, err: Path) -> None:
    sys.stdout, sys.stderr = out.open("w", encoding="utf-8"), err.open("w", encoding="utf-8")
    os.chdir(folder)
    sys.exit(cli.run(words))
