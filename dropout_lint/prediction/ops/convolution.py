"""Convolutions of every kind: a linear map over the channels and over the taps of a kernel (`linear_map`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import fx

from dropout_lint.prediction.correlation import strided
from dropout_lint.prediction.ops.base import Call, first_shape, function, module, several
from dropout_lint.prediction.ops.kernel import Taps, by_dimension, taps_of
from dropout_lint.prediction.ops.linear import learned_gain, tensor_of, with_values
from dropout_lint.prediction.ops.linear_map import linear_map
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.state import State


def _weight(call: Call) -> torch.Tensor:
    """The second argument's values, or its shape alone where it is computed (weight standardisation)."""
    values = tensor_of(call.arg(1, "weight"))
    if values is not None:
        return values
    source = call.node.args[1] if len(call.node.args) > 1 else call.node.kwargs["weight"]
    shape = first_shape(source.meta.get("value")) if isinstance(source, fx.Node) else None
    return torch.empty(shape or (call.shape[1], call.in_shape[1], 1), device="meta")


def _convolution(  # noqa: PLR0917 - the arguments of torch's convolutions
    call: Call,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    transposed: bool,
    wraps: bool = False,
) -> State:
    dims = weight.dim() - 2
    shape, out = call.in_shape, call.shape
    batched = len(shape) == dims + 2
    axis = 1 if batched else 0
    kernel = tuple(int(k) for k in weight.shape[2:])
    stride, dilation = by_dimension(stride, dims), by_dimension(dilation, dims)
    if isinstance(padding, str):
        pads = tuple(
            d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)
        )
    else:
        pads = by_dimension(padding, dims)
    if wraps:  # circular, reflect and replicate padding: every tap sees the input
        ones = np.ones(math.prod(kernel))
        taps = Taps(ones, np.outer(ones, ones), kernel)
    else:
        taps = taps_of(shape[axis + 1 :], out[axis + 1 :], kernel, stride, pads, dilation, transposed)
    c_in, c_out = shape[axis], out[axis]
    known = with_values(weight)
    if known is not None:
        if transposed:  # (c_in, c_out / g, …) → (c_out, c_in / g, …)
            known = known.reshape(groups, c_in // groups, c_out // groups, -1).transpose(1, 2)
        known = known.reshape(c_out, c_in // groups, -1)
    x = call.x.on(axis, c_in)
    result = linear_map(
        x,
        axis,
        c_in,
        c_out,
        groups,
        taps,
        known,
        bias,
        call.ledger.tied,
        learned_gain(call, c_in / groups, len(taps.single)),
    )
    step = 1 if transposed else int(max(stride))
    return replace(result, rho=strided(result.rho, step)) if step > 1 else result


@several
@module("_ConvNd", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
def convolution_module(call: Call) -> State:
    """A convolution layer, plain or transposed."""
    m: Any = call.module
    wraps = getattr(m, "padding_mode", "zeros") != "zeros"
    return _convolution(
        call, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups, bool(m.transposed), wraps
    )


@several
@function(*("conv1d", "conv2d", "conv3d"), *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"))
def convolution_function(call: Call) -> State:
    """F.conv2d(x, weight, bias, stride, padding, dilation, groups), and F.conv_transpose2d, which has
    output_padding where that has dilation, and dilation at its end.
    """
    transposed = "transpose" in call.name
    return _convolution(
        call,
        _weight(call),
        tensor_of(call.arg(2, "bias")),
        call.arg(3, "stride", 1),
        call.arg(4, "padding", 0),
        call.arg(7 if transposed else 5, "dilation", 1),
        int(call.arg(6, "groups", 1)),
        transposed,
    )
