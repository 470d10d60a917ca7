"""Functions of several values at once that no series fits: variances from a fixed sample.

Of a sum of few heavy-tailed values, as under a softmax of large logits or in Lp pooling, two moments do not
say enough. What the sample finds for a typical channel, all channels merged, corrects what was worked out for
each.
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
    test, train, again = (f(part) for part in _sample(x.merged(), n, pair, one_mask))
    found = (
        test.var(0).mean(),
        train.var(0).mean(),
        ((train - train.mean(0)) * (again - again.mean(0))).mean(),
    )
    known = typical.t_var[0], typical.train_var[0], typical.data[0]
    t_factor, factor, data_factor = (
        a / b if a > 0 and b > 0 else 1.0 for a, b in zip(found, known, strict=True)
    )
    var = y.var * factor
    data = np.minimum(y.data * data_factor, var[0])
    return replace(y, t_var=y.t_var * t_factor, var=var, sig=np.sqrt(data)[None], data=data).balanced()


def _sample(x: State, n: int, pair: float, one_mask: bool) -> tuple[Array, Array, Array]:
    """Rows of n values of the one group of `x`: in test mode, in train mode, and with other masks again."""
    random = np.random.default_rng(0)
    rows = max(VALUES // n, FEWEST_ROWS)
    normals = rectified_parts(x)
    u = x if normals is None else normals
    signal = x.sig**2 if normals is None else normals.sig2
    common, own, pattern = (random.standard_normal(shape) for shape in ((rows, 1), (rows, n), (1, n)))
    data = np.sqrt(max(pair, 0.0)) * common + np.sqrt(1 - max(pair, 0.0)) * own

    def rectified(values: Array) -> Array:
        return values if normals is None else np.maximum(values, 0.0)

    def drawn() -> Array:
        k = random.choice(x.components, size=(rows, 1 if one_mask else n), p=x.prob / x.prob.sum())
        noise = np.sqrt(np.maximum(u.var - signal, 0.0))[:, 0][k] * random.standard_normal((rows, n))
        mean, dev, sig = u.mean[:, 0][k], u.dev[:, 0][k], np.sqrt(signal)[:, 0][k]
        return rectified(mean + dev * pattern + sig * data + noise)

    test = rectified(u.t_mean[0] + u.t_dev[0] * pattern + np.sqrt(u.t_var[0]) * data)
    return test, drawn(), drawn()
