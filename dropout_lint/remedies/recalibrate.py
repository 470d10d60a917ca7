"""Re-estimate norms' statistics as test mode sees them (Hendrycks and Gimpel Sec. 3, Li et al. Table 3)."""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedBuffer

from dropout_lint.errors import MeasureError, UsageError
from dropout_lint.guard.arguments import as_names, check_choice, check_model
from dropout_lint.guard.modes import test_mode
from dropout_lint.guard.wrappers import bare, unwrapped
from dropout_lint.inputs.example import Inputs
from dropout_lint.layers import STANDARD
from dropout_lint.layers.reestimated import mark_reestimated
from dropout_lint.loading.marks import KEY, marked, marks_of, read_marks, written
from dropout_lint.measurement.batches import Picker, to_device
from dropout_lint.measurement.streaming import all_reduce_moments
from dropout_lint.remedies.batches import device_for, rereadable
from dropout_lint.remedies.estimate import (
    OWN_STATISTICS,
    EnoughError,
    Estimate,
    Recorder,
    is_tracking,
    ratio,
)

Method = Literal["batch", "pooled", "stages"]
METHODS: tuple[Method, ...] = ("batch", "pooled", "stages")
# Share of a norm's variance within batches below which one pass is said to be inexact.
ALIKE = 0.9


@dataclass(frozen=True)
class NormMove:
    """How one norm's statistics moved.

    Attributes:
        name: qualified name of the norm.
        count: values of each channel that it was estimated from, over all ranks.
        variance_ratio: mean of the new running variances over mean of the old ones. Where only dropout
            differs between training and this pass, it is Δ.
        largest: the largest max(new/old, old/new) of the variance over channels.
        mean_move: how far the running mean moved, in old standard deviations, averaged over channels.
    """

    name: str
    count: int
    variance_ratio: float
    largest: float
    mean_move: float


