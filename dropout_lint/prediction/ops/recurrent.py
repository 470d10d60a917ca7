"""Recurrent layers and cells: LSTM, GRU and plain RNN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from dropout_lint.prediction.algebra import add, product
from dropout_lint.prediction.ops.activation import RELU, pointwise
from dropout_lint.prediction.ops.base import Call, module
from dropout_lint.prediction.ops.dropout import Sources, drop
from dropout_lint.prediction.ops.kernel import ONE_TAP
from dropout_lint.prediction.ops.linear import learned_gain
from dropout_lint.prediction.ops.linear_map import linear_map
from dropout_lint.prediction.ops.resampling import filtered
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.quadrature import moments_by_quadrature
from dropout_lint.prediction.state import State

TANH, SIGMOID = moments_by_quadrature(torch.tanh), moments_by_quadrature(torch.sigmoid)
STEPS = 3
"""Rounds after which what a hidden state feeds back to itself is settled."""


def _filtered(x: State, forget: float, tied: Sources) -> State:
    """Σ_j λ^j x_{t-j}, that is 1/(1 - λ) times a mean with weights (1 - λ)λ^j: D(δ) = λ^δ(1 - λ)/(1 + λ)."""
    forget = min(max(forget, 1e-3), 0.98)
    lags = np.arange(max(2, math.ceil(math.log(1e-3) / math.log(forget))))
    overlap = np.asarray((1 - forget) / (1 + forget) * forget**lags, dtype=np.float64)
    return filtered(x, [overlap], 1.0, tied).scaled(1 / (1 - forget))


def _step(kind: str, seen: State, back: State | None, tied: Sources, relu: bool) -> State:
    """The hidden state, settled over time, from Wx (`seen`) and Uh (`back`) of one gate.

    LSTM: c = f·c' + i·g, h = o·tanh(c). GRU: h = (1 - z)·n + z·h'. The gates are sigmoids of other rows of
    the same weights: the same moments, other values. f and z keep about ½ of what was before, so h is a
    running mean of the inputs, in which loose noise fades and the data, alike from step to step, add up. Uh
    comes through a random matrix: it adds in power. A plain RNN has no more than that.
    """

    total = seen if back is None else add(seen if seen.sample_wide else seen.collapse(), back)
    if kind == "rnn":
        return pointwise(total, RELU if relu else TANH, homogeneous=relu)
    gate = pointwise(total, SIGMOID)
    forget = float(gate.t_mean @ gate.counts / gate.counts.sum())
    fresh_part = product(gate, pointwise(total, TANH))
    held = _filtered(fresh_part, forget, tied)
    return product(gate, pointwise(held, TANH)) if kind == "lstm" else held


def recurrent_layers(x: State, m: Any, call: Call, axis: int) -> State:
    """Layer by layer, with the dropout between; weights at their initialiser's moments."""
    name = type(m).__name__.lower()
    kind = next((kind for kind in ("lstm", "gru") if kind in name), "rnn")
    cell, tied = "cell" in name, call.ledger.tied
    relu = str(getattr(m, "nonlinearity", getattr(m, "mode", ""))).lower().endswith("relu")
    hidden = int(m.hidden_size)
    width = hidden * (2 if getattr(m, "bidirectional", False) else 1)
    for layer in range(int(getattr(m, "num_layers", 1))):
        if layer:
            for row, site in call.ledger.sources(call.node):
                x = drop(x, site.spec, row)
        if not x.sample_wide:
            x = x.collapse()
        gain = learned_gain(call, x.channels, 1)
        seen = linear_map(x, axis, x.channels, hidden, 1, ONE_TAP, None, None, learned=gain)
        seen = seen.scaled(math.sqrt(x.channels / hidden))  # torch's recurrent weights go by the hidden size
        if cell:
            return _one_step(kind, seen, relu)
        y, gain = _step(kind, seen, None, tied, relu), learned_gain(call, hidden, 1)
        for _ in range(STEPS):
            back = linear_map(y, axis, hidden, hidden, 1, ONE_TAP, None, None, learned=gain)
            y = _step(kind, seen, back, tied, relu)
        x = replace(y, counts=np.array([float(width)]))
    return x


def _one_step(kind: str, seen: State, relu: bool) -> State:
    """A cell from a state that is 0: h = o·tanh(i·g), and (1 - z)·n."""

    if kind == "rnn":
        return pointwise(seen, RELU if relu else TANH, homogeneous=relu)
    gate = pointwise(seen, SIGMOID)
    new = product(gate, pointwise(seen, TANH))
    return product(gate, pointwise(new, TANH)) if kind == "lstm" else new


@module("RNNBase", "RNNCellBase")
def recurrent(call: Call) -> Any:
    """LSTM, GRU and RNN layers and cells: their initialiser's weights, or what training makes of them."""
    m: Any = call.module
    axis = max(len(call.in_shape) - 1, 0)
    if call.x.mask == "sample":
        call.rough()  # a whole sequence that is dropped leaves the gates' means behind
    y = recurrent_layers(call.x.on(axis, int(m.input_size)).merged(), m, call, axis)
    return _like(call.value, y)


def _like(value: Any, state: State) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_like(item, state) for item in value)
    return state
