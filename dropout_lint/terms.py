"""Words that several rooms share, each with its meaning. Free of torch."""

from __future__ import annotations

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
NOT_FINITE = "values that are not finite"
"""Stands in `Prediction.fallbacks` where weights or statistics are NaN, infinite, or too large to square."""


def at_least(severity: str, least: str) -> bool:
    """Whether a severity is `least` or worse; `off` is less than all."""
    order = (*SEVERITIES, "off")
    return order.index(severity) <= order.index(least)


class Noise(StrEnum):
    """What shares one draw of the mask (Li et al. 2019, Sec. 3; Kim et al. 2023, Sec. 2)."""

    ELEMENT = "element"
    CHANNEL = "channel"
    SAMPLE = "sample"
    BATCH = "batch"
    BLOCK = "block"
    UNIFORM = "uniform"
    GAUSSIAN = "gaussian"
    ALPHA = "alpha"
    FEATURE_ALPHA = "feature-alpha"
    ATTENTION = "attention"
    RECURRENT = "recurrent"

    @property
    def whole_branch(self) -> bool:
        """Whether one draw drops all that a residual branch holds of a sample, or a region of it."""
        return self in (Noise.SAMPLE, Noise.BATCH, Noise.BLOCK)

    @property
    def channelwise(self) -> bool:
        """Whether one draw is for all positions of a channel."""
        return self in (Noise.CHANNEL, Noise.FEATURE_ALPHA)

    @property
    def additive_range(self) -> bool:
        """Whether the mask is spread around 1 and never drops (Uout, Gaussian dropout)."""
        return self in (Noise.UNIFORM, Noise.GAUSSIAN)

    @property
    def movable(self) -> bool:
        """Whether a dropout of this noise may stand elsewhere on the way of the data."""
        return not self.whole_branch and not self.inside_layer

    @property
    def inside_layer(self) -> bool:
        """Whether the noise is made inside a layer that does more than that."""
        return self in (Noise.ATTENTION, Noise.RECURRENT)

    @property
    def declarable(self) -> bool:
        """Whether a project may name it for a dropout class of its own."""
        return not self.inside_layer