@dataclass(frozen=True)
class Recalibration:
    """What `recalibrate` changed, and the way back.

    Attributes:
        moved: one entry for each norm that was re-estimated, in the order of the model.
        untouched: the other norms that hold running statistics, and why each was left alone.
        batches: how many batches were read on this rank, in each pass.
        passes: how many passes over the data it took.
        method: how norms upstream were treated, see `recalibrate`.
        variance_only: whether the running means were left as they were.
        metric_before: what the metric said before, None without a metric.
        metric_after: what it said after.
        notes: things to say aloud, such as batches that differ so much that one pass is not exact.
        metadata: what says in a safetensors file that these variances were taken with dropout off, as
            `safetensors.torch.save_file(model.state_dict(), file, metadata=result.metadata)`.
    """

    moved: tuple[NormMove, ...]
    untouched: Mapping[str, str]
    batches: int
    passes: int
    method: Method
    variance_only: bool
    metric_before: float | None = None
    metric_after: float | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    _saved: tuple[tuple[nn.Module, str, Tensor], ...] = field(default=(), repr=False)

    def undo(self) -> None:
        """Put every changed buffer back, bit for bit, wherever the model has been moved since."""
        _write(self._saved)

    def marked(self, state: Mapping[str, Any]) -> OrderedDict[str, Any]:
        """`model.state_dict()` for `torch.save`, which says that these variances were taken with dropout off.

        The mark is in the attribute in which torch keeps the versions of modules, which loading passes over,
        strict or not; `dropout-lint --checkpoint` reads it, and calls these norms stale no more (DL501). It
        holds while the variances stay, bit by bit.
        """
        return marked(state, marks_of(state) | read_marks(self.metadata.get(KEY)))

    def __str__(self) -> str:
        width = max([len(move.name) for move in self.moved] + [4])
        lines = [f"{'norm':<{width}}  variance new/old  largest  mean moved (sd)"]
        lines += [
            f"{move.name:<{width}}  {move.variance_ratio:16.3f}  {move.largest:7.2f}  {move.mean_move:15.3f}"
            for move in self.moved
        ]
        lines += [f"{name:<{width}}  left alone: {reason}" for name, reason in self.untouched.items()]
        if self.metric_before is not None and self.metric_after is not None:
            lines.append(f"metric {self.metric_before:.6g} before, {self.metric_after:.6g} after")
        return "\n".join(lines)


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    variance_only: bool = False,
    method: Method = "batch",
    skip: Collection[str] = (),
    metric: Callable[[nn.Module], float] | None = None,
    device: torch.device | str | None = None,
    group: dist.ProcessGroup | None = None,
) -> Recalibration:
    """Give every norm the mean and variance that its input has in test mode, with all dropout off, in place.

    A norm that was trained below dropout remembers a variance that holds the dropout's noise as well. This
    reads the data once more with dropout off (functional calls with `training=True` and dropout inside
    attention too) and stores the mean and variance over *all* values seen: per-batch moments are merged by
    Chan's rule with their true sizes in float64, and over ranks where `torch.distributed` is initialised. The
    variance is divided by n − 1, as torch stores it. Nothing but `running_mean` and `running_var` changes,
    and these only at the end: whatever goes wrong before that leaves the model as it was.

    Args:
        model: any model; its modes are restored. Data parallel and compiled models run unwrapped.
        batches: an iterable of tensors, tuples of positional arguments (those beyond what `forward` requires,
            such as labels, are left out) or dicts of keyword arguments. The training data, without
            augmentation that test data lacks.
        variance_only: keep the running means, as Hendrycks and Gimpel's code does.
        method: what a norm divides by, for the norms after it, while its own statistics are being counted.
            `batch`: by the batch's own statistics, as in train mode (by all seen so far where a batch has
            fewer than 32 values a channel); one pass. `pooled`: always by all seen so far; one pass, for
            tiny batches in random order. `stages`: after a `batch` pass, one norm after the other is
            estimated with every norm before it in test mode with its new statistics; exact, one partial pass
            for each norm, and `batches` must be readable more than once. On real data the three gave the same
            test error (`benchmarks/results/retrain-digits.md`, `recalibrate-cpu.md`).
        skip: qualified names of norms, or of modules that hold norms, to leave alone; a string is one name.
            What wrappers put into names may be there or not. Frozen norm classes, norms of momentum 0 and
            norms that are in test mode inside a model in train mode are left alone anyway.
        metric: called with the model in test mode before and after; its value goes into the report.
        device: where batches are moved to; by default to the model's first parameter.
        group: the ranks to merge over, by default all of them.

    Returns:
        What moved, `undo()`, and how to save it so that it is known again: a state dict that is saved by hand
        does not say how its statistics were taken, so that the linter calls them stale. Save
        `result.marked(model.state_dict())` instead, or give safetensors `result.metadata`.

    Raises:
        UsageError: the model is no module, an unknown method, device or name in `skip`, a model without
            values, a metric that is no number, or batches that cannot be read again for `stages`.
        MeasureError: no norm holds statistics, there is no data, or the new statistics are not finite.
    """
    check_model(model)
    check_choice("method", method, METHODS)
    if isinstance(batches, (Tensor, Mapping, Inputs)):
        batches = [batches]  # one batch, not its rows or keys
    if not isinstance(batches, Iterable):
        raise UsageError(
            f"batches must be an iterable of batches, not {type(batches).__name__}",
            "pass a DataLoader, a list of tensors, or any other iterable",
        )
    if method == "stages" and not rereadable(batches):
        raise UsageError(
            "method='stages' reads the data once for each norm, and these batches can be read only once",
            "pass a list or a DataLoader instead of a generator",
        )
    where = device_for(model, device)
    estimates, untouched = _choose(model, frozenset(as_names("skip", skip)), variance_only)
    before = _score(metric, model)
    run = _Run(model, batches, estimates, where, group)
    with test_mode(model):
        passes = run.one_pass(method)
        if method == "stages":
            passes += run.stages()
            run.notes.clear()
    moved, new = _moves(run, estimates, untouched)
    saved = tuple((norm, name, getattr(norm, name).detach().clone()) for norm, name, _ in new)
    report = Recalibration(
        moved,
        untouched,
        run.batches_read,
        passes,
        method,
        variance_only,
        metric_before=before,
        notes=(*run.picker.notes, *run.notes),
        _saved=saved,
    )
    try:
        _write(new)
        marks = {mark_reestimated(norm) for norm, _, _ in new}
        after = _score(metric, model)
    except BaseException:
        report.undo()
        raise
    return replace(report, metric_after=after, metadata={KEY: written(marks)})


