"""A pilot: a copy of the model is trained for some steps and measured: Δ as training really leads to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from dropout_lint.errors import MeasureError, UsageError
from dropout_lint.guard.arguments import check_model, check_number, check_whole
from dropout_lint.guard.eager import eager
from dropout_lint.guard.untouched import untouched
from dropout_lint.guard.wrappers import unwrapped
from dropout_lint.layers import STANDARD, Catalogue
from dropout_lint.measurement.batches import Batches
from dropout_lint.measurement.losses import Loss
from dropout_lint.measurement.place import move, place
from dropout_lint.measurement.ranks import Ranks
from dropout_lint.measurement.record import Listened
from dropout_lint.measurement.run import is_trained, measure, require_norms
from dropout_lint.measurement.session import Progress
from dropout_lint.measurement.shift import Shift
from dropout_lint.measurement.training import LAST_STEPS, LEARNING_RATE, SEED, HeldBack, Trainer, held_back
from dropout_lint.words import count

_LEFT = 0.05  # of the start in a running statistic, from which on a note says so


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
    statistics: Literal["auto", "stored", "measured"] = "auto",
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
        statistics: as for `measure`; `auto` is `measured`, since running statistics are behind weights that
            still move fast, at every norm and without any dropout. The loss in test mode is of the running
            ones.
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
    source = batches if isinstance(batches, Batches) else Batches(batches)
    with (
        untouched(inner, where),
        torch.inference_mode(False),
        eager(),
        torch.enable_grad(),
    ):
        own = _copy(inner)
        move(own, where)
        fresh = [norm for norm in require_norms(own, catalogue) if not is_trained(norm.module)]
        trainer = Trainer(own, where, loss or Loss(None), autocast, seed)
        held = held_back(source)
        last = trainer.train(source, held, steps, learning_rate, progress)
        kept = trainer.losses(source, held, steps)
        left = _left_of_start(fresh, steps)
        shift = measure(
            own,
            Batches(_Again(source), limit=max_batches),
            device=where,
            autocast=autocast,
            seed=seed,
            statistics="measured" if statistics == "auto" else statistics,
            progress=progress,
            catalogue=catalogue,
            **measuring,
        )
        notes = [*source.notes, *trainer.notes, *trainer.pick.notes]
        if kept is None:
            notes.append("no batch was held back: the loader gives a single one")
        if left > _LEFT:
            notes.append(
                f"after {count(steps, 'step')} the running statistics still hold {left:.0%} of their start,"
                " and the loss held back in test mode suffers from that: train for more steps"
            )
    return Pilot(shift, steps, last, kept, trainer.loss.name, learning_rate, seed, tuple(notes))


def check_pilot(steps: object, learning_rate: object, seed: object) -> None:
    """Refuse what cannot be trained with.

    Raises:
        UsageError: an option is not allowed.
    """
    check_whole("steps", steps, least=1)
    check_whole("seed", seed, least=0)
    check_number("learning_rate", learning_rate, "above 0", lambda number: 0 < number < math.inf)


class _Again:
    """What a source has read already, and what comes after it, for another reader."""

    def __init__(self, source: Batches) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return (batch for _, batch in self.source.read())

    def __len__(self) -> int:
        return len(self.source.source)  # type: ignore[arg-type]  # a source without one raises TypeError


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


def _left_of_start(norms: list[Listened], steps: int) -> float:
    """The largest share of what running statistics started from that is still in them."""
    momenta = [getattr(norm.module, "momentum", None) for norm in norms]
    return max(((1 - momentum) ** steps for momentum in momenta if momentum is not None), default=0.0)
