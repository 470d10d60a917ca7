"""Functions of several values at once that no series fits: variances from a fixed sample.

Of a sum of few heavy-tailed values, as under a softmax of large logits or in Lp pooling, two moments do not
say enough. Where the values are the channels themselves, the sample has a column for each (`of_channels`);
else what it finds for a typical channel, all merged, corrects what was worked out for each (`corrected`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dropout_lint.prediction.ops.maximum import rectified_parts
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State

VALUES = 2**16
"""Size of a sample: rows times values."""
MOST_SAMPLED = 2**12
"""Most values that a function is sampled of."""
FEWEST_ROWS = 128
"""Rows of a sample of many values."""


def corrected(  # noqa: PLR0917 - what each is stands below
    x: State,
    y: State,
    typical: State,
    n: int,
    pair: float,
    f: Callable[[Array], Array],
    *,
    one_mask: bool = False,
) -> State:
    """`y` with test variance, train variance and data part as a sample has them.

    Args:
        x: what `f` is a function of, n values of it at once, whose data parts correlate by `pair`.
        y: the result, worked out by moments; of one component.
        typical: the same, worked out for `x.merged()`.
        f: (rows, n) → (rows, results).
        one_mask: the pending mask is the same for all n values.
    """
    found = [part.mean() for part in _moments(x.merged(), n, pair, f, one_mask)[2:]]
    known = typical.t_var[0], typical.train_var[0], typical.data[0]
    t_factor, factor, data_factor = (
        a / b if a > 0 and b > 0 else 1.0 for a, b in zip(found, known, strict=True)
    )
    var = y.var * factor
    data = np.minimum(y.data * data_factor, var[0])
    return replace(y, t_var=y.t_var * t_factor, var=var, sig=np.sqrt(data)[None], data=data).balanced()


def of_channels(x: State, y: State, f: Callable[[Array], Array], *, one_mask: bool = False) -> State:
    """`y` with the moments that a sample has of f(all channels of `x`), each channel its own column.

    Args:
        x: one group for each channel.
        y: the result, worked out by moments; of one component.
        f: (rows, channels) → (rows, channels).
        one_mask: the pending mask is the same for all channels.
    """
    t_mean, mean, t_var, var, data = _moments(x, x.channels, 0.0, f, one_mask)
    data = np.clip(data, 0.0, var)
    return replace(
        y, t_mean=t_mean, t_var=t_var, mean=mean[None], var=var[None], sig=np.sqrt(data)[None], data=data
    ).balanced()


def _moments(
    x: State, n: int, pair: float, f: Callable[[Array], Array], one_mask: bool
) -> tuple[Array, Array, Array, Array, Array]:
    """Of each result: mean in test and train mode, variance in both, the data's part of the latter."""
    test, train, again = (f(part) for part in _sample(x, n, pair, one_mask))
    data = ((train - train.mean(0)) * (again - again.mean(0))).mean(0)
    return test.mean(0), train.mean(0), test.var(0), train.var(0), data


def _sample(x: State, n: int, pair: float, one_mask: bool) -> tuple[Array, Array, Array]:
    """Rows of n values, of the one group of `x` or of one group each: in test mode, in train mode, and with
    other masks again.
    """
    random = np.random.default_rng(0)
    rows = max(VALUES // n, FEWEST_ROWS)
    normals = rectified_parts(x)
    u = x if normals is None else normals
    signal = x.sig**2 if normals is None else normals.sig2
    group = np.arange(n) if x.groups > 1 else np.zeros(n, dtype=int)
    common, own, pattern = (random.standard_normal(shape) for shape in ((rows, 1), (rows, n), (1, n)))
    data = np.sqrt(max(pair, 0.0)) * common + np.sqrt(1 - max(pair, 0.0)) * own

    def rectified(values: Array) -> Array:
        return values if normals is None else np.maximum(values, 0.0)

    def drawn() -> Array:
        k = random.choice(x.components, size=(rows, 1 if one_mask else n), p=x.prob / x.prob.sum())
        noise = np.sqrt(np.maximum(u.var - signal, 0.0))[k, group] * random.standard_normal((rows, n))
        mean, dev, sig = u.mean[k, group], u.dev[k, group], np.sqrt(signal)[k, group]
        return rectified(mean + dev * pattern + sig * data + noise)

    test = rectified(u.t_mean[group] + u.t_dev[group] * pattern + np.sqrt(u.t_var[group]) * data)
    return test, drawn(), drawn()