def _choose(
    model: nn.Module, skip: frozenset[str], variance_only: bool
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """The norms to estimate by name, and why each of the others is left alone."""
    inner = unwrapped(model)  # a wrapper made of a model in test mode is in train mode itself
    modules = [(bare(name), module) for name, module in inner.named_modules()]
    names = {name for name, _ in modules}
    wrapped = {name: module for name, module in model.named_modules() if name not in names}
    own = {id(module): name for name, module in modules}
    skip = frozenset(own.get(id(wrapped.get(name)), name) for name in skip)
    unknown = sorted(skip - names)
    if unknown:
        raise UsageError(f"skip names no module of this model: {', '.join(unknown)}", "use qualified names")
    chosen: dict[str, Estimate] = {}
    untouched: dict[str, str] = {}
    for name, module in modules:
        spec = STANDARD.norm(module)
        if spec is None or not spec.tracks:
            continue
        if any(name == part or name.startswith(f"{part}.") for part in skip):
            untouched[name] = "skipped"
        elif spec.frozen or getattr(module, "momentum", None) == 0:
            untouched[name] = "frozen"
        elif inner.training and not module.training:
            untouched[name] = "frozen (in test mode inside a model in train mode)"
        elif is_tracking(module):
            assert isinstance(module, _NormBase)
            if isinstance(module.running_mean, UninitializedBuffer):
                raise UsageError(
                    f"`{name}` is lazy and has no size yet", "run one batch through the model first"
                )
            chosen[name] = Estimate(module, variance_only)
    if not chosen:
        found = "only frozen or skipped ones" if untouched else "none"
        raise MeasureError(
            f"{type(model).__name__} has no norm whose statistics could be re-estimated ({found} found)",
            "only batch norms, and instance norms with track_running_stats=True, hold statistics",
        )
    return chosen, untouched


class _Run:
    """The passes over the data; holds what they find and changes nothing in the model."""

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        estimates: Mapping[str, Estimate],
        device: torch.device,
        group: dist.ProcessGroup | None,
    ) -> None:
        self.model = unwrapped(model)
        self.batches = batches
        self.device = device
        self.group = group
        self.by_name = estimates
        self.estimates = {id(item.norm.running_mean): item for item in estimates.values()}
        self.order: list[str] = []
        self.calls: dict[str, int] = {}
        self.batches_read = 0
        self.picker = Picker(self.model)
        self.notes: list[str] = []

    def one_pass(self, method: Method) -> int:
        """Count every norm at once."""
        recorder = Recorder(self.estimates, "pooled" if method == "pooled" else "batch")
        seen = dict.fromkeys(self.by_name, 0)

        def after() -> None:
            for name, item in self.by_name.items():
                self.calls[name] = max(self.calls.get(name, 0), item.calls - seen[name])
                seen[name] = item.calls

        self.batches_read = self._read(recorder, list(self.estimates.values()), after)
        names = {id(item.norm.running_mean): name for name, item in self.by_name.items()}
        self.order = [names[key] for key in recorder.order]
        return 1

    def _compare_batches(self) -> None:
        """Say so where batches differ: then norms downstream saw other inputs than in test mode."""
        shares = {name: item.within_share() for name, item in self.by_name.items() if item.calls}
        lowest = min(shares, key=shares.__getitem__, default=None)
        small = any(item.count < OWN_STATISTICS * item.calls for item in self.by_name.values())
        if lowest is not None and shares[lowest] < ALIKE and not small:
            self.notes.append(
                f"the batches differ: only {shares[lowest]:.0%} of the variance at `{lowest}` lies within"
                " batches; shuffle the data, or use the method `stages`, which is exact for any order"
            )

    def stages(self) -> int:
        """Count one norm after the other, those before it normalising by their new statistics."""
        order, calls = self._agreed()
        fixed = {
            id(item.norm.running_mean): item.statistics() for item in self.by_name.values() if item.count > 1
        }
        for name in order:
            item = self.by_name[name]
            key = id(item.norm.running_mean)
            item.reset()
            self._read(Recorder(self.estimates, "fixed", fixed, key, calls[name]), [item])
            fixed[key] = item.statistics()
        return len(order)

    def _agreed(self) -> tuple[list[str], dict[str, int]]:
        """Order and calls on the first rank that saw data: every rank has to take the same stages."""
        if not _distributed():
            return self.order, self.calls
        found: list[Any] = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(found, (self.order, self.calls), group=self.group)
        order: list[str] = next((item[0] for item in found if item[0]), [])
        names = set(itertools.chain.from_iterable(item[1] for item in found))
        return order, {name: max(item[1].get(name, 0) for item in found) for name in names}

    @torch.no_grad()
    def _read(
        self, recorder: Recorder, items: list[Estimate], after: Callable[[], None] = lambda: None
    ) -> int:
        """One pass; merged over ranks, and failed on every rank where it failed on one."""
        read = 0
        failure: BaseException | None = None
        try:
            for batch in self.batches:
                inputs = to_device(self.picker(batch), self.device, copy=False)
                recorder.begin()
                with recorder, contextlib.suppress(EnoughError):
                    self.model(*inputs.args, **inputs.kwargs)
                after()
                read += 1
        except BaseException as error:
            failure = error
        if _distributed():
            flags = torch.tensor([int(failure is not None), read], device=self.device)
            dist.all_reduce(flags, group=self.group)
            failed, total = flags.tolist()
        else:
            failed, total = int(failure is not None), read
        if failure is not None:
            raise failure
        if failed:
            raise MeasureError(
                f"re-estimation failed on {failed} other rank(s)", "see the error printed there"
            )
        if total == 0:
            raise MeasureError("there was no batch to read, so nothing was changed", "check the loader")
        if len(items) == len(self.by_name) and recorder.normalise != "fixed":
            self._compare_batches()
        all_reduce_moments([moments for item in items for moments in item.moments()], self.group)
        return read


