"""The settings' work, one function for each kind, in this process or in several."""

from __future__ import annotations

import functools
import json
import multiprocessing
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch

from . import shares
from .judged import Judged, judge
from .sets import chosen
from .settings import Setting
from .truth import prepare

T = TypeVar("T")
S = TypeVar("S")


def in_order(work: Callable[[T], S], tasks: Sequence[T], jobs: int) -> Iterator[S]:
    """`work` on every task, in the tasks' order, `jobs` at a time."""
    if jobs == 1:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, tasks)


@functools.cache
def _settings(name: str) -> dict[str, Setting]:
    return {setting.key: setting for setting in chosen(name)}


@functools.cache
def code() -> str:
    """Hash of the package's committed source; "" where files differ from it, or there is no git."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return "" if git("status", "--porcelain", "dropout_lint") else git("rev-parse", "HEAD:dropout_lint")[:10]


def judged_rows(task: tuple[str, str], cache: Path) -> list[Judged]:
    """The rows of one setting, named by set and key: builders cannot be sent to a process.

    The cache keeps them for the same source of the package.
    """
    name, key = task
    torch.set_num_threads(1)
    file = cache / folder(name) / key / f"judged-{code()}.json"
    if code() and file.exists():
        return [Judged(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    rows = list(judge(_settings(name)[key], cache / folder(name)))
    if code():
        part = file.with_suffix(".part")
        part.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
        part.replace(file)  # whole, or not there
    return rows


def trained(task: tuple[str, str], cache: Path, removed: bool) -> str:
    """Train and measure one setting, with `removed` also without each dropout; its key."""
    name, key = task
    setting = _settings(name)[key]
    if removed:
        shares.removals(setting, cache / folder(name))
    prepare(setting, cache / folder(name))
    return key


def share_verdicts(task: tuple[str, str, list[Judged]], cache: Path) -> list[shares.Verdict]:
    """The verdicts on one setting's shares."""
    name, key, rows = task
    return shares.verdicts(_settings(name)[key], rows, cache / folder(name))


def folder(name: str) -> str:
    """Where a set lies in the cache; the twelve are of the tuning networks."""
    return "heldout" if name == "heldout" else "tuning"
