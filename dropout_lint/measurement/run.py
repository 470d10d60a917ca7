"""`measure`: the entry of the room."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dropout_lint.errors import MeasureError, UsageError
from dropout_lint.guard.arguments import check_choice, check_model, check_number, check_whole
from dropout_lint.guard.eager import eager
from dropout_lint.guard.untouched import Buffers, untouched
from dropout_lint.guard.wrappers import bare, unwrapped
from dropout_lint.layers import STANDARD, Catalogue
from dropout_lint.measurement.batches import Batches
from dropout_lint.measurement.confidence import ratio_half_width
from dropout_lint.measurement.forward import Forward
from dropout_lint.measurement.moments import merge_all
from dropout_lint.measurement.place import move, place
from dropout_lint.measurement.ranks import Ranks
from dropout_lint.measurement.record import Listened
from dropout_lint.measurement.session import Passes, Progress, Session
from dropout_lint.measurement.shift import NormMeasurement, Shift
from dropout_lint.measurement.switches import FunctionalDropouts, functional_switches, module_switches
from dropout_lint.terms import shift_ratio

TOLERANCE = 0.01


def measure(
    model: nn.Module,
    batches: Iterable[Any] | Batches,
    *,
    device: str | torch.device = "auto",
    max_batches: int | None = None,
    autocast: bool | torch.dtype | None = None,
    per_dropout: bool = False,
    tolerance: float | None = TOLERANCE,
    statistics: Literal["auto", "stored", "measured"] = "auto",
    shard: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
    catalogue: Catalogue = STANDARD,
) -> Shift:
    """Measure the variance shift at every norm that remembers the training variance (Li et al. 2019, Sec. 4).

    Train mode: `model.train()`, dropout on, every norm normalises by its batch; the population variance of
    each norm's input over all batches together is what its running variance would hold as an exact statistic.
    Test mode: `model.eval()`, which switches dropout modules off and leaves on what ignores the mode (an
    `F.dropout` without `training=self.training`): that is what test mode really does. Every norm normalises
    by what it remembers (`statistics`). Both modes see the same batches with no training step.

    The model is bit-identical afterwards (parameters, buffers, gradients, modes, hooks, random state), also
    after an exception or Ctrl-C. Inside an initialised process group every rank calls this with its own
    batches, the moments are merged exactly, and every rank gets the same `Shift`. Wrappers (DDP,
    DataParallel, torch.compile) are looked through; FSDP2 and models placed on several devices run where they
    are.

    Args:
        model: any module, also wrapped.
        batches: an iterable of tensors, tuples (as many leading parts as forward requires are passed by
            position), dicts (keys that are arguments of forward are passed by name) or `Inputs`. A single
            tensor, dict or `Inputs` is one batch.
        device: `auto` (where the model is; a model on the CPU goes to the GPU if there is one), or a device.
        max_batches: most batches to use, over all ranks together.
        autocast: True or a dtype for mixed precision as in training.
        per_dropout: also measure with each dropout switched off alone (one more train and test pass each).
        tolerance: stop once every 95 % interval is at most this far either side (of Δ; of the train variance,
            relatively, where test mode has to wait for the whole train pass). None uses all batches.
        statistics: what norms normalise by in test mode. `stored`: their running statistics, which is what
            test mode uses in a trained model. `measured`: the mean and variance of the train pass, for a
            model whose running statistics were never trained. `auto` decides for each norm: stored if it has
            seen a training batch (or its running statistics differ from 0 and 1), else measured.
        shard: every rank is given the same batches, and takes every `world_size`-th of them.
        seed: batch `i` (counted over all ranks) runs under the seed `seed + i` in every pass, so that what
            two measurements have in common meets the same masks; drawn from the random state where it is
            None.
        progress: called with batches done, batches expected or None, and what is being done (rank 0 only).
        catalogue: decides which modules are norms and dropouts.

    Returns:
        Δ, shift ratio, interval, mean shift and per-channel values of every norm, and the norms that have
        none with the reason.

    Raises:
        UsageError: the model is no module, or an option is not allowed.
        MeasureError: no norm to measure, no batch, a loader or forward that fails, no memory, or no norm got
            a number.
    """
    check_model(model)
    _check_options(max_batches, autocast, tolerance, statistics, seed)
    ranks = Ranks()
    inner = unwrapped(model)
    where, moves = place(inner, device)
    norms = require_norms(inner, catalogue)
    ranks.same([(norm.name, norm.spec) for norm in norms], "norms")
    with untouched(inner, where) as found, torch.no_grad(), eager():
        if moves:
            move(inner, where)
        buffers = Buffers(inner) if moves else found
        inner.train()
        frozen = frozenset(norm.name for norm in norms if not norm.module.training)
        stored = frozen | _stored(norms, statistics)
        again = len(stored) < len(norms) or per_dropout
        source = (
            batches
            if isinstance(batches, Batches)
            else Batches(
                batches, limit=max_batches, rank=ranks.rank, world=ranks.world, shard=shard, keep=again
            )
        )
        drawn = int(torch.randint(2**31, ()).item()) if seed is None else seed
        forward = Forward(inner, where, autocast, ranks.first(drawn))
        session = Session(forward, norms, buffers, source, ranks, tolerance=tolerance, progress=progress)
        everything = len(stored) == len(norms)
        passes = session.alternate() if everything else session.one_after_the_other(stored)
        _require_batches(passes, session)
        measured, gaps = _numbers(session, passes, stored, frozen)
        alone, baseline = _alone(session, inner, catalogue, frozen) if per_dropout else ({}, {})
        notes = [
            *source.notes,
            *forward.pick.notes,
            *dict.fromkeys(session.notes),
            *_stale(norms, measured, stored),
        ]
    if not measured:
        name, reason = next(iter(gaps.items()))
        raise MeasureError(
            f"none of the {len(norms)} norms could be measured; {name}: {reason}",
            _HINTS.get(reason.split(",")[0], "look at what comes before it, and at the batches themselves"),
        )
    kinds = {norm.statistics for norm in measured}
    return Shift(
        norms=tuple(measured),
        gaps=gaps,
        statistics="mixed" if len(kinds) > 1 else kinds.pop(),
        batches=passes.batches,
        samples=passes.samples,
        device=str(where),
        world=ranks.world,
        alone=alone,
        baseline=baseline,
        notes=tuple(notes),
        inputs=forward.first,
    )


def _check_options(
    max_batches: int | None,
    autocast: bool | torch.dtype | None,
    tolerance: float | None,
    statistics: str,
    seed: int | None,
) -> None:
    check_choice("statistics", statistics, ("auto", "stored", "measured"))
    if max_batches is not None:
        check_whole("max_batches", max_batches, least=1)
    if tolerance is not None:
        check_number("tolerance", tolerance, "of at least 0, or None", lambda number: number >= 0)
    if seed is not None:
        check_whole("seed", seed)
    if autocast is not None and not isinstance(autocast, (bool, torch.dtype)):
        raise UsageError(f"autocast={autocast!r} is not allowed: it must be True, False, None or a dtype")


_FROZEN = "stays in test mode while the model trains"
NAN = "NaN or infinity"
"""What a gap says of an input that is not finite; a caller that knows whose batches it was looks for it."""
_UNREACHED = "was never reached by these batches"
_HINTS = {
    _FROZEN: "a norm that the model itself keeps frozen cannot shift: there is nothing to measure",
    _UNREACHED: "check that forward calls it with these inputs",
}


def find_norms(model: nn.Module, catalogue: Catalogue) -> list[Listened]:
    """Every norm that shifts, once, under the name that the trace gives it."""
    found = []
    for name, module in model.named_modules():
        spec = catalogue.norm(module)
        if spec is not None and spec.shifts and spec.channels:
            found.append(Listened(bare(name), module, spec))
    return found


def require_norms(model: nn.Module, catalogue: Catalogue) -> list[Listened]:
    """Every norm that shifts.

    Raises:
        MeasureError: there is none.
    """
    norms = find_norms(model, catalogue)
    if not norms:
        raise MeasureError(
            f"{type(model).__name__} has no norm that remembers the training variance, and is a module: only"
            " modules are measured",
            "batch norms and instance norms with track_running_stats do, layer and group norms do not;"
            " for a forward that calls F.batch_norm itself, `lint` predicts the shift",
        )
    return norms


def _stored(norms: list[Listened], statistics: str) -> frozenset[str]:
    if statistics == "measured":
        return frozenset()
    names = frozenset(norm.name for norm in norms)
    if statistics == "stored":
        return names
    return frozenset(norm.name for norm in norms if is_trained(norm.module))


def is_trained(module: nn.Module) -> bool:
    """Whether the running statistics have seen a batch; old checkpoints have none counted."""
    counted = getattr(module, "num_batches_tracked", None)
    if isinstance(counted, Tensor) and int(counted) > 0:
        return True
    mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return False
    return bool((mean != 0).any()) or bool((variance != 1).any())


def _require_batches(passes: Passes, session: Session) -> None:
    if passes.batches:
        return
    if session.met_single_samples:
        raise MeasureError(
            "every batch holds a single sample, and a batch norm cannot take one in train mode",
            "use batches of at least 2 samples",
        )
    raise MeasureError(
        "the loader gave no batch with a sample in it",
        "check that the data set is not empty and that drop_last does not drop all of it",
    )


def _numbers(
    session: Session, passes: Passes, stored: frozenset[str], frozen: frozenset[str]
) -> tuple[list[NormMeasurement], dict[str, str]]:
    """The norms that have a number, in the order of the data, and why the others have none."""
    layout = session.layout
    train, test = merge_all(passes.train, layout), merge_all(passes.test, layout)
    widths = ratio_half_width(passes.train, passes.test, layout)
    owners = layout.owners()
    train_variance = train.m2 / train.count[owners].clamp_min(1)
    test_variance = test.m2 / test.count[owners].clamp_min(1)
    measured: dict[str, NormMeasurement] = {}
    gaps: dict[str, str] = {}
    for index, (norm, place_) in enumerate(zip(session.norms, layout.slices(), strict=True)):
        reached = bool(train.count[index]), bool(test.count[index])
        bad = passes.not_finite.get(norm.name)
        values = train_variance[place_], test_variance[place_], train.mean[place_], test.mean[place_]
        if norm.name in frozen:
            gaps[norm.name] = f"{_FROZEN}, so it remembers nothing new"
        elif reached == (False, False):
            gaps[norm.name] = _UNREACHED
        elif not all(reached):
            gaps[norm.name] = f"was reached in {'train' if reached[0] else 'test'} mode only"
        elif bad is not None or not all(bool(torch.isfinite(value).all()) for value in values):
            where = f"batch {bad[0]} in {bad[1]} mode" if bad is not None else "the batches of another rank"
            gaps[norm.name] = f"its input holds {NAN}, first in {where}"
        elif not float(values[0].mean()) > 0 or not float(values[1].mean()) > 0:
            mode = "test" if float(values[0].mean()) > 0 else "train"
            gaps[norm.name] = f"its input does not vary in {mode} mode"
        else:
            width = float(widths[index])
            measured[norm.name] = NormMeasurement(
                norm.name,
                norm.spec.kind,
                train_variance=values[0].clone(),
                test_variance=values[1].clone(),
                train_mean=values[2].clone(),
                test_mean=values[3].clone(),
                half_width=None if math.isnan(width) else width,
                statistics="stored" if norm.name in stored else "measured",
            )
    ordered = [measured[name] for name in passes.order if name in measured]
    ordered += [one for name, one in measured.items() if name not in set(passes.order)]
    return ordered, gaps


def _stale(norms: list[Listened], measured: list[NormMeasurement], stored: frozenset[str]) -> Iterator[str]:
    """A note where stored variances are far from what train mode shows on these batches."""
    modules = {norm.name: norm.module for norm in norms}
    off = {}
    for norm in measured:
        variance = getattr(modules[norm.name], "running_var", None)
        if norm.name in stored and isinstance(variance, Tensor):
            ratio = float(variance.double().mean().cpu() / norm.train_variance.mean())
            if not 0.5 <= ratio <= 2:
                off[norm.name] = ratio
    if off:
        worst = max(off, key=lambda name: shift_ratio(max(off[name], 1e-30)))
        yield (
            f"the stored variance of {len(off)} norms is more than a factor 2 from what train mode shows"
            f" (worst: {worst}, {off[worst]:.3g} times): the batches do not look like the training data, or"
            " the statistics are stale; statistics='measured' leaves them out of it"
        )


def _alone(
    session: Session, model: nn.Module, catalogue: Catalogue, frozen: frozenset[str]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Δ with each dropout off alone, and with all on, always under the statistics that train mode showed.

    Stored statistics would keep what the dropout did to them while the model was trained; only with
    re-measured ones does switching it off tell what it causes.
    """

    def deltas(passes: Passes) -> dict[str, float]:
        return {norm.name: norm.delta for norm in _numbers(session, passes, frozen, frozen)[0]}

    functional = FunctionalDropouts(model, catalogue)
    baseline = deltas(session.one_after_the_other(frozen, functional, ", all dropouts"))
    found = module_switches(model, catalogue) + functional_switches(model, catalogue, functional.sites)
    alone = {}
    for switch in found:
        off = session.one_after_the_other(frozen, switch.off(), f", {switch.name} off")
        alone[switch.name] = deltas(off)
    return alone, baseline
