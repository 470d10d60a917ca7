"""Attention, softmax and matrix products.

Derivation. Softmax weights over L positions with scores of variance τ average over L_eff = 1/Σa² ≈ L·e^{-τ}
positions. So the output's mean is the values' mean, its data part keeps the mean pair correlation of L_eff
positions, and loose noise falls to 1/L_eff. Dropout on the weights adds s·Σa²·E[v²] = s·E[v²]/L_eff.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dropout_lint.noise.quadrature import Array
from dropout_lint.noise.state import State, fresh, replace
from dropout_lint.noise.transfer.base import Call, Parameter, function, module
from dropout_lint.noise.transfer.dropout import drop
from dropout_lint.noise.transfer.linear import ONE_TAP, linear_map
from dropout_lint.noise.transfer.pooling import averaged


def attended(v: State, spread_over: float) -> State:
    """Weighted mean of `v` over `spread_over` positions."""
    n = max(spread_over, 1.0)
    far = float(v.rho[-1])
    return averaged(v.collapse(), far + (1 - far) / n, n)


def effective(length: float, score_variance: float) -> float:
    """L_eff of softmax weights over `length` positions."""
    return max(length * math.exp(-min(score_variance, 20.0)), 1.0)


def _energy(x: State) -> Array:
    """(2,) mean E[x²] over the channels, in train and in test mode."""
    share = x.counts / x.counts.sum()
    train = (x.train_var + x.train_mean**2 + x.train_dev**2) @ share
    return np.array([train, (x.t_var + x.t_mean**2 + x.t_dev**2) @ share])


@function("scaled_dot_product_attention", "memory_efficient_attention")
def sdpa(call: Call) -> State:
    """F.scaled_dot_product_attention(q, k, v, mask, dropout_p)."""
    q, k, v = (call.state(call.arg(i, name)) for i, name in enumerate(("query", "key", "value")))
    length = call.in_shape[-2] if len(call.in_shape) > 1 else 1
    score = float(_energy(q)[1] * _energy(k)[1])
    return _with_dropout(call, v, effective(length, score))


def _with_dropout(call: Call, v: State, spread_over: float) -> State:
    result = attended(v, spread_over)
    energy = (v.train_var + v.train_mean**2 + v.train_dev**2) / spread_over
    for row, site in call.ledger.sources(call.node):
        added = min(site.spec.mask_variance, 1e6) * energy
        noise = result.noise.copy()
        noise[row] += added
        result = replace(result, noise=noise, var=result.var + added)
    return result


@function("softmax", "log_softmax", "softmin", "sparsemax")
@module("Softmax", "LogSoftmax", "Softmin", "Softmax2d")
def softmax(call: Call) -> State:
    """Weights that sum to 1 over a dimension of L positions."""
    x, shape = call.x, call.shape
    dim = getattr(call.module, "dim", None) if call.module is not None else call.arg(1, "dim", -1)
    length = shape[int(dim)] if isinstance(dim, int) and shape else (shape[-1] if shape else 1)
    train = float((x.train_var * x.counts).sum() / x.counts.sum())
    over = effective(length, train)
    mean = 1 / length
    y = fresh(len(call.ledger.dropouts), axis=x.axis, channels=x.channels, mean=mean,
              var=max(mean / over - mean**2, 0.0))  # fmt: skip
    share = x.noise.sum(1) / max(float(x.train_var.sum()), 1e-30)
    noise = np.clip(share, 0.0, 1.0)[:, None] * y.var
    data = np.maximum(y.data - noise.sum(0), 0.0)
    return replace(y, noise=noise, data=data, sig=np.sqrt(data)[None], spread_over=over)


@function("matmul", "bmm", "einsum", "mm", "baddbmm", "addmm", "imatmul")
def matmul(call: Call) -> State:
    """a @ b: weights times values where a is a softmax's output, else a sum of products of independent
    values.
    """
    operands = [value for value in call.args if isinstance(value, (State, Parameter))]
    if call.name in ("addmm", "baddbmm") and len(operands) == 3:
        operands = operands[1:]
    if len(operands) < 2:
        return call.x
    axis = max(len(call.shape) - 1, 0)
    width = call.shape[-1] if call.shape else 1
    a, b = call.state(operands[0]), call.state(operands[1])
    for weights, v in ((a, b), (b, a)):
        if weights.spread_over > 0:
            result = attended(v, weights.spread_over)
            ratio = _mask_power(weights)
            energy = (v.train_var + v.train_mean**2 + v.train_dev**2) / weights.spread_over
            extra = ratio[:, None] * energy
            result = replace(result, noise=result.noise + extra, var=result.var + extra.sum(0))
            return result.on(axis, width)
    inner = call.in_shape[-1] if call.in_shape else 1
    if isinstance(operands[1], Parameter):
        return linear_map(
            a.on(axis, inner), axis, inner, width, 1, ONE_TAP, _matrix(operands[1], inner, width), None
        )
    a, b = a.collapse().merged(), b.collapse().merged()
    ones = np.array([float(width)])
    from dropout_lint.noise.transfer.merge import product

    z = product(replace(a, counts=ones, axis=axis), replace(b, counts=ones, axis=axis))
    # a sum over the inner dimension: means add up in size, variances in number
    spread = math.sqrt(inner)
    return replace(
        z.scaled(spread),
        t_mean=z.t_mean * inner,
        mean=z.mean * inner,
        t_dev=z.t_dev * spread,
        dev=z.dev * spread,
    )


def _mask_power(weights: State) -> Array:
    """(S,) noise of each row relative to E[a²]: s for a dropout on the weights."""
    energy = float(_energy(weights)[1])
    result: Array = weights.noise.mean(1) / energy if energy > 0 else np.zeros(len(weights.noise))
    return result


def _matrix(parameter: Parameter, inner: int, width: int) -> Any:
    if not parameter.known or parameter.tensor.dim() != 2:
        return None
    tensor = parameter.tensor
    return tensor.T[:, :, None] if tuple(tensor.shape) == (inner, width) else None


@module("MultiheadAttention")
def multihead(call: Call) -> Any:
    """nn.MultiheadAttention: projections, attention with its dropout, output projection."""
    m: Any = call.module
    shape = call.in_shape
    batch_first = bool(m.batch_first) or len(shape) == 2
    length = shape[-2] if batch_first else shape[0]
    axis = len(shape) - 1
    q, k, v = (call.state(call.arg(i, name)).collapse() for i, name in enumerate(("query", "key", "value")))
    width = int(m.embed_dim)
    whole = m.in_proj_weight
    parts = whole.chunk(3) if whole is not None else (m.q_proj_weight, m.k_proj_weight, m.v_proj_weight)
    projected = []
    for x, weight in zip((q, k, v), parts, strict=True):
        known = None if weight.is_meta else weight[:, :, None]
        projected.append(
            linear_map(x.on(axis, weight.shape[1]), axis, weight.shape[1], width, 1, ONE_TAP, known, None)
        )
    score = float(_energy(projected[0])[1] * _energy(projected[1])[1])
    mixed = _with_dropout(call, projected[2], effective(length, score))
    out = m.out_proj
    known = None if out.weight.is_meta else out.weight[:, :, None]
    result = linear_map(mixed, axis, width, width, 1, ONE_TAP, known, out.bias)
    return (result, call.state(0)) if isinstance(call.value, (tuple, list)) else result


def embedded(call: Call, weight: Any) -> State:
    """Rows of a table: the table's own moments, N(0, 1) as torch initialises it."""
    rows, width = len(call.ledger.dropouts), call.shape[-1] if call.shape else 1
    axis = max(len(call.shape) - 1, 0)
    base = fresh(rows, axis=axis, channels=width)
    tensor = weight.tensor if isinstance(weight, Parameter) else weight
    if tensor is None or tensor.is_meta or tensor.dim() != 2:
        return base
    table = tensor.detach().double()
    wide = base.per_channel()
    mean, var = table.mean(0).numpy(), table.var(0, correction=0).numpy()
    return replace(
        wide, t_mean=mean, t_var=var, mean=mean[None], var=var[None], sig=np.sqrt(var)[None], data=var
    )


