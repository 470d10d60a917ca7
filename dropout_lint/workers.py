"""Lints many targets in processes of their own: one that crashes or hangs does not take the others along.

A worker reads one request a line from stdin and answers one line; what the user's code prints goes to stderr.
Workers import torch once and are renewed when they have grown, so memory stays bounded.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from dropout_lint.config import Settings
from dropout_lint.pipeline import failure
from dropout_lint.report.convert import error_info
from dropout_lint.report.outcome import Outcome

# resident size above which a worker is renewed before its next target
MOST_MEMORY = 3 * 2**30
SERVE = "from dropout_lint.workers import serve; serve()"


class Request(msgspec.Struct, frozen=True):
    """One target to lint; without a `cache_dir` the result is not kept."""

    target: str
    settings: Settings
    cache_dir: str | None = None
    written: frozenset[str] = frozenset()


class Answer(msgspec.Struct, frozen=True):
    """What came of it; `memory` is the worker's highest resident size in bytes."""

    outcomes: list[Outcome]
    memory: int = 0


class Stopped(Exception):
    """The run was interrupted; nobody waits for results any more."""


def lint_all(requests: Sequence[Request], jobs: int, timeout: float | None) -> list[list[Outcome]]:
    """Lint in `jobs` processes.

    Args:
        timeout: seconds that one target may take, from being handed to a worker whose torch is loaded.

    Returns:
        The outcomes of each request, in the order of the requests.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(requests)):
        waiting.put(index)
    results: list[list[Outcome]] = [[] for _ in requests]
    stop = threading.Event()
    workers: list[Worker] = []

    def work() -> None:
        with Worker(stop) as worker:
            workers.append(worker)
            while not stop.is_set():
                try:
                    index = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    results[index] = worker.lint(requests[index], timeout)
                except Stopped:
                    return
                except Exception as problem:  # a worker that cannot be started, an answer that cannot be read
                    worker.end()
                    results[index] = [failure(requests[index].target, problem)]

    def guarded() -> None:
        try:
            work()
        finally:
            done.put(None)

    # An interrupted `Thread.join` may call a thread finished that is not, so the threads say so themselves.
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    amount = min(jobs, len(requests))
    for _ in range(amount):
        threading.Thread(target=guarded, daemon=True).start()
    try:
        for _ in range(amount):
            done.get()
    except BaseException:
        stop.set()
        for worker in workers:
            worker.end()
        raise
    return results


class Worker:
    """One process, started when it is needed and again after it died."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *problem: object) -> None:
        self.end()

    def start(self) -> subprocess.Popen[bytes]:
        """The process, after it said that it is ready."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            )
            self.read(None)
        return self.process

    def lint(self, request: Request, timeout: float | None) -> list[Outcome]:
        """Lint one target; a crash and a time-out are outcomes of status `error`."""
        process = self.start()
        try:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            process.stdin.flush()
            line = self.read(timeout)
        except TimeoutError:
            self.end()
            text = f"took longer than {timeout:g} s"
            return [
                Outcome(info=error_info(request.target, text, "raise --timeout, or name a smaller model"))
            ]
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            status = process.wait()
            self.end()
            how = signal_name(-status) if status < 0 else f"exit status {status}"
            text = f"the process that linted it died ({how})"
            return [Outcome(info=error_info(request.target, text, "lint it alone to see what it does"))]
        answer = msgspec.json.decode(line, type=Answer)
        if answer.memory > MOST_MEMORY:
            self.end()
        return answer.outcomes

    def read(self, timeout: float | None) -> bytes:
        """One line of the worker's answer, or what came before it died.

        Raises:
            TimeoutError: nothing came in time.
            Stopped: the run was interrupted.
        """
        assert self.process is not None and self.process.stdout is not None
        number = self.process.stdout.fileno()
        deadline = None if timeout is None else time.monotonic() + timeout
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(number, selectors.EVENT_READ)
            while not data.endswith(b"\n"):
                if self.stop.is_set():
                    raise Stopped
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError
                if selector.select(0.1):
                    part = os.read(number, 1 << 20)
                    if not part:
                        break
                    data += part
        return data

    def end(self) -> None:
        """Kill the process with all that it started."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def signal_name(number: int) -> str:
    """`SIGSEGV`, or the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def serve() -> None:
    """The worker's side: answer requests until stdin ends."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        from dropout_lint.target import own_process

        own_process()
        import torch

        # loaded now, so that the first target's time is its own
        import dropout_lint.noise
        import dropout_lint.survey
        import dropout_lint.target
        import dropout_lint.trace  # noqa: F401

        torch.set_num_threads(1)
        answers.write(b"ready\n")
        answers.flush()
        for line in sys.stdin.buffer:
            answer(msgspec.json.decode(line, type=Request), answers)


def answer(request: Request, answers: IO[bytes]) -> None:
    """Lint one target and write what came of it."""
    from dropout_lint.cache import Cache
    from dropout_lint.pipeline import Lint, lint_target, rules_of

    lint: Lint = lint_target
    if request.cache_dir is not None:
        lint = Cache(Path(request.cache_dir), request.written).wrap(lint_target)
    try:
        outcomes = lint(request.target, request.settings, rules_of(request.settings))
    except Exception as problem:
        outcomes = [failure(request.target, problem)]
    answers.write(msgspec.json.encode(Answer(outcomes, memory())) + b"\n")
    answers.flush()


def memory() -> int:
    """Highest resident size of this process in bytes, 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
