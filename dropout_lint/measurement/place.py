"""Where the model runs: its device, and moving it there for the time of the measurement."""

from __future__ import annotations

import torch
from torch import nn

from dropout_lint.errors import MeasureError
from dropout_lint.measurement.forward import is_out_of_memory
from dropout_lint.measurement.ranks import local_rank


def place(model: nn.Module, device: str | torch.device) -> tuple[torch.device, bool]:
    """The device for the inputs, and whether the model has to be moved to it.

    `auto` leaves a model where it is if it sits on an accelerator, is sharded, or spreads over several
    devices; a model on the CPU goes to the GPU where there is one (`cuda:LOCAL_RANK`).

    Raises:
        MeasureError: the device does not exist, the weights have no values, or the model is already spread
            over several devices and another one is asked for.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        raise MeasureError(
            "the model holds lazy layers that have not seen an input yet",
            "run one batch through the model first",
        )
    devices = list(dict.fromkeys(tensor.device for tensor in tensors))
    if any(one.type == "meta" for one in devices):
        raise MeasureError(
            "the model's weights are on the meta device and have no values",
            "build it on a real device, or load a checkpoint into it",
        )
    sharded = any(hasattr(tensor, "to_local") for tensor in tensors)
    if str(device) == "auto":
        if sharded or len(devices) > 1 or (devices and devices[0].type != "cpu"):
            return devices[0], False
        if not torch.cuda.is_available():
            return torch.device("cpu"), False
        return torch.device("cuda", local_rank()), True
    wanted = _device(device)
    if devices == [wanted] or not devices:
        return wanted, False
    if sharded or len(devices) > 1:
        where = ", ".join(map(str, devices))
        raise MeasureError(
            f"the model is already placed on {where} and is not moved to {wanted}",
            "leave the device at `auto`",
        )
    return wanted, True


def move(model: nn.Module, device: torch.device) -> None:
    """Move the model to `device`.

    Raises:
        MeasureError: it does not fit there.
    """
    try:
        model.to(device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MeasureError(
            f"the model does not fit into the memory of {device}",
            "measure on the device cpu, or shard the model with FSDP2 over several devices",
        ) from error


def _device(device: str | torch.device) -> torch.device:
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise MeasureError(
            f"there is no device called {str(device)!r}", "use auto, cpu, cuda or cuda:0"
        ) from error
    if wanted.type == "cuda":
        if not torch.cuda.is_available():
            raise MeasureError(
                "torch sees no CUDA device", "use the device cpu, or install a CUDA build of torch"
            )
        index = local_rank() if wanted.index is None else wanted.index
        if index >= torch.cuda.device_count():
            raise MeasureError(
                f"there is no {wanted}: torch sees {torch.cuda.device_count()} CUDA devices",
                "choose one of them, or `auto`",
            )
        return torch.device("cuda", index)
    if wanted.type == "meta":
        raise MeasureError(
            "nothing can be measured on the meta device: it has no values", "use `auto` or cpu"
        )
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise MeasureError(f"torch cannot use the device {wanted} here", "use auto, cpu or cuda") from error
    return wanted
