"""The client of the proof process: it asks for a proof of edited files and gets the checks or the failure."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dropout_lint.analysis import Options
from dropout_lint.errors import FixError
from dropout_lint.fixes.source.protocol import FORK, IMPORT
from dropout_lint.fixes.source.worker import main
from dropout_lint.fixes.training import Named
from dropout_lint.inputs.example import Inputs
from dropout_lint.rules.loader import own_files

TIMEOUT = 600.0
# Ctrl-C is this process's, which ends the other; how torch starts there is said before it is imported
START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "from dropout_lint.loading.compat import own_process; own_process();"
    "from dropout_lint.fixes.source.worker import main; main()"
)
# what torchvision and others take long to import; where this process has it, the jobs will want it too
HEAVY = ("torch._dynamo",)


@dataclass(frozen=True)
class Question:
    """What is to be proven.

    Attributes:
        resolve: the target as the user typed it.
        target: the one model of it that was fixed.
        inputs: what the model is run with.
        files: edited text by path.
        expected: codes that may still be found.
        texts: `--input` options, as they were typed.
        checkpoint: weights to load.
        meta: the model was linted without weights.
        repaired: an always-on dropout was repaired (then the original runs with functional dropouts off).
        named: the dropouts that the edits name.
        options: as the user linted.
        batches: number of random batches to measure Δ with before and after, 0 for none.
    """

    resolve: str
    target: str
    inputs: Inputs
    files: Mapping[str, str]
    expected: Sequence[str]
    texts: Sequence[str] = ()
    checkpoint: str | None = None
    meta: bool = True
    repaired: bool = False
    named: Named = field(default_factory=Named)
    options: Options = field(default_factory=Options)
    batches: int = 0


@dataclass(frozen=True)
class Proof:
    """A proof that was given.

    Attributes:
        checks: what was checked, in words.
        before: measured Δ at every norm of the original, where that was asked for.
        after: the same of the edited model.
    """

    checks: tuple[str, ...]
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)


class Original:
    """What the unedited model gave, for all questions of one fix: it is built and run once.

    Only `files`, `expected`, `repaired` and `named` may differ between the questions: it runs once for each
    set of dropouts that edits name.

    Args:
        folder: where the files of the proofs go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._answers: dict[object, str | None] = {}
        self._broken: FixError | None = None

    def job(
        self, question: Question, run: Callable[[dict[str, Any], Path], dict[str, Any]]
    ) -> dict[str, Any]:
        """The job on the original, run where it has not been; what it gave lies in the folder.

        Raises:
            FixError: the original could not be built or run, now or before.
        """
        key = question.repaired, question.named.calls
        number = list(self._answers).index(key) if key in self._answers else len(self._answers)
        job = job_of(question, self.folder, number)
        if self._broken is not None:
            raise self._broken
        if key not in self._answers:
            try:
                self._answers[key] = run(job, self.folder / f"original-{number}.json").get("unprovable")
            except FixError as error:
                self._broken = error
                raise
        unprovable = self._answers[key]
        if unprovable is not None:
            raise FixError(unprovable, "the files stay as they were")
        return job


