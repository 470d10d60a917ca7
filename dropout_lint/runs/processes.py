"""Lints, fixes and measures in processes of their own: a target that crashes or hangs takes no other along.

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
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from dropout_lint.config import Settings
from dropout_lint.report.convert import error_info
from dropout_lint.report.outcome import Outcome
from dropout_lint.report.schema import TargetInfo
from dropout_lint.runs.failures import failure, unfixed, unmeasured

T = TypeVar("T")

# resident size above which a worker is renewed before its next target
MOST_MEMORY = 3 * 2**30
# how torch starts in the process is said before it is imported
SERVE = (
    "from dropout_lint.loading.compat import own_process; own_process();"
    "from dropout_lint.runs.worker import serve; serve()"
)


class Request(msgspec.Struct, frozen=True):
    """What a worker is asked.

    Attributes:
        target: the target to lint, as it was typed.
        settings: the settings of all targets.
        cache_dir: where results are kept; None to keep none.
        written: files that the run writes, which a result does not depend on.
        task: what is wanted: its findings, or fixes or measurements for what was `found`; or the files of a
            folder that are worth importing.
        found: models of the target that were linted already.
        scratch: where the files of the proofs go.
        threads: how many a measurement may use.
    """

    target: str
    settings: Settings
    cache_dir: str | None = None
    written: frozenset[str] = frozenset()
    task: Literal["lint", "fix", "measure", "list"] = "lint"
    found: list[TargetInfo] = []
    scratch: str | None = None
    threads: int = 1


class Answer(msgspec.Struct, frozen=True):
    """What came of it, of fixes one answer for each model; `memory` is the highest resident size in bytes."""

    outcomes: list[Outcome] = []
    files: list[str] = []
    memory: int = 0


class Stopped(Exception):
    """The run was interrupted; nobody waits for results any more."""


class Died(Exception):
    """The process ended without an answer; the text says how."""


class Pool:
    """Worker processes, each started when it is first needed, all ended with the block.

    Args:
        jobs: how many processes there may be.
        timeout: seconds that one target may take, its fixes included, from being handed to a worker whose
            torch is loaded; None for no limit.
    """

    def __init__(self, jobs: int, timeout: float | None) -> None:
        self.timeout = timeout
        self.stop = threading.Event()
        self.workers = [Worker(self.stop) for _ in range(jobs)]
        self.spent: dict[str, float] = {}
        self.scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *problem: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill the processes."""
        self.stop.set()
        for worker in self.workers:
            worker.end()
        if self.scratch is not None:  # a worker that is killed clears up nothing
            self.scratch.cleanup()

    def warm(self) -> Pool:
        """Start the processes, so that torch is loaded when they are needed; returns at once."""
        for worker in self.workers:
            worker.launch()
        return self

    def lint(self, requests: Sequence[Request]) -> list[list[Outcome]]:
        """The outcomes of each request, in their order; a crash and a time-out are outcomes too."""
        return self._spread(requests, self._lint)

    def files(self, folder: str, settings: Settings) -> list[str]:
        """The files of a folder that may hold models; nothing is imported for that.

        Raises:
            Died, Stopped: there is no answer.
        """
        self.workers[0].send(Request(folder, settings, task="list"))
        return self.workers[0].answer(None).files

    def edit(self, requests: Sequence[Request]) -> list[TargetInfo]:
        """The models that each request has `found`, with the edits that fix them.

        A model whose fix crashed, or was not ready when its target's time was up, is as it was found, with a
        note that says so.
        """
        self.scratch = self.scratch or tempfile.TemporaryDirectory(
            prefix="dropout-lint-", ignore_cleanup_errors=True
        )
        return self._models(requests, self._edit, task="fix", scratch=self.scratch.name)

    def measure(self, requests: Sequence[Request]) -> list[TargetInfo]:
        """The same models with their measurements, or a note like those of `edit`."""
        threads = max(1, (os.cpu_count() or 1) // len(self.workers))
        return self._models(requests, self._measure, task="measure", threads=threads)

    def _models(
        self, requests: Sequence[Request], do: Callable[[Worker, Request], list[TargetInfo]], **asked: Any
    ) -> list[TargetInfo]:
        requests = [msgspec.structs.replace(request, **asked) for request in requests]
        return [target for targets in self._spread(requests, do) for target in targets]

    def _lint(self, worker: Worker, request: Request) -> list[Outcome]:
        try:
            worker.send(request)
            began = time.monotonic()
            answer = worker.answer(None if self.timeout is None else began + self.timeout)
            self.spent[request.target] = time.monotonic() - began
            worker.renew_after(answer)
            return answer.outcomes
        except Stopped:
            raise
        except TimeoutError:
            text, hint = f"took longer than {self.timeout:g} s", "raise --timeout, or name a smaller model"
            outcome = Outcome(info=error_info(request.target, text, hint))
        except Died as problem:
            text, hint = f"the process that linted it died ({problem})", "lint it alone to see what it does"
            outcome = Outcome(info=error_info(request.target, text, hint))
        except Exception as problem:  # a worker that cannot be started, an answer that cannot be read
            outcome = failure(request.target, problem)
        worker.end()
        return [outcome]

    def _edit(self, worker: Worker, request: Request) -> list[TargetInfo]:
        return self._follow_up(worker, request, "linting and fixing", unfixed)

    def _measure(self, worker: Worker, request: Request) -> list[TargetInfo]:
        return self._follow_up(worker, request, "linting and measuring", unmeasured)

    def _follow_up(
        self, worker: Worker, request: Request, doing: str, without: Callable[[TargetInfo, str], TargetInfo]
    ) -> list[TargetInfo]:
        """The models that were found, as the worker answers them, or `without` that and with the cause."""
        found, done = request.found, list[TargetInfo]()
        try:
            worker.send(request)
            spent = self.spent.get(request.target, 0.0)
            began = time.monotonic()
            deadline = None if self.timeout is None else began + self.timeout - spent
            while len(done) < len(found):
                answer = worker.answer(deadline)
                done += [outcome.info for outcome in answer.outcomes]
                self.spent[request.target] = spent + time.monotonic() - began
            worker.renew_after(answer)
            return done
        except Stopped:
            raise
        except TimeoutError:
            cause = f"{doing} took longer than {self.timeout:g} s; raise --timeout"
        except Died as problem:
            cause = f"the process that worked it out died ({problem})"
        except Exception as problem:
            cause = f"internal error: {type(problem).__name__}: {problem}"
        worker.end()
        return [*done, *(without(info, cause) for info in found[len(done) :])]

    def _spread(self, requests: Sequence[Request], do: Callable[[Worker, Request], list[T]]) -> list[list[T]]:
        """What `do` returns for each request, the requests spread over the workers."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(requests)):
            waiting.put(index)
        results: list[list[T]] = [[] for _ in requests]

        def work(worker: Worker) -> None:
            try:
                while not self.stop.is_set():
                    index = waiting.get_nowait()
                    results[index] = do(worker, requests[index])
            except queue.Empty:
                pass
            except Stopped:  # it may have been started after all were ended
                worker.end()
            finally:
                done.put(None)

        # An interrupted `Thread.join` may call a thread finished that is not: the threads say so themselves.
        done: queue.SimpleQueue[None] = queue.SimpleQueue()
        busy = self.workers[: len(requests)]
        for worker in busy:
            threading.Thread(target=work, args=(worker,), daemon=True).start()
        for _ in busy:
            done.get()
        return results


class Worker:
    """One process, started when it is needed and again after it died."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.pending = b""  # what came behind the last line that was read

    def launch(self) -> subprocess.Popen[bytes]:
        """The process, which may not be ready yet."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            )
            self.ready, self.pending = False, b""
        return self.process

    def start(self) -> subprocess.Popen[bytes]:
        """The process, after it said that it is ready."""
        process = self.launch()
        if not self.ready:
            self.read(None)
            self.ready = True
        return process

    def send(self, request: Request) -> None:
        """Hand a request to the process, which is started where it does not run.

        Raises:
            Died: it takes nothing any more.
            Stopped: the run was interrupted.
        """
        process = self.start()
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self.died() from None

    def answer(self, deadline: float | None) -> Answer:
        """The next answer.

        Args:
            deadline: when to stop waiting, by `time.monotonic`.

        Raises:
            Died: the process ended.
            Stopped: the run was interrupted.
            TimeoutError: nothing came in time.
        """
        line = self.read(deadline)
        if not line.endswith(b"\n"):
            raise self.died()
        return msgspec.json.decode(line, type=Answer)

    def renew_after(self, answer: Answer) -> None:
        """End a process that has grown; the next request gets a new one."""
        if answer.memory > MOST_MEMORY:
            self.end()

    def died(self) -> Died:
        """How the process ended."""
        assert self.process is not None
        status = self.process.wait()
        return Died(signal_name(-status) if status < 0 else f"exit status {status}")

    def read(self, deadline: float | None) -> bytes:
        """One line of the process's answer, or what came before it died.

        Raises:
            Stopped: the run was interrupted.
            TimeoutError: nothing came in time.
        """
        assert self.process is not None and self.process.stdout is not None
        number = self.process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(number, selectors.EVENT_READ)
            while b"\n" not in self.pending:
                if self.stop.is_set():
                    raise Stopped
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError
                if selector.select(0.1):
                    part = os.read(number, 1 << 20)
                    if not part:
                        break
                    self.pending += part
        line, newline, self.pending = self.pending.partition(b"\n")
        return line + newline

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
