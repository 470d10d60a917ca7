"""What training is expected to do to weights whose values are not known.

Training makes weight layers add up what the data have in common: behind a trained layer the data part of
the variance is `gain` times what weights without direction would leave, Σ w²·data. Noise of separate masks
has no direction that weights could learn and stays Σ w²·noise, exactly so behind a mask's first layer;
deeper, and for masks of whole samples, some of it goes along (`State.amplified_share`). So Δ is nearer to 1
behind a trained layer than behind an untrained one, the more so the more layers lie between mask and norm.
What it adds up is smooth over positions: neighbours behind a trained layer are more alike (`smoothed`), so
that pooling, which averages noise, leaves the data as they are.

The constants are fitted on the trained networks of `benchmarks/prediction`, tuning set only, each network
counting the same, by the mean and the root mean square of the error in Δ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dropout_lint.prediction.quadrature import Array

TYPICAL_FAN_IN = 288.0
"""Fan-in of the layer that `Training.strength` is stated for, a 3×3 kernel over 32 channels."""
WIDTH = 0.25
"""Power of the fan-in that the gain goes with: the more inputs, the more there is to add up (Li Eq. 12)."""
POINT = 0.7
"""Factor for kernels of one position: nothing can be added up over neighbouring ones."""
FLAT = 0.8
"""Factor for linear layers over features without positions."""
LAST = 2.0
"""Factor for the last weight layer: there, features are what the loss asks for."""
REACH = 5.0
"""Weight layers from the output over which that factor falls to its e-th root."""
SMOOTH = 0.22
"""How far a layer of large gain makes neighbours alike: what they differ by falls to its e^-SMOOTH."""


@dataclass(frozen=True)
class Training:
    """How strongly training acts.

    Attributes:
        strength: how many times larger than Σ w²·data the data part is behind a layer of typical fan-in, far
            from the output.
    """

    strength: float

    def gain(self, channels: float, taps: int, after: int, flat: bool) -> float:
        """The same behind one layer.

        Args:
            channels: input channels of one output.
            taps: positions of its kernel.
            after: weight layers that follow, on the longest way to the output.
            flat: its input has no positions.
        """
        gain = self.strength * math.pow(max(channels * taps, 1.0) / TYPICAL_FAN_IN, WIDTH)
        if taps == 1:
            gain *= FLAT if flat else POINT
        return max(gain * math.exp(math.log(LAST) * math.exp(-after / REACH)), 1.0)


@dataclass(frozen=True)
class Trainings:
    """Several trainings that are looked at together; None for weights as they are at the start."""

    each: tuple[Training | None, ...]

    def gain(self, channels: float, taps: int, after: int, flat: bool) -> Array:
        """(T, 1) the gain of each."""
        gains = [1.0 if one is None else one.gain(channels, taps, after, flat) for one in self.each]
        return np.array(gains)[:, None]


def together(first: Training | None, *others: Training | None) -> Training | Trainings | None:
    """One training, or several."""
    return Trainings((first, *others)) if others else first


def smoothed(rho: Array, gain: float | Array) -> Array:
    """Correlation of the data between positions behind a layer of this gain, `rho` with untrained weights: in
    proportion to what training adds to the variance.
    """
    result: Array = 1 - (1 - rho) * np.exp(-SMOOTH * (1 - 1 / gain))
    return result


TYPICAL = Training(3.5)
"""Training as networks show it."""
WEAK = Training(2.2)
"""Training that leaves more of the shift than usual: see `interval`."""
STRONG = Training(6.0)
"""Training that leaves less of it than usual."""