class Forked:
    """A copy of this process that runs a function, spoken with through pipes as with `subprocess.Popen`."""

    def __init__(self, run: Callable[[], None]) -> None:
        (read, stdin), (stdout, write) = os.pipe(), os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.dup2(read, 0)
            os.dup2(write, 1)
            for pipe in (read, stdin, stdout, write):
                os.close(pipe)
            sys.stdin = os.fdopen(0)
            try:
                run()
            finally:
                os._exit(0)
        os.close(read)
        os.close(write)
        self.stdin, self.stdout = os.fdopen(stdin, "w"), os.fdopen(stdout)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self._waited(os.WNOHANG)

    def wait(self) -> int | None:
        """The exit status, once it has ended."""
        return self._waited(0)

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _waited(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


@dataclass
class Prover:
    """One proof process, started when it is first asked, or before.

    Attributes:
        scratch: the folder that files of proofs go to; None for the system's.
        process: the process while it runs.
        told: it was told what to import.
    """

    scratch: str | None = None
    process: subprocess.Popen[str] | Forked | None = None
    told: bool = False

    def fork(self) -> None:
        """Make the proof process of this one, while nothing of a user's is imported: torch is loaded once."""
        if FORK:
            self.process = Forked(main)

    @contextlib.contextmanager
    def originals(self) -> Iterator[Original]:
        """A folder for the proofs of one fix, with what is kept of the unedited model."""
        with tempfile.TemporaryDirectory(prefix="dropout-lint-", dir=self.scratch) as folder:
            yield Original(folder)

    def ask(self, question: Question, original: Original | None = None) -> Proof:
        """Prove the edited files.

        Args:
            question: what is to be proven.
            original: what the unedited model gave in earlier questions about it.

        Raises:
            FixError: a check failed; the message names it.
        """
        if original is None:
            with self.originals() as own:
                return self.ask(question, own)
        job = original.job(question, lambda first, path: self._run(path, first))
        second = self._run(original.folder / "edited.json", {**job, "kind": "actual"})
        return Proof(tuple(second["checks"]), second["measured_before"], second["measured"])

    def _run(self, path: Path, job: dict[str, Any]) -> dict[str, Any]:
        answer = path.with_suffix(".answer")
        answer.unlink(missing_ok=True)  # of an earlier question
        path.write_text(json.dumps(job))
        process = self.start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            if FORK:
                ready, _, _ = select.select([process.stdout], [], [], TIMEOUT)
                if not ready:
                    self.close()
                    raise FixError(
                        f"the proof took longer than {TIMEOUT:.0f} s", "the files stay as they were"
                    )
            process.stdout.readline()
        except BrokenPipeError:
            self.close()
        if not answer.is_file():
            self.close()
            raise FixError("the proof process ended without an answer", "the files stay as they were")
        if not FORK:
            self.close()
        found: dict[str, Any] = json.loads(answer.read_text())
        if "failed" in found:
            raise FixError(found["failed"], "the files stay as they were", details=found.get("details"))
        return found

    def start(self) -> subprocess.Popen[str] | Forked:
        """The process, which goes on loading torch while the caller has other things to do."""
        if self.process is None or self.process.poll() is not None:
            self.process, self.told = self._anew(), False
        if not self.told:
            self.told = True
            assert self.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # told once it is asked
                self.process.stdin.writelines(f"{IMPORT}{name}\n" for name in HEAVY if name in sys.modules)
                self.process.stdin.flush()
        return self.process

    @staticmethod
    def _anew() -> subprocess.Popen[str]:
        root = str(Path(__file__).resolve().parents[3])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )

    def close(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(OSError):
            process.terminate()
        process.wait()


def options_as_data(options: Options) -> dict[str, Any]:
    """The options as JSON can hold them; `worker.options_of` reads them."""
    return {
        "rules": own_files(options.rules),
        "select": options.select,
        "ignore": options.ignore,
        "threshold": options.threshold,
        "dropouts": {
            name: {"noise": extra.noise.value, "p": extra.p, "keeps": extra.keeps}
            for name, extra in options.catalogue.extra_dropouts.items()
        },
    }


def job_of(question: Question, folder: Path, number: int) -> dict[str, Any]:
    """The job on the original, as the process reads it; the inputs are put beside it."""
    import torch

    torch.save((question.inputs.args, dict(question.inputs.kwargs)), folder / "tensors.pt")
    return {
        "kind": "expected",
        "resolve": question.resolve,
        "target": question.target,
        "inputs": list(question.texts),
        "checkpoint": question.checkpoint,
        "meta": question.meta,
        "tensors": str(folder / "tensors.pt"),
        "kept": str(folder / f"kept-{number}.pt"),
        "repaired": question.repaired,
        "named": asdict(question.named),
        "files": dict(question.files),
        "expected": list(question.expected),
        "options": options_as_data(question.options),
        "batches": question.batches,
        "cwd": str(Path.cwd()),
        "path": list(sys.path),
    }


_shared = Prover()
atexit.register(_shared.close)


def shared() -> Prover:
    """The proof process of this program."""
    return _shared
