"""The model as it was: everything that a forward pass may change, put back on every way out."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

# Parameters are copied as well (a forward may rewrite its own weights) while they are no larger than this;
# larger ones are kept by reference, which still undoes `weight.data = …`.
COPY_LIMIT = 256 * 2**20


@dataclass(frozen=True)
class RngState:
    """The state of the generators: Python's, NumPy's where it is imported, torch's on the host and on
    devices.

    Accelerators that nobody uses are left alone: asking them for their state would initialise them.
    """

    python: Any
    numpy: Any
    cpu: Tensor
    devices: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def capture(cls, kinds: Iterable[str] = ()) -> RngState:
        """The state now, of the host and of the accelerators in `kinds` (`cuda`, `xpu`, `mps`)."""
        numpy = sys.modules.get("numpy")
        held: dict[str, Any] = {}
        for name in kinds:
            backend = getattr(torch, name)
            many = getattr(backend, "get_rng_state_all", None)
            held[name] = many() if many is not None else backend.get_rng_state()
        return cls(
            random.getstate(),
            numpy.random.get_state() if numpy is not None else None,
            torch.get_rng_state(),
            held,
        )

    def restore(self) -> None:
        """Put the captured state back."""
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        for name, state in self.devices.items():
            backend = getattr(torch, name)
            many = getattr(backend, "set_rng_state_all", None)
            if many is not None:
                many(state)
            else:
                backend.set_rng_state(state)


def used_accelerators(device: torch.device) -> frozenset[str]:
    """The accelerators whose random state a run on `device` may change."""
    kinds = {name for name in ("cuda", "xpu") if getattr(torch, name).is_initialized()}
    return frozenset(kinds | {device.type}) & {"cuda", "xpu", "mps"}


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed the generators that a forward pass on `device` may draw from.

    `torch.manual_seed` would also leave a seed behind for every accelerator that has not started yet.
    """
    torch.default_generator.manual_seed(seed)
    for name in used_accelerators(device):
        backend = getattr(torch, name)
        getattr(backend, "manual_seed_all", backend.manual_seed)(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def _local(tensor: Tensor) -> Tensor:
    """The values that this process holds, sharing memory and leaving the version counter alone."""
    if hasattr(tensor, "to_local"):
        with torch.no_grad():
            local: Tensor = tensor.to_local()
            return local.data
    return tensor.data


class Buffers:
    """The values of all buffers; `restore` puts them back at any time, in one fused copy for each dtype."""

    def __init__(self, model: nn.Module) -> None:
        groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
        for buffer in model.buffers():
            values = _local(buffer)
            aliases, copies = groups.setdefault((values.device, values.dtype), ([], []))
            aliases.append(values)
            copies.append(values.clone())
        self._groups = list(groups.values())

    def restore(self) -> None:
        """Write the kept values into the very tensors that they came from."""
        for aliases, copies in self._groups:
            torch._foreach_copy_(aliases, copies)


@dataclass
class _ParameterState:
    parameter: nn.Parameter
    alias: Tensor
    copy: Tensor | None
    gradient: Tensor | None
    gradient_alias: Tensor | None
    sharded: bool


def _parameter_states(model: nn.Module) -> list[_ParameterState]:
    parameters = list(model.parameters())
    total = sum(_local(p).numel() * _local(p).element_size() for p in parameters)
    states = []
    for parameter in parameters:
        alias = _local(parameter)
        gradient = parameter.grad
        states.append(
            _ParameterState(
                parameter,
                alias,
                alias.clone() if total <= COPY_LIMIT else None,
                gradient,
                gradient.data if gradient is not None and not hasattr(gradient, "to_local") else None,
                hasattr(parameter, "to_local"),
            )
        )
    return states


def _same_storage(a: Tensor, b: Tensor) -> bool:
    return (
        a.device == b.device
        and a.dtype == b.dtype
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.data_ptr() == b.data_ptr()
    )


def _restore_parameters(states: list[_ParameterState]) -> None:
    for state in states:
        parameter = state.parameter
        if not state.sharded and not _same_storage(parameter.data, state.alias):
            parameter.data = state.alias
        if state.copy is not None:
            state.alias.copy_(state.copy)
        kept, held = state.gradient, state.gradient_alias
        if kept is not None and held is not None and not _same_storage(kept.data, held):
            kept.data = held
        if parameter.grad is not state.gradient:
            parameter.grad = state.gradient


def _attributes(model: nn.Module) -> list[tuple[nn.Module, dict[str, Any], dict[str, dict[str, Any]]]]:
    """For each module its attributes, and what its tables of parameters, buffers and children hold."""
    kept = []
    for module in model.modules():
        tables = {name: dict(module.__dict__[name]) for name in ("_parameters", "_buffers", "_modules")}
        kept.append((module, dict(module.__dict__), tables))
    return kept


def _restore_attributes(kept: list[tuple[nn.Module, dict[str, Any], dict[str, dict[str, Any]]]]) -> None:
    for module, attributes, tables in kept:
        now = module.__dict__
        for name in [name for name in now if name not in attributes]:
            del now[name]
        for name, value in attributes.items():
            if now.get(name, kept) is not value:
                now[name] = value
        for name, table in tables.items():
            current = now[name]
            if list(current) != list(table) or any(current[key] is not table[key] for key in table):
                current.clear()
                current.update(table)


def _reshard(model: nn.Module) -> None:
    """FSDP2 leaves its root gathered after a forward; the sharded parameters are the ones to keep."""
    for module in model.modules():
        reshard = getattr(module, "reshard", None)
        if callable(reshard) and hasattr(module, "set_reshard_after_forward"):
            reshard()


def _holds_fsdp1(model: nn.Module) -> bool:
    """FSDP1 keeps its own state in module attributes; putting old ones back would break it."""
    return any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A Ctrl-C that comes meanwhile is delivered afterwards (signals reach the main thread alone)."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _gradient_mode_kept() -> Iterator[None]:
    """A Ctrl-C that comes between the end of a `no_grad` block and its clean-up leaves gradients on."""
    enabled = torch.is_grad_enabled()
    try:
        yield
    except KeyboardInterrupt:
        torch.set_grad_enabled(enabled)
        raise


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[Buffers]:
    """Leaves `model` bit-identical, also after an exception or Ctrl-C.

    Put back: parameters, buffers and gradients (values, memory and device), training modes, attributes that
    `forward` sets, and the random generators of the host and of the devices in use. Values are written
    without touching version counters, so a pending backward of the caller's still works.

    Args:
        model: any module.
        device: where it is going to run.

    Yields:
        The buffers' values, for going back to them between two forwards.
    """
    _reshard(model)
    rng = RngState.capture(used_accelerators(device))
    attributes = None if _holds_fsdp1(model) else _attributes(model)
    modes = [(module, module.training) for module in model.modules()]
    with _gradient_mode_kept():
        with torch.no_grad():
            parameters = _parameter_states(model)
            buffers = Buffers(model)

        def put_back() -> None:
            with _uninterrupted(), torch.no_grad():
                _reshard(model)
                if attributes is not None:
                    _restore_attributes(attributes)
                for module, mode in modes:
                    module.training = mode
                buffers.restore()
                _restore_parameters(parameters)
                rng.restore()

        try:
            try:
                yield buffers
            finally:
                put_back()
        except KeyboardInterrupt:
            put_back()  # Python may deliver it on the way into the first one
            raise
