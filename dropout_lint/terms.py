"""Words that several rooms share, each with its meaning. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

Severity = Literal["error", "warning", "info"]
"""How bad a finding is."""
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The worst first."""

Strategy = Literal["auto", "move", "uout", "reduce", "remove"]
"""What a user may ask a fix for."""
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

Remedy = Literal["move", "uout", "reduce", "remove", "repair"]
"""What a rule names as the fix of its findings."""
REMEDIES: tuple[Remedy, ...] = get_args(Remedy)

Basis = Literal["trained-estimate", "checkpoint", "measured"]
"""What a Δ speaks of: a network as training will leave it, one from a file, or what was seen."""

NO_SHAPES = "no shapes are known there"
"""Why Δ is unknown at a norm in a graph that was traced without inputs."""
UNSEEN = "train mode was not seen"
"""Why Δ is unknown at a norm before which no dropout stands, in a graph of test mode alone."""
APART = "what comes before its part was not seen"
"""Why Δ is unknown at a norm before which no dropout stands, in a part that was traced alone."""
NOT_FINITE = "values that are not finite"
"""Stands in `Prediction.fallbacks` where weights or statistics are NaN, infinite, or too large to square."""


def nearness(delta: float) -> float:
    """How near a Δ is to 1: itself, or its inverse where it is above, which is as bad."""
    return 1 / delta if delta > 1 else delta


def shift_ratio(delta: float) -> float:
    """max(Δ, 1/Δ) (Li et al. 2019, Sec. 4); 1 is no shift."""
    return max(delta, 1 / delta)


def worst_first(delta: float | None) -> float:
    """Sorts what has a Δ, the farthest from 1 first, the unknown last."""
    return 2.0 if delta is None else nearness(delta)


def worst_of(deltas: Iterable[float]) -> float | None:
    """The Δ that is farthest from 1, None of none."""
    return min(deltas, key=nearness, default=None)


def at_least(severity: str, least: str) -> bool:
    """Whether a severity is `least` or worse; `off` is less than all."""
    order = (*SEVERITIES, "off")
    return order.index(severity) <= order.index(least)


@dataclass(frozen=True)
class Mask:
    """How a kind of noise draws the mask m of x·m (Li et al. 2019, Sec. 3; Kim et al. 2023, Sec. 2).

    Attributes:
        over: what shares one draw of it.
        variance: variance by the ratio of a mask that is spread around 1 and never drops; None for one that
            drops with probability p and multiplies what it keeps by 1/(1 - p).
        symbol: what papers call the ratio.
        keeps_moments: what it drops gets the value with which mean and variance stay (alpha dropout).
        inside_layer: it is drawn inside a layer that does more than that.
        of_calls: no mask is drawn, but whether a layer is called for a batch.
    """

    over: Literal["element", "channel", "sample", "batch", "block"] = "element"
    variance: Callable[[float], float] | None = None
    symbol: str = "p"
    keeps_moments: bool = False
    inside_layer: bool = False
    of_calls: bool = False


ELEMENTWISE = Mask()


class Noise(StrEnum):
    """The kinds of noise, by the name that settings and rules have for them. A kind is one entry here."""

    mask: Mask

    def __new__(cls, name: str, mask: Mask = ELEMENTWISE) -> Noise:
        """A kind: its name is its value, and how it is drawn is beside it."""
        kind = str.__new__(cls, name)
        kind._value_, kind.mask = name, mask
        return kind

    ELEMENT = "element", ELEMENTWISE
    CHANNEL = "channel", Mask(over="channel")
    SAMPLE = "sample", Mask(over="sample")
    BATCH = "batch", Mask(over="batch")
    LAYER = "layer", Mask(over="batch", of_calls=True)
    BLOCK = "block", Mask(over="block")
    UNIFORM = "uniform", Mask(variance=lambda beta: beta**2 / 3, symbol="β")
    GAUSSIAN = "gaussian", Mask(variance=lambda alpha: alpha, symbol="α")
    GATE = "gate", Mask(over="sample", variance=lambda relative: relative, symbol="relative variance")
    BLEND = "blend", Mask(over="sample")
    ALPHA = "alpha", Mask(keeps_moments=True)
    FEATURE_ALPHA = "feature-alpha", Mask(over="channel", keeps_moments=True)
    ATTENTION = "attention", Mask(inside_layer=True)
    RECURRENT = "recurrent", Mask(inside_layer=True)

    @property
    def whole_branch(self) -> bool:
        """Whether one draw drops all that a residual branch holds of a sample, or a region of it."""
        return self.mask.over in ("sample", "batch", "block")

    @property
    def whole_sample(self) -> bool:
        """Whether one draw is for all that a sample holds."""
        return self.mask.over in ("sample", "batch")

    @property
    def channelwise(self) -> bool:
        """Whether one draw is for all positions of a channel."""
        return self.mask.over == "channel"

    @property
    def drops(self) -> bool:
        """Whether the mask is ever 0; Uout's, a gate's and that of Gaussian dropout are spread around 1."""
        return self.mask.variance is None

    @property
    def movable(self) -> bool:
        """Whether a dropout of this noise may stand elsewhere on the way of the data."""
        return not self.whole_branch and not self.mask.inside_layer

    @property
    def declarable(self) -> bool:
        """Whether a project may name it for a dropout class of its own."""
        return not self.mask.inside_layer and not self.mask.of_calls
