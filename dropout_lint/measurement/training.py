"""The training loop of a pilot, and the losses at its end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from dropout_lint.errors import MeasureError, UsageError
from dropout_lint.guard.untouched import Buffers, seed_everything
from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.usercode import own_traceback
from dropout_lint.measurement.batches import Batches, Picker, describe, is_empty, samples_of, to_device
from dropout_lint.measurement.forward import (
    is_out_of_memory,
    is_single_value,
    one_line,
    precision,
    why_it_failed,
)
from dropout_lint.measurement.losses import Loss
from dropout_lint.measurement.session import Progress, expected_batches

OPTIMIZER = "AdamW"
LEARNING_RATE = 1e-3
SEED = 0
LAST_STEPS = 20
"""The training loss at the end is the mean over so many steps at most."""
HELD_BACK = 10
"""Batches that are held back at most, and never more than `1 / SHARE` of them."""
SHARE = 5


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
                scaler.scale(value).backward()  # type: ignore[no-untyped-call]  # untyped in torch
                scaler.step(optimizer)
                scaler.update()
            except Exception as error:
                if is_out_of_memory(error):
                    raise self._failed(error, inputs, index, when) from error
                raise MeasureError(
                    f"the training failed {when}, on batch {index} ({describe(inputs)}): {one_line(error)}",
                    "its backward pass or AdamW failed: see whether the model trains in a loop of your own",
                    details=own_traceback(error),
                ) from error
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
