"""What training is expected to do to weights whose values are not known.

Training makes weight layers add up what the data have in common: behind a trained layer the data part of
the variance is `gain` times what weights without direction would leave, Σ w²·data. Noise of separate masks
has no direction that weights could learn and stays Σ w²·noise; masks of whole samples lie in between
(`State.amplified_share`). So Δ is nearer to 1 behind a trained layer than behind an untrained one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """How strongly training acts on each weight layer.

    Attributes:
        gain: how many times larger than Σ w²·data the data part is behind a weight layer.
    """

    gain: float


TYPICAL = Training(gain=2.5)
"""Training as most networks show it. Fitted on the tuning set of `benchmarks/prediction`."""
WEAK = Training(gain=1.2)
"""Training that leaves more of the shift than nineteen networks in twenty show."""
STRONG = Training(gain=7.0)
"""Training that leaves less of it than nineteen networks in twenty show."""
