"""Dropout in all its forms: one mask of mean 1 with two values, at probability π₀ and π₁.

Derivation. x·m has the component x·m_j with probability π_j. Inverted dropout: m is 0 with probability p and
1/k with probability k. Uout and Gaussian dropout: two values at 1 ± s^½ have the same mean and variance. The
noise that the mask adds is s·E[x²], E[x²] taken in train mode, so it masks noise from further up as well.
What the mask is shared over decides how the noise adds up later: a channel's mask (Dropout2d) is the same at
all positions, a sample's (DropPath) in all channels as well. The shared part of the noise is the part of
E[x²] that is the same everywhere.

Alpha dropout sets dropped values to α' and then maps a·x + b so that mean 0 and variance 1 are kept
(Klambauer et al. 2017, Sec. 1): the dropped component is the constant a·α' + b, the kept one a·x + b.

DropBlock zeroes blocks of b^d positions; its masks overlap and are no independent groups. Approximation: one
mask for each element. Noise per position is exact so; that neighbours share it is left out, so what is left
of it behind kernels whose weights agree and behind average pooling comes out too small.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dropout_lint.layers import DropoutSpec, Noise
from dropout_lint.prediction.ops.base import Ledger
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State, replace

ALPHA_PRIME = -1.0507009873554805 * 1.6732632423543772

SHARED_OVER = {
    Noise.CHANNEL: "channel",
    Noise.FEATURE_ALPHA: "channel",
    Noise.SAMPLE: "sample",
    Noise.BATCH: "sample",
}
Sources = npt.NDArray[np.bool_]
ALPHA_KINDS = (Noise.ALPHA, Noise.FEATURE_ALPHA)


def tied_sources(ledger: Ledger) -> Sources:
    """(S,) whether a dropout's mask is shared by all positions of a channel."""
    return np.array(
        [site.spec.noise in SHARED_OVER or site.spec.channelwise for site in ledger.dropouts], dtype=bool
    )


def noise_pair(x: State, pair: float, tied: Sources) -> Array:
    """(S, G) mean correlation of the noise over pairs whose data part correlates by `pair`.

    Noise of a shared mask is (m - 1)·x. Its correlation is (c² + v·ρ)/(c² + v), of which
    `State.shared_by_positions` is the value at large distances; the rest of it goes with ρ. Noise of
    separate masks has the shared part.
    """
    far = float(np.clip(x.rho[-1], 0.0, 0.999))
    near = max((pair - far) / (1 - far), 0.0)
    result: Array = x.shared_by_positions + (1 - x.shared_by_positions) * np.where(tied, near, 0.0)[:, None]
    return result


def drop(x: State, spec: DropoutSpec, row: int) -> State:
    """`x` after dropout `spec`, whose noise goes to `row`."""
    if not spec.is_noisy or math.isnan(spec.p):
        return x
    p = min(spec.p, 1 - 1e-6)
    s = min(spec.mask_variance, 1e6)
    over = SHARED_OVER.get(spec.noise, "channel" if spec.channelwise else "element")
    x = x.collapse()
    if spec.noise in ALPHA_KINDS:
        return _alpha(x, p, over, row)
    if spec.noise in (Noise.UNIFORM, Noise.GAUSSIAN):
        prob, values = np.array([0.5, 0.5]), 1 + np.array([-1.0, 1.0]) * math.sqrt(s)
    else:
        prob, values = np.array([p, 1 - p]), np.array([0.0, 1 / (1 - p)])
    return masked(x, prob, values, over, row)


def masked(x: State, prob: Array, values: Array, over: str, row: int) -> State:
    """x·m for a mask m that takes `values` with probability `prob`; x has one component."""
    column = values[:, None]
    square = prob @ values**2
    second = x.var[0] + x.mean[0] ** 2 + x.dev[0] ** 2
    noise, shared = (
        x.noise.copy(),
        x.shared_by_positions.copy(),
    )  # x·m = x + x·(m - 1): older noise stays what it was
    added = (square - (prob @ values) ** 2) * second
    if over != "element":
        steady = x.mean[0] ** 2 + x.dev[0] ** 2 + x.sig[0] ** 2 * x.rho[-1]
        share = np.divide(steady, second, out=np.zeros_like(second), where=second > 0)
    else:
        share = np.zeros_like(second)
    total = noise[row] + added
    shared[row] = np.divide(
        noise[row] * shared[row] + added * share, total, out=np.zeros_like(total), where=total > 0
    )
    old, data_correlation = x.shared_by_channels.copy(), x.data_correlation.copy()
    old[row] = np.divide(noise[row] * old[row], total, out=np.zeros_like(total), where=total > 0)
    if over == "sample":
        old[row] = 1.0
    data_correlation[row] = float(over == "sample")
    noise[row] = total
    return replace(
        x,
        prob=prob,
        mean=x.mean * column,
        dev=x.dev * column,
        sig=x.sig * column,
        var=x.var * column**2,
        noise=noise,
        shared_by_positions=shared,
        shared_by_channels=old,
        data_correlation=data_correlation,
        mask=over,
        source=row,
        skew=x.skew and x.skew.repeated(len(prob)),
        levels=tuple(float(v) for v in values),
    )


def _alpha(x: State, p: float, over: str, row: int) -> State:
    keep = 1 - p
    a = (keep + ALPHA_PRIME**2 * keep * p) ** -0.5
    b = -a * ALPHA_PRIME * p
    prob = np.array([p, keep])
    values = np.array([0.0, a])
    shift = np.array([[a * ALPHA_PRIME + b], [b]])
    y = masked(x, prob, values, over, row)
    return replace(y, mean=y.mean + shift, data=a * a * (1 - p) ** 2 * x.data, levels=()).balanced()
