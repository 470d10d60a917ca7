"""The worker's side of `processes`: it answers requests, with torch imported once for all of them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch

from dropout_lint.fixes.source.prover import shared
from dropout_lint.loading.folder import Passed, python_files
from dropout_lint.loading.importing import shown
from dropout_lint.report.outcome import Outcome
from dropout_lint.runs.cache import Cache
from dropout_lint.runs.check import Lint, rules_of
from dropout_lint.runs.edits import with_edits
from dropout_lint.runs.failures import failure
from dropout_lint.runs.linting import lint_target
from dropout_lint.runs.measure import validated
from dropout_lint.runs.processes import Answer, Request


def serve() -> None:
    """The worker's side: answer requests until stdin ends."""
    # who asked may be gone
    with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        torch.set_num_threads(1)
        answers.write(b"ready\n")
        answers.flush()
        for line in sys.stdin.buffer:
            for answer in answers_to(msgspec.json.decode(line, type=Request)):
                answers.write(msgspec.json.encode(answer) + b"\n")
                answers.flush()


def answers_to(request: Request) -> Iterator[Answer]:
    """What came of a lint; each model that was found, with its edits or measured; the files of a folder."""
    if request.task == "list":
        yield Answer(files=[shown(file) for file in python_files(Path(request.target), Passed())])
        return
    for outcomes in _outcomes(request):
        yield Answer(outcomes, memory=memory())


def _outcomes(request: Request) -> Iterator[list[Outcome]]:
    if request.task == "lint":
        yield lint(request)
        return
    rules = rules_of(request.settings)
    if request.task == "measure":
        torch.set_num_threads(request.threads)
        for info in request.found:
            yield [Outcome(info=validated(info, request.settings, rules))]
        return
    shared().scratch = request.scratch
    for info in request.found:
        yield [Outcome(info=with_edits(info, request.settings, rules))]


def lint(request: Request) -> list[Outcome]:
    """Lint one target, or take what is known of it from the cache."""
    way: Lint = lint_target
    if request.cache_dir is not None:
        way = Cache(Path(request.cache_dir), request.written).wrap(lint_target)
    try:
        return way(request.target, request.settings, rules_of(request.settings))
    except Exception as problem:
        return [failure(request.target, problem)]


def memory() -> int:
    """Highest resident size of this process in bytes, 0 where the system does not say.

    Linux's `ru_maxrss` begins with what the process that started this one held; /proc tells its own.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
