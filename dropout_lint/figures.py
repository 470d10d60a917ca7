"""How Δ is written: the same figure in every message, table and format. Free of torch."""

from __future__ import annotations

BASES = {
    "trained-estimate": "expected after training",
    "checkpoint": "from the checkpoint",
    "measured": "measured",
}
"""What a Δ is, in words."""


def number(delta: float) -> str:
    """Δ with two decimals, three where it is so near to 1 or 0 that two would say nothing."""
    text, longer = f"{delta:.2f}", f"{delta:.3f}"
    return longer if text in ("1.00", "0.00") and float(longer) not in (0, 1) else text


def with_interval(delta: float | None, interval: tuple[float, float] | None) -> str:
    """`0.70 (0.50–0.85)`, without the interval where none is given, `unknown` for None."""
    if delta is None:
        return "unknown"
    if interval is None:
        return number(delta)
    low, high = (number(end) for end in interval)
    return number(delta) if low == high == number(delta) else f"{number(delta)} ({low}–{high})"
