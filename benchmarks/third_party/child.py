"""One model in a process of its own: measured, or read from the cache, then linted."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import msgspec
import torch

import dropout_lint as dl

from .entry import Entry
from .judged import Row, judged
from .measured import Measured, measure
from .models import entries
from .packages import HEAVY, PACKAGES, importable

PATIENCE = 10
"""A process that waits, or that a busy machine does not let run, may take this many times its limit."""


def fingerprint(entry: Entry) -> str:
    """Changes whenever what is measured, or how, may have changed."""
    here = Path(__file__).parent
    room = entry.batch.__module__ if entry.build.__module__.endswith("entry") else entry.build.__module__
    files = [
        here / f"{room.rsplit('.', 1)[1]}.py",
        *(here / f"{name}.py" for name in ("measured", "data", "entry")),
    ]
    text = "".join(file.read_text(encoding="utf-8") for file in files) + " ".join(PACKAGES)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def known(key: str, entry: Entry, cache: Path) -> list[Measured]:
    """Measured Δ at every norm, from the cache where it lies there."""
    file = cache / f"{key.replace('/', '--')}-{fingerprint(entry)}.json"
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=list[Measured])
    found = measure(entry)
    part = file.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(found))
    part.replace(file)  # whole, or not there
    return found


def row_of(key: str, entry: Entry, cache: Path) -> Row:
    """Measure and lint one model."""
    measured = known(key, entry, cache)
    model, data = entry.linted(entry.made()), entry.data()[0]
    start = time.process_time()
    try:
        report = dl.lint(model, data)
    except Exception as error:  # every way to fail is a row
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        refused = isinstance(error, dl.DropoutLintError)
        return Row(
            key,
            trouble=said if refused else f"{said} ({Path(where.filename).name}:{where.lineno})",
            refused=refused,
        )
    seconds = time.process_time() - start
    target = json.loads(report.to_json())["targets"][0]
    return Row(
        key,
        tuple(judged(measured, target, {name for name, _ in model.named_modules()})),
        status=target["status"],
        opaque=tuple(target["trace"]["opaque"]),
        findings=Counter(finding.code for finding in report.findings),
        notes=tuple(target.get("notes", ())),
        seconds=round(seconds, 2),
    )


def write(row: Row, output: Path) -> None:
    """Write a row: whole, or not there."""
    part = output.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(row))
    part.replace(output)


def one(key: str, cache: Path, output: Path, log: Path, limit: int) -> None:
    """Write the model's row to `output` as JSON, and what its code prints to `log`."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 10))
    with log.open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    write(row_of(key, entries()[key], cache), output)


def all_of(
    package: str, keys: Sequence[str], folder: Path, *, packages: Path, cache: Path, limit: int
) -> None:
    """The rows of one package, as files in `folder` named by their turn.

    The package is imported once; each model has a fork of this process to itself.
    """
    importable(packages)
    with (
        (folder / "import.txt").open("w", encoding="utf-8") as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        import_module(HEAVY.get(package, "torch"))
    for turn, key in enumerate(keys):
        output, log = folder / f"{turn}.json", folder / f"{turn}.txt"
        process = multiprocessing.get_context("fork").Process(
            target=one, args=(key, cache, output, log, limit)
        )
        process.start()
        process.join(limit * PATIENCE)
        if process.is_alive() or process.exitcode == -signal.SIGXCPU:
            process.kill()
            write(Row(key, trouble=f"not done after {limit} s of processor time"), output)
        elif not output.exists():
            said = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
            last = (said or f"exit status {process.exitcode}").splitlines()[-1]
            write(Row(key, trouble=f"not measured: {last}"), output)
