"""Many processes as one: shared decisions, shared errors and exact moments merged over ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import IntEnum

import torch
import torch.distributed as dist
from torch import nn

from dropout_lint.errors import MeasureError
from dropout_lint.measurement.moments import Block


class Status(IntEnum):
    """What a rank is about to do."""

    READY = 0
    DONE = 1
    FAILED = 2


class Ranks:
    """The default process group, or this process alone."""

    def __init__(self) -> None:
        self.many = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.rank = dist.get_rank() if self.many else 0
        self.world = dist.get_world_size() if self.many else 1

    def _device(self) -> torch.device:
        if "nccl" in str(dist.get_backend()):
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def first(self, value: int) -> int:
        """Rank 0's value on every rank."""
        if not self.many:
            return value
        tensor = torch.tensor([value], dtype=torch.int64, device=self._device())
        dist.broadcast(tensor, src=0)
        return int(tensor.item())

    def statuses(self, status: Status) -> list[Status]:
        """Every rank's status."""
        if not self.many:
            return [status]
        tensor = torch.zeros(self.world, dtype=torch.int64, device=self._device())
        tensor[self.rank] = int(status)
        dist.all_reduce(tensor)
        return [Status(value) for value in tensor.tolist()]

    def same(self, value: object, what: str) -> None:
        """Check that every rank holds the same `value`.

        Raises:
            MeasureError: they differ.
        """
        if not self.many:
            return
        values: list[object] = [None] * self.world
        dist.all_gather_object(values, value)
        if any(other != values[0] for other in values):
            raise MeasureError(
                f"the ranks do not hold the same {what}",
                "measure the same model with the same options on every rank",
            )

    def gather(self, pairs: Sequence[tuple[Block, ...]]) -> list[tuple[Block, ...]]:
        """Every rank's blocks, in the order of the ranks, the same list on each."""
        if not self.many:
            return list(pairs)
        packed = [[(b.count, b.mean, b.m2, b.batches) for b in pair] for pair in pairs]
        everything: list[list[list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]]] | None]
        everything = [None] * self.world
        dist.all_gather_object(everything, packed)
        return [tuple(Block(*parts) for parts in pair) for one in everything if one for pair in one]

    def total(self, value: int) -> int:
        """The sum over ranks."""
        if not self.many:
            return value
        tensor = torch.tensor([value], dtype=torch.int64, device=self._device())
        dist.all_reduce(tensor)
        return int(tensor.item())

    def raise_for(self, statuses: Sequence[Status]) -> None:
        """Stop this rank where another one failed.

        Raises:
            MeasureError: naming the rank that failed.
        """
        failed = [rank for rank, status in enumerate(statuses) if status is Status.FAILED]
        if failed:
            raise MeasureError(f"the measurement failed on rank {failed[0]}", "see the message of that rank")


def local_rank() -> int:
    """This process's place on its machine, as torchrun sets it; 0 without."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def needs_lockstep(model: nn.Module) -> bool:
    """Whether a forward of `model` talks to the other ranks, so that all have to run it equally often."""
    for module in model.modules():
        fsdp = hasattr(module, "reshard") or type(module).__name__ == "FullyShardedDataParallel"
        if fsdp or isinstance(module, nn.SyncBatchNorm):
            return True
    return any(hasattr(parameter, "to_local") for parameter in model.parameters())
