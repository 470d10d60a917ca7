"""How far layers of finite width stray from a second moment of 1, and what that does to E[f²].

Hendrycks and Gimpel divide by √(E[f(z)²]/k) for z ~ N(0, 1). In a layer of n inputs the second moment q of
the pre-activations is 1 only on average: it differs from sample to sample and from network to network, by a
variance of (E[f⁴]/k³ − (E[f²]/k)²)/n for each layer, and the deviations pile up with depth. For ReLU this is
harmless: E[f(√q·z)²] is proportional to q. GELU and SiLU grow faster than that (as q^1.14 at q = 1 for GELU):
samples with a large q gain more than those with a small q lose, the mean drifts upwards, and twenty layers of
500 end at two to three times the size (`benchmarks/results/initialisation.md`). So the distribution of q is
carried from layer to layer, and E[f²] is averaged over it; the mean of q then stays at 1. As n grows the
correction goes to 1.

Two smaller effects are of the same order, 1/n a layer. A unit-norm row of n weights makes z a coordinate of a
point on a sphere, which is a little thinner-tailed than a normal variable: E[f²] − E[f²·He₄(z)]/(4n). And
orthonormal weights keep the length of what they are given, so the deviations that come from the length of z
are missing: with t = min(1, outputs/inputs) the variance is smaller by t·Cov(f², z²)²/(2n), for ReLU 3/n a
layer instead of 5/n.
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
        tied: the share of the deviations of Σz² that the layer's weights rule out: 0 for independent rows,
            min(1, outputs/inputs) for orthonormal weights.
        dims: each z is a coordinate of a point on a sphere of so many dimensions.
    """

    mass: Array
    tied: float = 0.0
    dims: float = math.inf

    @classmethod
    def none(cls) -> Spread:
        """q is 1: after a norm, or where nothing is known."""
        mass = np.zeros_like(LOG_Q)
        mass[np.argmin(np.abs(LOG_Q))] = 1.0
        return cls(mass)

    def through(
        self, function: Callable[[Tensor], Tensor], keep: float, shape: tuple[int, int], orthonormal: bool
    ) -> tuple[float, Spread]:
        """One layer further: activation, dropout, and weights whose rows have norm 1.

        Args:
            function: the activation.
            keep: k.
            shape: outputs and inputs of the layer.
            orthonormal: whether its weights are, see the attributes.

        Returns:
            E over q of E[f(√q·z)²], relative to its value for normal z at q = 1; and the spread after the
            layer, whose weights are divided by the square root of that.
        """
        outputs, inputs = shape
        normal, fourth, length, tails = _energies(function)
        second = np.maximum(normal - tails / (4 * self.dims), 1e-300)
        ours = float(self.mass @ second)
        at_one = float(np.interp(0.0, LOG_Q, normal))
        mean = second / ours
        variance = (fourth / keep - second**2 - self.tied * length**2 / 2) / ours**2 / inputs
        # the sum over many units is close to log-normal
        log_variance = np.log1p(np.maximum(variance, 0.0) / mean**2)
        mass = _moved(self.mass, np.log(mean) - log_variance / 2, np.sqrt(log_variance))
        if orthonormal:
            return ours / at_one, Spread(mass, min(1.0, outputs / inputs), max(outputs, inputs))
        return ours / at_one, Spread(mass, 0.0, inputs)


def _energies(function: Callable[[Tensor], Tensor]) -> tuple[Array, Array, Array, Array]:
    """E[f²], E[f⁴], Cov(f², z²) and E[f²·He₄(z)] of f = f(√q·z), for each q of the grid."""
    points = np.exp(LOG_Q / 2)[:, None] * _NODES
    with torch.no_grad():
        values = function(torch.from_numpy(points).flatten()).double().view(points.shape).numpy()
    squares = values**2
    return (
        np.maximum(squares @ _WEIGHTS, 1e-300),
        np.maximum(squares**2 @ _WEIGHTS, 1e-300),
        squares @ (_WEIGHTS * (_NODES**2 - 1)),
        squares @ (_WEIGHTS * (_NODES**4 - 6 * _NODES**2 + 3)),
    )


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
