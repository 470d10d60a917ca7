"""Numbers and names as words: how bad a Δ is, counts, lists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from dropout_lint.terms import Basis, nearness

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.:-=+*#"

BASES: dict[Basis, str] = {
    "trained-estimate": "expected after training",
    "checkpoint": "from the checkpoint",
    "measured": "measured",
}
"""What a Δ is, in words."""

# a Δ nearer to 1 than the threshold is harmless; else the first bound that its nearness reaches names it
BOUNDS = ((0.9, "slight"), (0.75, "moderate"), (0.5, "strong"), (0.0, "severe"))


def severity_of_shift(delta: float | None, threshold: float = 0.95) -> str:
    """A word for Δ = Var_test / Var_train."""
    if delta is None or math.isnan(delta):
        return "unknown"
    near = nearness(delta)
    return "harmless" if near >= threshold else next(word for bound, word in BOUNDS if near >= bound)


def in_order(words: Iterable[str]) -> tuple[str, ...]:
    """Those of the words of `severity_of_shift` that occur, the mildest first."""
    found = set(words)
    return tuple(word for word in ("harmless", *(word for _, word in BOUNDS), "unknown") if word in found)


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


def count(amount: int, singular: str, plural: str | None = None) -> str:
    """`1 error`, `2 errors`."""
    return f"{amount} {singular if amount == 1 else plural or singular + 's'}"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def shorten_path(names: Iterable[str]) -> list[str]:
    """Names along a path; those that share their parent with the name before show their last part alone.

    A number, as `nn.Sequential` names its modules, says nothing alone: there the whole name stays.
    """
    shown: list[str] = []
    parent: str | None = None
    for name in names:
        own, _, last = name.rpartition(".") if "@" not in name else ("", "", name)
        if own and own == parent and not last.isdigit():
            shown.append(last)
        else:
            shown.append(name)
        # operations without a name of their own, such as `add()`, do not end the run
        if not name.endswith("()"):
            parent = own
    return shown


def numbered(names: Sequence[str], limit: int = 6) -> str:
    """`a, b, c and 55 more`."""
    if len(names) <= limit + 1:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"


def sparkline(
    ratios: Sequence[float], width: int = 72, *, ascii_only: bool = False, top: float | None = None
) -> str:
    """One bar for each norm, from 1 (lowest) to the worst (highest); neighbours share a bar when there are
    more norms than places, and the bar shows the worse of them. `top` is the ratio of the highest bar.
    """
    if not ratios:
        return ""
    bars = _ASCII_BARS if ascii_only else _BARS
    if len(ratios) > width:
        edges = [round(i * len(ratios) / width) for i in range(width + 1)]
        ratios = [max(ratios[a:b]) for a, b in pairwise(edges)]
    top = (top or max(ratios)) - 1
    # a shift that does not count is flat: noise must not look like a mountain range
    scale = max(top, 0.05)
    return "".join(bars[min(len(bars) - 1, int((ratio - 1) / scale * len(bars)))] for ratio in ratios)
