"""A norm's stored statistics taken for true: its input as it has to have been while they were taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from dropout_lint.prediction.ops.samples import Unrunnable
from dropout_lint.prediction.probe.graph_run import Beside, moments
from dropout_lint.trace.traced import NormSite

LEAST_SIGNAL = 0.05
"""Least share of a running variance that is left to the signal, where the noise alone would be larger."""
MOST_GAIN = 4.0
"""Largest factor for a channel's signal: some see next to nothing."""
HALF = 0.5
"""Mismatch at which a run counts for as much as the moments do."""
LEAST_VARIANCE = 1e-12
"""Of what is divided by, at the least."""
LEAST_VALUES = 64
"""Values of a channel that its moments are taken from, at the least."""


@dataclass(frozen=True)
class Seen:
    """What a run showed at a norm.

    Attributes:
        delta: Var_test / running variance, both as means over channels.
        mismatch: how far the signal was from what the norms up to here remember before it was given that:
            the largest mean over channels of |log of the ratio of the variances|.
        raised: dropout → log of the factor by which its removal raises Δ; empty where it was not tried.
    """

    delta: float
    mismatch: float
    raised: Mapping[str, float] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether its figures are figures: values may have been too large to be squared."""
        return all(map(math.isfinite, (self.delta, *self.raised.values())))

    def beside(self, moments: float) -> float:
        """Δ by the run and by `moments`: the less the recovered inputs excite the network as its data did,
        the less the run counts.
        """
        return self._weighed(self.delta, moments)

    def shares_beside(self, moments: Mapping[str, float]) -> dict[str, float]:
        """Each dropout's share by the run and by `moments`, likewise."""
        raised = {name: max(self.raised.get(name, 0.0), 0.0) for name in moments}
        total = sum(raised.values())
        if not total:
            return dict(moments)
        return {name: self._weighed(raised[name] / total, share) for name, share in moments.items()}

    def _weighed(self, own: float, moments: float) -> float:
        weight = 1 / (1 + (self.mismatch / HALF) ** 2)
        return weight * own + (1 - weight) * moments


@dataclass(frozen=True)
class Correction:
    """What makes a norm's input what it has to have been: signal and noise of a channel, (C,) each.

    Attributes:
        centre: mean of the signal as it was.
        mean: that it has to have.
        gain: factor for its deviation.
        kept: factor for the noise's.
    """

    centre: Tensor
    mean: Tensor
    gain: Tensor
    kept: Tensor

    def applied(self, parts: Parts) -> Beside:
        """The corrected input in each mode."""
        columns = (self.centre, self.mean, self.gain, self.kept)
        centre, mean, gain, kept = (column.view(parts.shape) for column in columns)
        test = (parts.test - centre) * gain + mean
        if parts.quiet:
            return (test,) * (len(parts.draws) + 1)
        signal = (parts.signal - centre) * gain + mean
        return (*(signal + (draw - parts.signal) * kept for draw in parts.draws), test)


class Parts:
    """A norm's input in several modes, as signal and noise.

    Between the draws of the masks it has the same signal; what differs is noise.

    Raises:
        Unrunnable: too few values to tell the moments.
    """

    def __init__(self, site: NormSite, beside: Beside, channels: int) -> None:
        *self.draws, self.test = beside
        if self.test.numel() < LEAST_VALUES * channels:
            raise Unrunnable(f"{self.test.numel()} values for the {channels} channels of {site.name}")
        self.shape = (1, -1, *(1 for _ in self.test.shape[2:]))
        self.quiet = all(draw is self.test for draw in self.draws)
        self.signal = self.test if self.quiet else torch.stack(self.draws).mean(0)
        self.centre, self.own = moments(self.signal, channels)
        self.noise = torch.zeros_like(self.own)
        if not self.quiet:
            count = len(self.draws)
            each = [moments(draw - self.signal, channels)[1] for draw in self.draws]
            self.noise = torch.stack(each).sum(0) / (count - 1)
            self.own = self.own - self.noise / count
        self.tested = moments(self.test, channels)[1]


@dataclass
class Imposed:
    """Δ at every norm of a run whose modes are draws of the masks and, last, test mode.

    Once the norms before have scaled it, noise does not depend on what excites the network; the signal does.
    So each channel's signal is given the mean and the variance that the norm remembers, less the noise's, and
    the input of test mode is scaled alike.

    Attributes:
        statistics: norm node → what it remembers.
        seen: norm node → what the run showed there.
        corrections: norm node → what was done to its input.
        mismatch: the largest so far (`Seen.mismatch`).
    """

    statistics: Mapping[fx.Node, tuple[Tensor, Tensor]]
    seen: dict[fx.Node, Seen] = field(default_factory=dict)
    corrections: dict[fx.Node, Correction] = field(default_factory=dict)
    mismatch: float = 0.0

    def __call__(self, site: NormSite, beside: Beside) -> Beside:
        """The input of a norm in each mode, as it has to have been."""
        mean, variance = self.statistics[site.node]
        parts = Parts(site, beside, len(mean))
        room = torch.maximum(variance - parts.noise, LEAST_SIGNAL * variance)
        ratio = room / parts.own.clamp(min=LEAST_VARIANCE)
        gain = ratio.sqrt().clamp(max=MOST_GAIN)
        kept = ((variance - room) / parts.noise.clamp(min=1e-30)).clamp(0, 1).sqrt()
        self.mismatch = max(self.mismatch, float((ratio.log().abs() * variance).sum() / variance.sum()))
        tested = parts.tested * gain.square()
        self.seen[site.node] = Seen(float(tested.mean() / variance.mean()), self.mismatch)
        correction = self.corrections[site.node] = Correction(parts.centre, mean, gain, kept)
        return correction.applied(parts)


@dataclass
class Anew:
    """The same network with other dropouts on than it was trained with, its statistics estimated anew.

    Attributes:
        statistics: norm node → what it remembers, and what it will divide by.
        corrections: norm node → what was done to its input with all dropouts on (`Imposed`).
        deltas: norm node → Δ.
    """

    statistics: Mapping[fx.Node, tuple[Tensor, Tensor]]
    corrections: Mapping[fx.Node, Correction]
    deltas: dict[fx.Node, float] = field(default_factory=dict)

    def __call__(self, site: NormSite, beside: Beside) -> Beside:
        """The input of a norm in each mode, such that stored statistics do with it what new ones would do."""
        mean, variance = self.statistics[site.node]
        parts, correction = Parts(site, beside, len(mean)), self.corrections[site.node]
        seen = parts.own.clamp(min=0) * correction.gain.square() + parts.noise * correction.kept.square()
        seen = seen.clamp(min=LEAST_VARIANCE)
        self.deltas[site.node] = float((parts.tested * correction.gain.square()).mean() / seen.mean())
        scale = (variance / seen).sqrt()
        anew = Correction(parts.centre, mean, correction.gain * scale, correction.kept * scale)
        return anew.applied(parts)
