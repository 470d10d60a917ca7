"""A pilot: a copy of the model is trained for some steps and measured: Δ as training really leads to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from dropout_lint.errors import MeasureError, UsageError
from dropout_lint.guard.arguments import check_model, check_number, check_whole
from dropout_lint.guard.eager import eager
from dropout_lint.guard.untouched import Buffers, seed_everything, untouched
from dropout_lint.guard.wrappers import unwrapped
from dropout_lint.inputs.example import Inputs
from dropout_lint.layers import STANDARD, Catalogue
from dropout_lint.measurement.batches import Batches, Picker, is_empty, samples_of, to_device
from dropout_lint.measurement.forward import is_single_value, precision, why_it_failed
from dropout_lint.measurement.losses import Loss
from dropout_lint.measurement.place import move, place
from dropout_lint.measurement.ranks import Ranks
from dropout_lint.measurement.record import Listened
from dropout_lint.measurement.run import is_trained, measure, require_norms
from dropout_lint.measurement.session import Progress, expected_batches
from dropout_lint.measurement.shift import Shift

OPTIMIZER = "AdamW"
LEARNING_RATE = 1e-3
SEED = 0
LAST_STEPS = 20
"""The training loss at the end is the mean over so many steps at most."""
HELD_BACK = 10
"""Batches that are held back at most, and never more than `1 / SHARE` of them."""
SHARE = 5
_LEFT = 0.05  # of the start in a running statistic, from which on a note says so


@dataclass(frozen=True)
class HeldBack:
    """The loss of batches that were not trained on.

    Attributes:
        batches, samples: how many.
        train_mode: mean loss a sample with dropout on and norms normalising by the batch.
        test_mode: the same as the network is used later.
    """

    batches: int
    samples: int
    train_mode: float
    test_mode: float


@dataclass(frozen=True, eq=False)
class Pilot:
    """One network that was trained for some steps, and measured.

    Attributes:
        shift: Δ at every norm of the trained copy.
        steps: optimizer steps.
        training_loss: mean loss over the last `last_steps` steps, in train mode.
        held_back: the loss of the batches that were held back, None where there were none.
        loss: the name of the loss.
        learning_rate: of AdamW.
        seed: what the masks were drawn from.
        notes: things to say aloud, about the training; those about the measurement are in `shift`.
    """

    shift: Shift
    steps: int
    training_loss: float
    held_back: HeldBack | None
    loss: str
    learning_rate: float
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def last_steps(self) -> int:
        """The steps at the end that `training_loss` is the mean over."""
        return min(self.steps, LAST_STEPS)


def train_and_measure(
    model: nn.Module,
    batches: Iterable[Any] | Batches,
    steps: int,
    *,
    loss: Loss | None = None,
    learning_rate: float = LEARNING_RATE,
    seed: int = SEED,
    device: str | torch.device = "auto",
    autocast: bool | torch.dtype | None = None,
    max_batches: int | None = None,
    progress: Progress | None = None,
    catalogue: Catalogue = STANDARD,
    **measuring: Any,
) -> Pilot:
    """Train a copy of `model`, and measure the copy; `model` is left as it was.

    A fifth of the loader's batches, `HELD_BACK` at most and spread over its first 50, are held back; the
    others are trained on in their order, again from the start when the loader ends. Step `i` runs under the
    seed `seed + i`, so that networks which are compared see the same batches and the same random numbers.

    Args:
        model: any module, also wrapped; its weights are where the training starts.
        batches: as for `measure`, with labels for cross-entropy.
        steps: optimizer steps.
        loss: what is minimised; None for cross-entropy.
        learning_rate: of AdamW.
        seed: what the random numbers of training and measurement are drawn from.
        device, autocast, catalogue: as for `measure`.
        max_batches: most batches to measure with; training takes what it needs.
        progress: called with steps done, all steps, and what is being done.
        measuring: passed to `measure`.

    Raises:
        UsageError: an option is not allowed, there is nothing to train or to train on, or the loss is none.
        MeasureError: the model cannot be copied or trained, or as `measure`.
    """
    check_model(model)
    check_pilot(steps, learning_rate, seed)
    if Ranks().many:
        raise UsageError("a pilot trains in one process", "start it without torchrun")
    inner = unwrapped(model)
    where, _ = place(inner, device)
    norms = len(require_norms(inner, catalogue))
    source = batches if isinstance(batches, Batches) else Batches(batches)
    with (
        untouched(inner, where),
        torch.inference_mode(False),
        eager(),
        torch.enable_grad(),
    ):
        own = _copy(inner)
        move(own, where)
        fresh = [norm for norm in require_norms(own, catalogue)[:norms] if not is_trained(norm.module)]
        trainer = Trainer(own, where, loss or Loss(None), autocast, seed)
        held = held_back(source)
        last = trainer.train(source, held, steps, learning_rate, progress)
        kept = trainer.losses(source, held, steps)
        shift = measure(
            own,
            Batches(_Again(source), limit=max_batches),
            device=where,
            autocast=autocast,
            seed=seed,
            progress=progress,
            catalogue=catalogue,
            **measuring,
        )
        notes = [*source.notes, *trainer.notes, *trainer.pick.notes]
        if kept is None:
            notes.append("no batch was held back: the loader gives a single one")
        if shift.statistics != "measured":
            notes += _still_fresh(fresh, steps)
    return Pilot(shift, steps, last, kept, trainer.loss.name, learning_rate, seed, tuple(notes))


def check_pilot(steps: object, learning_rate: object, seed: object) -> None:
    """Refuse what cannot be trained with.

    Raises:
        UsageError: an option is not allowed.
    """
    check_whole("steps", steps, least=1)
    check_whole("seed", seed, least=0)
    check_number("learning_rate", learning_rate, "above 0", lambda number: 0 < number < math.inf)


def held_back(source: Batches) -> frozenset[int]:
    """Which of the loader's batches are not trained on.

    Raises:
        UsageError: the loader is empty.
    """
    most = HELD_BACK * SHARE
    known = expected_batches(source)
    count = sum(1 for _ in islice(source.read(), most)) if known is None else min(known, most)
    if count == 0:
        raise empty_loader()
    if count == 1:
        return frozenset()
    held = max(1, count // SHARE)
    return frozenset(int((index + 0.5) * count / held) for index in range(held))


def empty_loader() -> UsageError:
    """What is wrong with a loader that gives no batch."""
    return UsageError(
        "the loader is empty: there is nothing to train on",
        "check that the data set is not empty and that drop_last does not drop all of it",
    )


class Trainer:
    """The training loop of a pilot, and the losses at its end.

    Args:
        model: the copy that is trained, on its device.
        device: where the batches go.
        loss: what is minimised.
        autocast: a dtype or True for mixed precision, None to leave it as it is.
        seed: step `i` runs under `seed + i`.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        loss: Loss,
        autocast: bool | torch.dtype | None,
        seed: int,
    ) -> None:
        self.model, self.device, self.loss = model, device, loss
        self.autocast, self.seed = autocast, seed
        self.pick = Picker(model)
        self.notes: list[str] = []
        self._first: tuple[str, ...] = ()
        self._left_out: set[int] = set()

    def train(
        self,
        source: Batches,
        held: frozenset[int],
        steps: int,
        learning_rate: float,
        progress: Progress | None,
    ) -> float:
        """Train for `steps` steps of AdamW; gives the mean loss of the last ones.

        Raises:
            UsageError: nothing can be trained, or the loss is none.
            MeasureError: the loader or the model failed.
        """
        weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not weights:
            raise UsageError(
                f"{type(self.model).__name__} has no parameter that requires a gradient, so nothing can be"
                " trained",
                "leave out the pilot, or unfreeze what training is to change",
            )
        optimizer = torch.optim.AdamW(weights, lr=learning_rate)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self._needs_scaling())
        self.model.train()
        losses: list[float] = []
        for index, batch in self._batches(source, held, steps):
            step = len(losses)
            seed_everything(self.seed + step, self.device)
            optimizer.zero_grad(set_to_none=True)
            when = f"at step {step + 1}"
            found = self._loss(batch, index, when, training=True)
            if found is None:
                continue
            value, inputs = found
            try:
                scaler.scale(value).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                scaler.update()
            except Exception as error:
                raise self._failed(error, inputs, index, f"in the training {when}") from error
            losses.append(float(value.detach()))
            self._require_finite(losses, learning_rate)
            if progress is not None:
                progress(len(losses), steps, "pilot training")
        optimizer.zero_grad(set_to_none=True)
        if self._left_out:
            self.notes.append(
                f"{len(self._left_out)} batches of a single sample were not trained on: a batch norm cannot"
                " take them in train mode"
            )
        last = losses[-LAST_STEPS:]
        return sum(last) / len(last)

    def losses(self, source: Batches, held: frozenset[int], steps: int) -> HeldBack | None:
        """The mean loss of the batches that were held back, in both modes; None where there are none."""
        buffers = Buffers(self.model)
        totals = {True: 0.0, False: 0.0}
        batches = samples = 0
        for index, batch in source.read(max(held, default=-1) + 1):
            if index not in held:
                continue
            found: dict[bool, float] = {}
            size = 0
            for mode in (True, False):
                self.model.train(mode)
                seed_everything(self.seed + steps + index, self.device)
                try:
                    pair = self._loss(batch, index, "on the batches held back", training=False)
                finally:
                    buffers.restore()
                if pair is None:
                    break
                found[mode], size = float(pair[0].detach()), samples_of(pair[1]) or 1
            if len(found) == len(totals):
                batches, samples = batches + 1, samples + size
                totals = {mode: total + size * found[mode] for mode, total in totals.items()}
        if not batches:
            return None
        return HeldBack(batches, samples, totals[True] / samples, totals[False] / samples)

    def _batches(self, source: Batches, held: frozenset[int], steps: int) -> Iterator[tuple[int, Any]]:
        """Batches to train on, over and over, until `steps` of them were not left out."""
        done = 0
        while done < steps:
            before = done
            for index, batch in source.read():
                if index in held or index in self._left_out:
                    continue
                yield index, batch
                done += index not in self._left_out
                if done == steps:
                    return
            if done == before:
                raise MeasureError(
                    "no batch of the loader can be trained on: they are empty, or hold a single sample,"
                    " which a batch norm cannot take",
                    "use batches of at least 2 samples",
                )

    def _loss(self, batch: Any, index: int, when: str, *, training: bool) -> tuple[Tensor, Inputs] | None:
        """The loss of a batch and the model's inputs; None where it is too small for a batch norm."""
        own = to_device(batch, self.device, copy=True)
        inputs = self.pick(own)
        if is_empty(inputs):
            self._left_out.add(index)
            return None
        shapes = inputs.describe()  # the model may write into them
        try:
            with precision(self.device, self.autocast):
                output = self.model(*inputs.args, **inputs.kwargs)
                value = self.loss(output, own, inputs, when, training=training)
        except UsageError:
            raise
        except Exception as error:
            if self.model.training and is_single_value(error):
                self._left_out.add(index)
                return None
            raise self._failed(error, inputs, index, when) from error
        self._first = self._first or shapes
        return value, inputs

    def _failed(self, error: Exception, inputs: Inputs, index: int, when: str) -> MeasureError:
        return why_it_failed(error, inputs, index, when, device=self.device, first=self._first)

    def _require_finite(self, losses: list[float], learning_rate: float) -> None:
        if math.isfinite(losses[-1]):
            return
        if len(losses) == 1:
            hint = "look at the first batch, the labels and the loss for NaN, infinity or a logarithm of 0"
        else:
            hint = f"train more slowly: `--learning-rate` (learning_rate) is {learning_rate:g}"
        raise UsageError(f"the loss `{self.loss.name}` is {losses[-1]} at step {len(losses)}", hint)

    def _needs_scaling(self) -> bool:
        """Half precision loses small gradients, unless the loss is scaled."""
        if self.device.type != "cuda" or not self.autocast:
            return False
        given = self.autocast
        return (
            given if isinstance(given, torch.dtype) else torch.get_autocast_dtype("cuda")
        ) is torch.float16


class _Again:
    """What a source has read already, and what comes after it, for another reader."""

    def __init__(self, source: Batches) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return (batch for _, batch in self.source.read())


def _copy(model: nn.Module) -> nn.Module:
    try:
        own = copy.deepcopy(model)
    except Exception as error:
        raise MeasureError(
            f"{type(model).__name__} cannot be copied, and a pilot trains a copy: {type(error).__name__}:"
            f" {error}",
            "take out what cannot be copied (results of a forward pass that are kept, locks, open files)",
        ) from error
    for parameter in own.parameters():
        parameter.grad = None
    return own


def _still_fresh(norms: list[Listened], steps: int) -> Iterator[str]:
    """A note where running statistics still hold much of what they started from."""
    momenta = [getattr(norm.module, "momentum", None) for norm in norms]
    left = max(((1 - momentum) ** steps for momentum in momenta if momentum is not None), default=0.0)
    if left > _LEFT:
        yield (
            f"after {steps} steps the running statistics still hold {left:.0%} of their start: train for more"
            " steps, or measure with `--statistics measured`"
        )
