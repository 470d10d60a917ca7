"""The passes of one measurement: train mode, then test mode, over the same batches on every rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dropout_lint.errors import MeasureError
from dropout_lint.guard.untouched import Buffers
from dropout_lint.inputs.example import Inputs
from dropout_lint.measurement.batches import Batches, is_empty
from dropout_lint.measurement.confidence import mean_half_width, ratio_half_width
from dropout_lint.measurement.forward import Forward
from dropout_lint.measurement.moments import Block, merge_all
from dropout_lint.measurement.ranks import Ranks, Status, needs_lockstep
from dropout_lint.measurement.record import Listened, Recorder, layout_of

# Called with batches done, batches expected (None where nobody knows) and what is being done.
Progress = Callable[[int, int | None, str], None]

# Batches before the first look at the confidence intervals: with fewer replicates they are mostly noise.
FIRST_LOOK = 8
# Blocks over all ranks together, for the confidence interval.
BLOCKS = 64


@dataclass(frozen=True)
class Passes:
    """Both modes' moments: `pairs` holds (train, test) blocks of the same batches, over all ranks.

    Attributes:
        order: norms as the data reached them first.
        not_finite: norm → (batch, mode) of its first NaN or infinity.
        batches, samples: how many, over all ranks.
    """

    pairs: list[tuple[Block, ...]]
    order: tuple[str, ...]
    not_finite: Mapping[str, tuple[int, str]]
    batches: int
    samples: int

    @property
    def train(self) -> list[Block]:
        """Train-mode blocks."""
        return [pair[0] for pair in self.pairs]

    @property
    def test(self) -> list[Block]:
        """Test-mode blocks."""
        return [pair[1] for pair in self.pairs]


class Session:
    """Everything that the passes of one measurement share."""

    def __init__(
        self,
        forward: Forward,
        norms: Sequence[Listened],
        buffers: Buffers,
        batches: Batches,
        ranks: Ranks,
        *,
        tolerance: float | None,
        progress: Progress | None,
    ) -> None:
        self.forward, self.norms, self.buffers = forward, tuple(norms), buffers
        self.batches, self.ranks = batches, ranks
        self.layout = layout_of(norms)
        self.tolerance = tolerance
        self.progress = progress if ranks.rank == 0 else None
        self.notes: list[str] = []
        self._lockstep = ranks.many and needs_lockstep(forward.model)
        self._used: int | None = None
        self._skipped: set[int] = set()
        self._single: set[int] = set()

    @property
    def met_single_samples(self) -> bool:
        """Whether batches of a single sample were left out."""
        return bool(self._single)

    def alternate(self) -> Passes:
        """Train and test mode in turn, batch by batch: for norms whose stored statistics test mode uses."""
        train, test = Recorder(self.norms), Recorder(self.norms)

        def work(index: int, batch: Any) -> bool:
            inputs = self.forward.inputs(batch)
            if not self._train(inputs, index, train):
                return False
            return self.forward(inputs, index, test, self.buffers, train=False)

        def tight() -> bool:
            pairs = self._gather(train, test)
            return self._all_tight(ratio_half_width(*_columns(pairs), self.layout))

        self._loop(work, tight, "train and test mode")
        return self._passes(train, test)

    def one_after_the_other(
        self,
        stored: frozenset[str],
        during_train: AbstractContextManager[Any] | None = None,
        what: str = "",
    ) -> Passes:
        """All batches in train mode, then the same batches in test mode.

        In between, every norm that is not in `stored` is given the mean and variance that train mode showed,
        which is what it would remember after training with the model as it is.

        Args:
            stored: norms that keep the statistics they hold.
            during_train: entered around the train pass (a dropout switched off).
            what: names the pass in the progress report.
        """
        train, test = Recorder(self.norms), Recorder(self.norms)

        def work_train(index: int, batch: Any) -> bool:
            return self._train(self.forward.inputs(batch), index, train)

        def tight() -> bool:
            blocks = [pair[0] for pair in self._gather(train)]
            return self._all_tight(mean_half_width(blocks, self.layout))

        with during_train or nullcontext():
            self._loop(work_train, tight, f"train mode{what}")
        merged = merge_all([pair[0] for pair in self._gather(train)], self.layout)
        self._remember(merged, stored)
        remembered = Buffers(self.forward.model)

        def work_test(index: int, batch: Any) -> bool:
            if index in self._skipped:
                return False
            return self.forward(self.forward.inputs(batch), index, test, remembered, train=False)

        try:
            self._loop(work_test, None, f"test mode{what}")
        finally:
            self.buffers.restore()
        return self._passes(train, test)

    def _train(self, inputs: Inputs, index: int, recorder: Recorder) -> bool:
        """Run a batch in train mode; False where it holds too little for that, and is left out."""
        if is_empty(inputs):
            self._skipped.add(index)
            return False
        done = self.forward(inputs, index, recorder, self.buffers, train=True)
        if not done:
            self._skipped.add(index)
            self._single.add(index)
        return done

    def _loop(self, work: Callable[[int, Any], bool], tight: Callable[[], bool] | None, what: str) -> None:
        """Every rank works through its batches; all stop together on an error, at the end, or when tight."""
        source = self.batches.read(self._used)
        total = self._used if self._used is not None else expected_batches(self.batches)
        failure: MeasureError | None = None
        rounds, mine, look = 0, 0, FIRST_LOOK
        if self.tolerance is None or self._used is not None:
            tight = None
        while True:
            item, failure = _next(source, failure)
            statuses = self._agree(failure, item is None)
            if all(status is Status.DONE for status in statuses):
                break
            if self._lockstep and Status.DONE in statuses:
                self.notes.append(
                    "the ranks' loaders differ in length: the batches that not all of them have were left out"
                )
                break
            if item is not None:
                try:
                    work(*item)
                    mine += 1
                except MeasureError as error:
                    failure = error
            rounds += 1
            if self.progress is not None:
                self.progress(rounds, total, what)
            if tight is not None and rounds == look:
                look = max(look + 4, look * 3 // 2)
                if tight():
                    break
        self._agree(failure, True)
        if self._used is None:
            self._used = mine

    def _agree(self, failure: MeasureError | None, done: bool) -> list[Status]:
        """Tell the other ranks how it stands here, and stop where any of them failed."""
        statuses = self.ranks.statuses(Status.FAILED if failure else Status.DONE if done else Status.READY)
        if failure is not None:
            raise failure
        self.ranks.raise_for(statuses)
        return statuses

    def _gather(self, *recorders: Recorder) -> list[tuple[Block, ...]]:
        most = max(2, BLOCKS // self.ranks.world)
        for recorder in recorders:
            recorder.fold()
        columns = [recorder.blocks.at_most(most) for recorder in recorders]
        # they differ in length only where this rank has just failed and the next agreement ends the run
        return self.ranks.gather(list(zip(*columns, strict=False)))

    def _all_tight(self, half_width: Tensor) -> bool:
        """Whether every norm that has an interval has one below the tolerance (and at least one has)."""
        known = half_width[torch.isfinite(half_width)]
        return bool(known.numel()) and bool((known <= (self.tolerance or 0)).all())

    def _remember(self, merged: Block, stored: frozenset[str]) -> None:
        variance = merged.m2 / merged.count[self.layout.owners()].clamp_min(1)
        for index, (norm, place) in enumerate(zip(self.norms, self.layout.slices(), strict=True)):
            if norm.name in stored or merged.count[index] == 0:
                continue
            mean, own = merged.mean[place], variance[place]
            if bool(torch.isfinite(mean).all()) and bool(torch.isfinite(own).all()):
                _write(norm.module, "running_mean", mean)
                _write(norm.module, "running_var", own)

    def _passes(self, train: Recorder, test: Recorder) -> Passes:
        pairs = self._gather(train, test)
        bad = {name: (batch, "test") for name, batch in test.not_finite.items()}
        bad |= {name: (batch, "train") for name, batch in train.not_finite.items()}
        order = tuple(train.order) + tuple(name for name in test.order if name not in set(train.order))
        if self._single:
            self.notes.append(
                f"{len(self._single)} batches of a single sample were left out: a batch norm cannot take"
                " them in train mode"
            )
        empty = len(self._skipped) - len(self._single)
        if empty:
            self.notes.append(f"batches without any sample were left out: {empty}")
        batches = self.ranks.total((self._used or 0) - len(self._skipped))
        return Passes(pairs, order, bad, batches, self.ranks.total(self.forward.samples))


def _next(
    source: Iterator[tuple[int, Any]], failure: MeasureError | None
) -> tuple[tuple[int, Any] | None, MeasureError | None]:
    """The next batch, None at the end or after a failure; and the failure."""
    if failure is not None:
        return None, failure
    try:
        return next(source, None), None
    except MeasureError as error:
        return None, error


def _columns(pairs: Sequence[tuple[Block, ...]]) -> tuple[list[Block], list[Block]]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _write(module: nn.Module, name: str, values: Tensor) -> None:
    buffer = getattr(module, name, None)
    if isinstance(buffer, Tensor):
        buffer.data.copy_(values)


def expected_batches(batches: Batches) -> int | None:
    """Batches of this rank, where the loader knows its length."""
    length = math.inf
    source: Any = batches.source
    with suppress(TypeError):
        length = len(source)
    if batches.shard:
        length = length / batches.world
    if batches.limit is not None:
        length = min(length, batches.limit / batches.world)
    return None if math.isinf(length) else math.ceil(length)
