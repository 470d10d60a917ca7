"""How far layers of finite width stray from a second moment of 1, and what that does to E[f²].

Hendrycks and Gimpel divide by √(E[f(z)²]/k) for z ~ N(0, 1). In a layer of n inputs the second moment q of
the pre-activations is 1 only on average: it differs from sample to sample and from network to network, by a
variance of (E[f⁴]/k³ − (E[f²]/k)²)/n for each layer, and the deviations pile up with depth. For ReLU this is
harmless: E[f(√q·z)²] is proportional to q. GELU and SiLU grow faster than that (as q^1.14 at q = 1 for GELU):
samples with a large q gain more than those with a small q lose, the mean drifts upwards, and twenty layers of
500 end at two to three times the size (`benchmarks/results/initialisation.md`). So the distribution of q is
carried from layer to layer, and E[f²] is averaged over it; the mean of q then stays at 1. As n grows the
correction goes to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

STEP = 0.05
LOG_Q: Array = np.arange(-20, 10 + STEP / 2, STEP)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(121)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Spread:
    """The distribution of the second moment q of a layer's pre-activations over samples and networks.

    Attributes:
        mass: probability of each value of log q in `LOG_Q`.
    """

    mass: Array

    @classmethod
    def none(cls) -> Spread:
        """q is 1: after a norm, or where nothing is known."""
        mass = np.zeros_like(LOG_Q)
        mass[np.argmin(np.abs(LOG_Q))] = 1.0
        return cls(mass)

    def through(self, function: Callable[[Tensor], Tensor], keep: float, fan_in: int) -> tuple[float, Spread]:
        """One layer further: activation, dropout, and `fan_in` weights of norm 1.

        Returns:
            E over q of E[f(√q·z)²], relative to its value at q = 1; and the spread after the layer, whose
            weights are divided by the square root of that.
        """
        second, fourth = _energies(function)
        ours = float(self.mass @ second)
        at_one = float(np.interp(0.0, LOG_Q, second))
        mean = second / ours
        variance = (fourth / keep - second**2) / ours**2 / fan_in
        # the sum over many units is close to log-normal
        log_variance = np.log1p(np.maximum(variance, 0.0) / mean**2)
        return ours / at_one, Spread(
            _moved(self.mass, np.log(mean) - log_variance / 2, np.sqrt(log_variance))
        )


def _energies(function: Callable[[Tensor], Tensor]) -> tuple[Array, Array]:
    """E[f(√q·z)²] and E[f(√q·z)⁴] for each q of the grid."""
    points = np.exp(LOG_Q / 2)[:, None] * _NODES
    with torch.no_grad():
        values = function(torch.from_numpy(points).flatten()).double().view(points.shape).numpy()
    return np.maximum((values**2) @ _WEIGHTS, 1e-300), np.maximum((values**4) @ _WEIGHTS, 1e-300)


def _moved(mass: Array, centres: Array, widths: Array) -> Array:
    """Each grid point's mass spread out as a normal distribution; nothing is lost at the ends."""
    used = mass > 1e-12
    edges = torch.from_numpy(LOG_Q[:-1] + STEP / 2)
    centre, width = torch.from_numpy(centres[used])[:, None], torch.from_numpy(widths[used])[:, None]
    below = torch.special.ndtr((edges - centre) / width.clamp_min(STEP / 10)).numpy()
    shares = np.diff(below, axis=1, prepend=0.0, append=1.0)
    moved: Array = mass[used] @ shares
    # bins are as wide as STEP: put the mean of q back to 1, from which rounding moved it a little
    drift = math.log(float(moved @ np.exp(LOG_Q)))
    if abs(drift) > 1e-9:
        moved = np.interp(LOG_Q + drift, LOG_Q, moved, left=0.0, right=0.0)
    result: Array = moved / moved.sum()
    return result