@module("Embedding", "EmbeddingBag")
def embedding_module(call: Call) -> State:
    """nn.Embedding."""
    return embedded(call, getattr(call.module, "weight", None))


@function("embedding", "embedding_bag")
def embedding_function(call: Call) -> State:
    """F.embedding(input, weight)."""
    return embedded(call, call.arg(1, "weight"))


def recurrent_layers(x: State, m: Any, call: Call, axis: int) -> State:
    """Each layer as one step: a linear map of what it sees, squashed by tanh; dropout between the layers."""
    from dropout_lint.noise.quadrature import moments_by_quadrature
    from dropout_lint.noise.transfer.activation import pointwise

    width = int(m.hidden_size) * (2 if getattr(m, "bidirectional", False) else 1)
    squash = moments_by_quadrature(lambda t: t.tanh())
    for layer in range(int(getattr(m, "num_layers", 1))):
        if layer:
            for row, site in call.ledger.sources(call.node):
                x = drop(x, replace(site.spec), row)
        x = pointwise(linear_map(x, axis, x.channels, width, 1, ONE_TAP, None, None), squash)
    return x


@module("RNNBase", "RNNCellBase")
def recurrent(call: Call) -> Any:
    """LSTM, GRU and RNN layers and cells: stated approximation, the noise share of one step."""
    m: Any = call.module
    axis = max(len(call.in_shape) - 1, 0)
    x = call.x.collapse()
    y = recurrent_layers(x.on(axis, int(m.input_size)).merged(), m, call, axis)
    return _like(call.value, y)


def _like(value: Any, state: State) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_like(item, state) for item in value)
    return state
