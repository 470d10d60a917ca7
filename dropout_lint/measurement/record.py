"""Listening at the norms: the moments of every norm's input, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dropout_lint.layers import NormSpec
from dropout_lint.measurement.moments import Block, BlockList, Layout, channel_moments

# Batches whose moments wait on the device before one copy takes them to the host.
FOLD_EVERY = 16

Seen = tuple[Tensor, Tensor, int]


@dataclass(frozen=True)
class Listened:
    """One norm that is measured: its qualified name, the module and what the catalogue says of it."""

    name: str
    module: nn.Module
    spec: NormSpec


def layout_of(norms: Sequence[Listened]) -> Layout:
    """The flat layout of these norms' channels."""
    return Layout(
        tuple(norm.name for norm in norms),
        tuple(norm.spec.channels or 0 for norm in norms),
        tuple(norm.spec.family != "instance" for norm in norms),
    )


class Recorder:
    """Takes the moments of every norm's input while it is entered; one per mode and pass.

    It replaces `forward` on each norm instance, so a norm that is called as `norm.forward(x)` is seen as
    well, the user's own hooks run as before, and nothing stays in the model's hook tables.
    """

    def __init__(self, norms: Sequence[Listened]) -> None:
        self.norms = tuple(norms)
        self.layout = layout_of(norms)
        self.blocks = BlockList(self.layout)
        self.not_finite: dict[str, int] = {}
        self.order: list[str] = []
        self._known: set[str] = set()
        self._calls: dict[int, list[Seen]] = {}
        self._waiting: list[tuple[int, list[int], Tensor]] = []
        self._patched: list[tuple[nn.Module, Any]] = []

    def __enter__(self) -> Self:
        for index, norm in enumerate(self.norms):
            self._patched.append((norm.module, norm.module.__dict__.get("forward")))
            norm.module.__dict__["forward"] = self._listening(index, norm, norm.module.forward)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module, before in reversed(self._patched):
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before
        self._patched.clear()

    def _listening(self, index: int, norm: Listened, forward: Callable[..., Any]) -> Callable[..., Any]:
        calls, order, instance = self._calls, self.order, norm.spec.family == "instance"
        # only torch's own forward is known to keep its statistics this way, and only if nobody wrapped it
        own = getattr(forward, "__func__", None) is _BatchNorm.forward
        plain = own and "forward" not in norm.module.__dict__

        def listen(*args: Any, **kwargs: Any) -> Any:
            value = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(value, Tensor):
                if norm.name not in self._known:
                    self._known.add(norm.name)
                    order.append(norm.name)
                if plain and _counts_itself(norm.module, value):
                    out, seen = _ask(norm.module, value, forward, args, kwargs)
                    calls.setdefault(index, []).append(seen)
                    return out
                calls.setdefault(index, []).append(_moments(value, norm, instance))
            return forward(*args, **kwargs)

        return listen

    def commit(self, batch: int) -> None:
        """The batch went through: keep what was heard. The device is waited for every `FOLD_EVERY` calls."""
        while self._calls:
            self._waiting.append(self._row(batch))
        if len(self._waiting) >= FOLD_EVERY:
            self.fold()

    def drop(self) -> None:
        """The batch did not go through: forget what was heard of it."""
        self._calls.clear()

    def _row(self, batch: int) -> tuple[int, list[int], Tensor]:
        """The next call of every norm, as one flat tensor on the first device; later calls stay."""
        heard = {index: calls.pop(0) for index, calls in self._calls.items()}
        for index in [index for index, calls in self._calls.items() if not calls]:
            del self._calls[index]
        device = next(iter(heard.values()))[0].device
        variances, means, counts = [], [], []
        for index, size in enumerate(self.layout.channels):
            if index in heard:
                variance, mean, count = heard[index]
                variances.append(variance.to(device, non_blocking=True))
                means.append(mean.to(device, non_blocking=True))
            else:
                count = 0
                variances.append(torch.zeros(size, device=device))
                means.append(variances[-1])
            counts.append(count)
        return batch, counts, torch.cat(variances + means)

    def fold(self) -> None:
        """Bring the waiting moments to the host and merge them into the blocks."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = torch.stack([row for _, _, row in waiting]).to("cpu", torch.float64)
        slices, total = self.layout.slices(), self.layout.total
        owners = self.layout.owners()
        done = 0
        while done < len(waiting):
            batch = waiting[done][0]
            calls = BlockList(self.layout, limit=1)
            while done < len(waiting) and waiting[done][0] == batch:
                count = torch.tensor(waiting[done][1], dtype=torch.float64)
                variance, mean = rows[done, :total], rows[done, total:]
                if not bool(torch.isfinite(rows[done]).all()):
                    for name, place in zip(self.layout.names, slices, strict=True):
                        if not bool((torch.isfinite(variance[place]) & torch.isfinite(mean[place])).all()):
                            self.not_finite.setdefault(name, batch)
                calls.add(Block(count, mean, variance * count[owners]))
                done += 1
            (block,) = calls.blocks
            self.blocks.add(Block(block.count, block.mean, block.m2))


def _counts_itself(module: nn.Module, value: Tensor) -> bool:
    """Whether this call finds the exact moments of its input anyway, so that they need not be found twice.

    That is a batch norm in train mode on the CPU, on contiguous maps: its kernel sums in float64 there. With
    channels innermost it sums in float32, one after the other, and loses a mean of 3000; on GPUs cuDNN may
    do the sums in a way of its own.
    """
    return (
        module.training
        and value.device.type == "cpu"
        and value.dtype == torch.float32
        and value.dim() > 2
        and value.is_contiguous()
        and value.shape[2:].numel() > 1
        and isinstance(module.running_mean, Tensor)
        and isinstance(module.running_var, Tensor)
        and module.running_var.dtype == torch.float32
    )


def _ask(
    module: nn.Module,
    value: Tensor,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, Seen]:
    """Run the norm so that its running statistics become those of this batch; they are put back later."""
    mean, variance = module.running_mean, module.running_var
    assert isinstance(mean, Tensor) and isinstance(variance, Tensor)
    norm: Any = module
    momentum, norm.momentum = norm.momentum, 1.0
    mean.data.zero_()  # whatever they held (NaN, too) is multiplied by 1 - momentum
    variance.data.zero_()
    try:
        out = forward(*args, **kwargs)
    finally:
        norm.momentum = momentum
    count = value.numel() // value.shape[1]
    return out, (variance.double() * ((count - 1) / count), mean.double(), count)


def _moments(value: Tensor, norm: Listened, instance: bool) -> Seen:
    value = value.detach()
    if hasattr(value, "full_tensor"):  # a DTensor of tensor parallelism
        value = value.full_tensor()
    channels = norm.spec.channels or 0
    if instance and value.dim() == _unbatched_rank(norm.module):
        value = value.unsqueeze(0)
    if value.dim() < 2 or value.shape[1] != channels:
        # the norm itself says what is wrong with it, in the user's terms
        return torch.zeros(channels), torch.zeros(channels), 0
    return channel_moments(value, per_instance=instance)


def _unbatched_rank(module: nn.Module) -> int:
    get = getattr(module, "_get_no_batch_dim", None)
    return int(get()) if get is not None else -1
