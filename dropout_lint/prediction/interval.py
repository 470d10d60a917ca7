"""What shapes cannot tell: the interval that Δ of the trained network lies in nine times in ten.

Its ends are Δ after weak and after strong training (`expected`), so that it is as wide as training matters to
the norm: little where the mask feeds it, more with every weight layer between. They are moved apart by what
the ledger itself misses, which is more above: in the last layers test mode can raise what channels have in
common, and Δ with it. By how much is chosen so that the interval holds in 90 % of the norms of networks that
the constants of `expected` were not fitted on, the twelve of `benchmarks/prediction`; on those that they were
fitted on it holds in 93 %.
"""

from __future__ import annotations

BELOW = 0.11
"""How far the lower end is moved down."""
ABOVE = 0.16
"""How far the upper end is moved up."""
FULL_SHIFT = 0.1
"""Where the shift is smaller than this, the ends are moved in proportion."""
NONE = 1e-9
"""A shift below this is none."""


def interval(delta: float, most: float, *others: float) -> tuple[float, float]:
    """Ends around `delta`, from Δ with weak and with strong training and whatever else it may turn out to be;
    (1, 1) where there is no noise.

    `most`: what Δ cannot be above, whatever is trained.
    """
    low, high = min((delta, *others)), max((delta, *others))
    if max(1 - low, high - 1) < NONE:
        return 1.0, 1.0
    moved = min(max(1 - low, high - 1) / FULL_SHIFT, 1.0)
    return max(low - BELOW * moved, 0.0), max(min(high + ABOVE * moved, most), delta)
