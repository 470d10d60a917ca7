"""Linear layers: y = Wx + b over the last dimension (`linear_map`)."""

from __future__ import annotations

from typing import Any

import torch

from dropout_lint.prediction.algebra import product
from dropout_lint.prediction.ops.base import Call, Parameter, function, module, several
from dropout_lint.prediction.ops.kernel import ONE_TAP
from dropout_lint.prediction.ops.linear_map import linear_map
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State


def learned_gain(call: Call, channels: float, taps: int) -> float | Array:
    """The gain that training is expected to give this layer; 1 for weights as they are."""
    training = call.ledger.training
    if training is None:
        return 1.0
    return training.gain(channels, taps, call.ledger.layers_after.get(call.node, 0), len(call.in_shape) < 3)


def tensor_of(parameter: Any) -> torch.Tensor | None:
    """A parameter's tensor, None for anything else."""
    tensor = parameter.tensor if isinstance(parameter, Parameter) else parameter
    return tensor if isinstance(tensor, torch.Tensor) else None


def with_values(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The tensor, None where it has no values."""
    return None if tensor is None or tensor.is_meta else tensor


def _linear(call: Call, weight: torch.Tensor | None, bias: torch.Tensor | None) -> State:
    x, last = call.x, len(call.in_shape) - 1
    c_in = call.in_shape[-1]
    known = with_values(weight)
    if known is not None:
        known = known.reshape(-1, c_in)[:, :, None]
    return linear_map(
        x.on(last, c_in),
        len(call.shape) - 1,
        c_in,
        call.shape[-1],
        1,
        ONE_TAP,
        known,
        bias,
        learned=learned_gain(call, c_in, 1),
    )


@several
@module("Linear")
def linear_module(call: Call) -> State:
    """y = Wx + b over the last dimension."""
    assert call.module is not None
    return _linear(call, getattr(call.module, "weight", None), getattr(call.module, "bias", None))


@several
@function("linear")
def linear_function(call: Call) -> State:
    """F.linear(x, weight, bias)."""
    return _linear(call, tensor_of(call.arg(1, "weight")), tensor_of(call.arg(2, "bias")))


@module("Bilinear")
def bilinear(call: Call) -> State:
    """x₁ᵀ W x₂: linear in each; the noise of both inputs reaches every output in proportion to its power."""
    a, b = call.state(call.args[0]).collapse().merged(), call.state(call.args[1]).collapse().merged()

    z = product(a, b)
    return linear_map(
        z,
        len(call.shape) - 1,
        z.channels,
        call.shape[-1],
        1,
        ONE_TAP,
        None,
        None,
        learned=learned_gain(call, z.channels, 1),
    )
