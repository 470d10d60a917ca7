"""The jobs, each cached by what it depends on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import msgspec
import torch

from dropout_lint.terms import Strategy

from ..prediction.work import code
from . import training
from .data import named
from .subjects import Subject
from .tool import Fix, fixed, recalibrated

Arm = Literal["none", "written", "recalibrated", "fixed", "uout", "guideline"]
ARMS: tuple[Arm, ...] = get_args(Arm)
FIXES: dict[Arm, Strategy] = {"fixed": "auto", "uout": "uout"}
"""What `fix` is asked for: Uout only where by itself it leaves findings to the user."""
VERSION = 1


class Outcome(msgspec.Struct, frozen=True):
    """One trained network.

    Attributes:
        error: test error in per cent.
        shifts: measured Δ at each norm behind a dropout, of the network as written.
        seconds: the training's, of processor time.
    """

    network: str
    arm: Arm
    p: float
    seed: int
    error: float
    shifts: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Job:
    """One arm of one network, with one p and one seed."""

    subject: Subject
    arm: Arm
    p: float
    seed: int


def jobs(subjects: Sequence[Subject], ratios: Sequence[float], seeds: int) -> Iterator[Job]:
    """Every arm of every setting, seed by seed, so that what is there at any time is paired."""
    for seed in range(seeds):
        for subject in subjects:
            yield Job(subject, "none", 0.0, seed)
            for p in ratios:
                yield from (Job(subject, arm, p, seed) for arm in ARMS[1:])


@dataclass(frozen=True)
class Work:
    """Does jobs and keeps what came of them.

    Attributes:
        cache: folder for it.
        cached_only: nothing is done that was not done before.
    """

    cache: Path
    cached_only: bool = False

    def fix(self, subject: Subject, p: float, strategy: Strategy) -> Fix | None:
        """The fix of a network with this p, made again when the network or the tool has changed."""
        folder = self.edited(subject, p, strategy).parent
        kept = folder / f"fix-{_hash(_text(subject.file), subject.shape, code())}.json"
        if kept.exists():
            return msgspec.json.decode(kept.read_bytes(), type=Fix)
        if self.cached_only:
            return None
        done = fixed(folder, subject, p, strategy)
        _write(kept, done)
        return done

    def edited(self, subject: Subject, p: float, strategy: Strategy) -> Path:
        """The file that `fix` has edited."""
        return self.cache / "fixes" / f"{subject.name}-{p}-{strategy}" / subject.file.name

    def file(self, job: Job) -> Path | None:
        """What the job trains; None where `fix` wrote nothing, or Uout is not asked for."""
        if job.arm not in FIXES:
            return job.subject.file
        if job.arm == "uout":
            first = self.fix(job.subject, job.p, FIXES["fixed"])
            if first is None or not first.leaves:
                return None
        done = self.fix(job.subject, job.p, FIXES[job.arm])
        return self.edited(job.subject, job.p, FIXES[job.arm]) if done is not None and done.diff else None

    def outcome(self, job: Job) -> Outcome | None:
        """What came of a job; None where there is nothing to train, or nothing cached."""
        file = self.file(job)
        if file is None:
            return None
        name = f"{job.subject.name}-{job.arm}-{job.p}-{job.seed}"
        kept = self.cache / "outcomes" / f"{name}-{_hash(_text(file), job.subject, VERSION)}.json"
        if kept.exists():
            return msgspec.json.decode(kept.read_bytes(), type=Outcome)
        if self.cached_only:
            return None
        kept.parent.mkdir(parents=True, exist_ok=True)
        done = self._done(job, file, kept.with_suffix(".pt"))
        _write(kept, done)
        return done

    def _done(self, job: Job, file: Path, weights: Path) -> Outcome:
        """Train, or re-estimate the statistics of the network as written, whose weights lie beside it."""
        subject, data = job.subject, named(job.subject.data)
        start = time.process_time()
        model = training.built(file, subject, 0.0 if job.arm == "guideline" else job.p, job.seed)
        if job.arm == "recalibrated":
            written = Path(str(weights).replace("-recalibrated-", "-written-"))
            healed = recalibrated(subject, job.p, written)
            model.load_state_dict(torch.load(healed, weights_only=True))
            healed.unlink()
        else:
            if job.arm == "guideline":
                training.by_guideline(model, subject, job.p)
            training.train(model, data.train, subject, job.seed)
        seconds = time.process_time() - start
        shifts = {}
        if job.arm == "written":
            torch.save(model.state_dict(), weights)
            shifts = training.shifts(model, data.train)
        error = training.error(model, data.test)
        return Outcome(subject.name, job.arm, job.p, job.seed, error, shifts, seconds)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _hash(*parts: object) -> str:
    return hashlib.sha1("\0".join(map(str, parts)).encode()).hexdigest()[:10]


def _write(file: Path, value: msgspec.Struct) -> None:
    """Whole, or not there."""
    part = file.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(value))
    part.replace(file)