def _moves(
    run: _Run, estimates: Mapping[str, Estimate], untouched: dict[str, str]
) -> tuple[tuple[NormMove, ...], list[tuple[nn.Module, str, Tensor]]]:
    """The report lines, and each norm's buffers with their new values; checked before anything is written."""
    moved = []
    new: list[tuple[nn.Module, str, Tensor]] = []
    for name, item in estimates.items():
        if item.count == 0:
            untouched[name] = "never called"
            continue
        if item.count < 2:
            raise MeasureError(
                f"`{name}` saw a single value per channel, which has no variance", "pass more than one sample"
            )
        old_mean, old_variance = item.norm.running_mean, item.norm.running_var
        assert old_mean is not None
        assert old_variance is not None
        mean, variance = item.statistics()
        if not bool(torch.isfinite(mean).all() and torch.isfinite(variance).all()):
            raise MeasureError(
                f"the input of `{name}` is not finite, so nothing was changed", "look for NaN in the data"
            )
        # on the CPU: not every accelerator has float64
        old, now, was = (tensor.detach().cpu().double() for tensor in (old_variance, variance, old_mean))
        change = now / old
        step = (mean.detach().cpu().double() - was).abs()
        moved.append(
            NormMove(
                name=name,
                count=item.count,
                variance_ratio=ratio(now, old),
                largest=float(torch.maximum(change, 1 / change).nan_to_num(nan=1.0).max()),
                mean_move=float((step / (old + item.norm.eps).sqrt()).mean()),
            )
        )
        new.append((item.norm, "running_var", variance))
        if not item.keep_mean:
            new.append((item.norm, "running_mean", mean))
    if not moved:
        raise MeasureError("no norm was called, so nothing was changed", "check that the data reaches them")
    return tuple(moved), new


@torch.no_grad()
def _write(values: Iterable[tuple[nn.Module, str, Tensor]]) -> None:
    for norm, name, value in values:
        getattr(norm, name).copy_(value)


def _score(metric: Callable[[nn.Module], float] | None, model: nn.Module) -> float | None:
    if metric is None:
        return None
    with test_mode(model):
        value: Any = metric(model)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"the metric returned {type(value).__name__} {value!r:.60}, which is no number",
            "return a float, or a tensor with one element",
        ) from error


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
