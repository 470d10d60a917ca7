"""Lazy modules: a copy whose parameters have taken their shapes, made without touching the model."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.values import replaced
from dropout_lint.trace.materials import Materials
from dropout_lint.trace.staging import preserved


def has_lazy_parameters(model: nn.Module) -> bool:
    """Whether some parameter of `model` takes its shape at the first call."""
    return any(is_lazy(parameter) for parameter in model.parameters())


def with_shapes(model: nn.Module, candidates: Iterable[Inputs]) -> nn.Module:
    """A copy of a lazy model on the meta device after one call; `model` itself where no candidate fits.

    A lazy module can't be copied before its first call (its hook would still act on the original), so the
    call is made on the model with stand-ins in place of its parameters, and undone once the copy is made.
    """
    stand_in = Materials().input
    for candidate in candidates:
        with preserved(model):
            _to_meta(model)
            args = replaced(candidate.args, stand_in)
            kwargs = replaced(dict(candidate.kwargs), stand_in)
            try:
                with torch.no_grad():
                    model(*args, **kwargs)
            except Exception:  # the next candidate may fit; if none does, recording says why
                continue
            return copy.deepcopy(model)
    return model


def _to_meta(model: nn.Module) -> None:
    materials = Materials()
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, UninitializedParameter):
                module._parameters[name] = UninitializedParameter(device="meta", dtype=parameter.dtype)
            elif parameter is not None:
                module._parameters[name] = materials.parameter(parameter)
        for name, buffer in module._buffers.items():
            if isinstance(buffer, UninitializedBuffer):
                module._buffers[name] = UninitializedBuffer(device="meta", dtype=buffer.dtype)  # type: ignore[call-arg]  # missing in torch's types
            elif buffer is not None:
                module._buffers[name] = materials.twin(buffer)
