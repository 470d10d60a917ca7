"""What shapes cannot tell: the interval that Δ of the trained network lies in nine times in ten."""

from __future__ import annotations


def interval(delta: float, weak: float, strong: float) -> tuple[float, float]:
    """Ends around `delta`, from Δ with weak and with strong training.

    Without noise there is nothing to be unsure of.
    """
    if delta == weak == strong == 1:
        return 1.0, 1.0
    low, high = min(delta, weak, strong), max(delta, weak, strong)
    return low, high
