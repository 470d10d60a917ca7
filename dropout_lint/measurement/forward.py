"""One forward pass of one batch in one mode, with everything that can go wrong named."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from dropout_lint.errors import MeasureError
from dropout_lint.guard.untouched import Buffers, seed_everything
from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.usercode import own_traceback
from dropout_lint.measurement.batches import Picker, describe, samples_of, to_device
from dropout_lint.measurement.record import Recorder


class Forward:
    """Runs batches through the model; the same batch meets the same random numbers in every pass.

    Args:
        model: already on its device.
        device: where the inputs go.
        autocast: a dtype or True for mixed precision as in training, None to leave it as it is.
        seed: batch `i` runs under `seed + i`, on whichever rank it runs.

    Attributes:
        first: the shapes of the first batch that ran in train mode, one text for each argument.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, autocast: bool | torch.dtype | None, seed: int
    ) -> None:
        self.model, self.device, self.seed = model, device, seed
        self.pick = Picker(model)
        self.autocast = autocast
        self.samples = 0
        self.first: tuple[str, ...] = ()

    def inputs(self, batch: Any) -> Inputs:
        """The arguments that a batch stands for, on the device."""
        picked: Inputs = to_device(self.pick(batch), self.device, copy=False)
        return picked

    def __call__(
        self, inputs: Inputs, index: int, recorder: Recorder, buffers: Buffers, *, train: bool
    ) -> bool:
        """Run the batch and commit what the norms heard; buffers are put back afterwards.

        Returns:
            False where the batch is too small for a batch norm in train mode and was left out.

        Raises:
            MeasureError: the forward failed or the device ran out of memory.
        """
        self.model.train(train)
        seed_everything(self.seed + index, self.device)
        own = to_device(inputs, self.device, copy=True)
        try:
            with recorder, precision(self.device, self.autocast):
                self.model(*own.args, **own.kwargs)
            recorder.commit(index)
        except Exception as error:
            recorder.drop()
            if train and is_single_value(error):
                return False
            where = "in train mode" if train else "in test mode"
            raise why_it_failed(error, inputs, index, where, device=self.device, first=self.first) from error
        finally:
            buffers.restore()
        if train:
            self.samples += samples_of(inputs)
            self.first = self.first or inputs.describe()
        return True


def precision(device: torch.device, autocast: bool | torch.dtype | None) -> AbstractContextManager[Any]:
    """Mixed precision as in training with autocast; None leaves it as it is."""
    if autocast is None:
        return nullcontext()
    dtype = autocast if isinstance(autocast, torch.dtype) else None
    return torch.autocast(device.type, dtype=dtype, enabled=autocast is not False)


def why_it_failed(
    error: Exception, inputs: Inputs, index: int, where: str, *, device: torch.device, first: tuple[str, ...]
) -> MeasureError:
    """What went wrong in a batch, and what to do about it.

    Args:
        error: what was raised.
        inputs: what the model was given.
        index: number of the batch.
        where: `in train mode`, or what else was being done.
        device: where the model ran.
        first: the shapes of the first batch that ran, nothing where none did.
    """
    if is_out_of_memory(error):
        samples = samples_of(inputs)
        smaller = f"{samples // 2} samples" if samples > 1 else "a smaller input"
        return MeasureError(
            f"{device} ran out of memory on batch {index} ({describe(inputs)}) {where}",
            f"lower the batch size (try {smaller}), use mixed precision (`--amp`, autocast=True),"
            " or measure on the device cpu",
        )
    text = f"the model failed on batch {index} ({describe(inputs)}) {where}: {one_line(error)}"
    if first and first != inputs.describe():
        hint = f"the first batch was {', '.join(first)}; let the loader yield batches of one form"
    else:
        hint = "batches must fit forward's arguments: a tensor, a tuple in their order, or a dict by name"
    return MeasureError(text, hint, details=own_traceback(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a device (or the host) running out of memory, in any of torch's wordings."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "alloc_failed" in text
    )


def is_single_value(error: Exception) -> bool:
    """Whether a batch norm was given a single value per channel in train mode."""
    return isinstance(error, ValueError) and "more than 1 value per channel" in str(error)


def one_line(error: Exception) -> str:
    """The class of an exception, and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
