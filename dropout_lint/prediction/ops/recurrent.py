"""Recurrent layers and cells: LSTM, GRU and plain RNN.

LSTM: c = f·c' + i·g, h = o·tanh(c), with g = tanh(Wx + Uh'). GRU: h = (1 - z)·n + z·h', with n = tanh(Wx +
r·Uh'). The gates are sigmoids of other rows of the same weights: the same moments, other values. U comes as a
random matrix: what is fed back adds in power.
"""

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
from dropout_lint.prediction.ops.resampling import filtered, rho_at
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.quadrature import moments_by_quadrature
from dropout_lint.prediction.state import State

TANH, SIGMOID = moments_by_quadrature(torch.tanh), moments_by_quadrature(torch.sigmoid)
STEPS = 3
"""Rounds after which what a hidden state feeds back to itself is settled."""


def _filtered(x: State, forget: float, tied: Sources, steps: int) -> State:
    """Σ_j λ^j x_{t-j}, that is 1/(1 - λ) times a mean with weights (1 - λ)λ^j: D(δ) = λ^δ(1 - λ)/(1 + λ).

    The data part correlates by Σ_δ D(δ)·ρ(d - δ), and noise that was apart from step to step by λ^d. What all
    steps have of it in common counts as shared: what reads a sequence takes its last step, or goes over all.
    """
    forget = min(max(forget, 1e-3), 0.98)
    lags = np.arange(max(2, math.ceil(math.log(1e-3) / math.log(forget))))
    overlap = np.asarray((1 - forget) / (1 + forget) * forget**lags, dtype=np.float64)
    y = filtered(x, [overlap], 1.0, tied).scaled(1 / (1 - forget))
    both, offsets = np.concatenate([overlap[:0:-1], overlap]), np.arange(1 - len(lags), len(lags))
    distances = np.array([0.0, *2.0 ** np.arange(len(x.rho))])
    kept = rho_at(x.rho, np.abs(distances[:, None] - offsets)) @ both
    y = replace(y, rho=np.clip(kept[1:] / kept[0], 0.0, 1.0))
    if steps < 2:
        return y
    apart = np.arange(1, steps)
    alike = float(2 * ((steps - apart) * forget**apart).sum() / (steps * (steps - 1)))  # over pairs of steps
    shared = y.shared_by_positions
    return replace(y, shared_by_positions=np.where(y.noise > 0, shared + (1 - shared) * alike, shared))


def _settled(seen: State, back: State | None, call: Call) -> State:
    """The hidden state, settled over time, from Wx (`seen`) and Uh (`back`) of one gate.

    f and z keep about ½ of what was before, so h is a running mean of the inputs, in which loose noise fades
    and the data, alike from step to step, add up. A plain RNN has no more than what is fed back.
    """
    total, kind = seen if back is None else add(seen, back), _kind(call)
    if kind == "rnn":
        return _plain(total, call)
    gate = pointwise(total, SIGMOID)
    forget = float(gate.t_mean @ gate.counts / gate.counts.sum())
    fresh_part = product(gate, _new(seen, back, gate, kind))
    held = _filtered(fresh_part, forget, call.ledger.tied, _steps(call))
    return product(gate, pointwise(held, TANH)) if kind == "lstm" else held


def _plain(total: State, call: Call) -> State:
    """The hidden state of a plain RNN."""
    m = call.module
    rectifies = str(getattr(m, "nonlinearity", getattr(m, "mode", ""))).lower().endswith("relu")
    return pointwise(total, RELU if rectifies else TANH, homogeneous=rectifies)


def _new(seen: State, back: State | None, gate: State, kind: str) -> State:
    """What a step has to add: g of an LSTM, n of a GRU."""
    if back is None:
        return pointwise(seen, TANH)
    return pointwise(add(seen, product(gate, back) if kind == "gru" else back), TANH)


def _kind(call: Call) -> str:
    name = type(call.module).__name__.lower()
    return next((kind for kind in ("lstm", "gru") if kind in name), "rnn")


def _steps(call: Call) -> int:
    """Length of the sequences."""
    place = -2 if getattr(call.module, "batch_first", False) else 0
    return call.in_shape[place] if len(call.in_shape) > 1 else 1


def _size(call: Call) -> int:
    m: Any = call.module
    return int(m.hidden_size)


def _input(call: Call) -> State:
    """What is read, step by step; a whole sequence that is dropped leaves the gates' means behind."""
    m: Any = call.module
    if call.x.mask == "sample":
        call.rough()
    return call.x.on(max(len(call.in_shape) - 1, 0), int(m.input_size)).merged()


def _seen(x: State, call: Call) -> State:
    """Wx of one gate; torch's recurrent weights go by the hidden size."""
    x, hidden = x if x.sample_wide else x.collapse(), _size(call)
    gain = learned_gain(call, x.channels, 1)
    seen = linear_map(x, x.axis, x.channels, hidden, 1, ONE_TAP, None, None, learned=gain)
    return seen.scaled(math.sqrt(x.channels / hidden))


def _fed_back(h: State, call: Call) -> State:
    """Uh of one gate."""
    hidden, gain = _size(call), learned_gain(call, _size(call), 1)
    return linear_map(h, h.axis, hidden, hidden, 1, ONE_TAP, None, None, learned=gain)


@module("RNNBase")
def recurrent(call: Call) -> Any:
    """LSTM, GRU and RNN layers: their initialiser's weights, or what training makes of them."""
    m, x = call.module, _input(call)
    width = _size(call) * (2 if getattr(m, "bidirectional", False) else 1)
    for layer in range(int(getattr(m, "num_layers", 1))):
        if layer:
            for row, site in call.ledger.sources(call.node):
                x = drop(x, site.spec, row)
        seen = _seen(x, call)
        y = _settled(seen, None, call)
        for _ in range(STEPS):
            y = _settled(seen, _fed_back(y, call), call)
        x = replace(y, counts=np.array([float(width)]))
    return _like(call.value, x)


@module("RNNCellBase")
def cell(call: Call) -> Any:
    """LSTM, GRU and RNN cells: one step from the state that they are given, or from 0."""
    x, given = _input(call), call.arg(1, "hx")
    parts = given if isinstance(given, tuple) else (given, given)
    states = (call.state(0.0 if part is None else part) for part in parts)
    before, held = (state.on(x.axis, _size(call)).merged().collapse() for state in states)
    h, c = _one_step(x, before, held, call)
    return (h, c) if isinstance(call.value, (tuple, list)) else h


def _one_step(x: State, before: State, held: State, call: Call) -> tuple[State, State]:
    """The hidden state and, of an LSTM, the cell state, from those before."""
    kind, seen = _kind(call), _seen(x, call)
    back = None if _is_zero(before) else _fed_back(before, call)
    total = seen if back is None else add(seen, back)
    if kind == "rnn":
        plain = _plain(total, call)
        return plain, plain
    gate, rest = pointwise(total, SIGMOID), held if kind == "lstm" else before
    now = product(gate, _new(seen, back, gate, kind))
    if not _is_zero(rest):
        now = add(now.collapse(), product(gate, rest).collapse())
    return (product(gate, pointwise(now, TANH)), now) if kind == "lstm" else (now, now)


def _is_zero(x: State) -> bool:
    return not np.any(x.t_var) and not np.any(x.var)


def _like(value: Any, state: State) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_like(item, state) for item in value)
    return state
