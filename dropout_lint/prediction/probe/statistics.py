"""A norm's stored statistics taken for true: its input as it has to have been while they were taken."""

from __future__ import annotations

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
LEAST_VALUES = 64
"""Values of a channel that its moments are taken from, at the least."""


@dataclass(frozen=True)
class Seen:
    """What a run showed at a norm.

    Attributes:
        delta: Var_test / running variance, both as means over channels.
        mismatch: how far the signal was from what the norms up to here remember before it was given that:
            the largest mean over channels of |log of the ratio of the variances|.
    """

    delta: float
    mismatch: float

    def beside(self, moments: float) -> float:
        """Δ by the run and by `moments`: the less the recovered inputs excite the network as its data did,
        the less the run counts.
        """
        weight = 1 / (1 + (self.mismatch / HALF) ** 2)
        return weight * self.delta + (1 - weight) * moments


@dataclass
class Imposed:
    """Δ at every norm of a run whose modes are draws of the masks and, last, test mode.

    Between the draws a norm's input has the same signal; what differs is noise. Once the norms before have
    scaled it, noise does not depend on what excites the network; the signal does. So each channel's signal is
    given the mean and the variance that the norm remembers, less the noise's, and the input of test mode is
    scaled alike.

    Attributes:
        statistics: norm node → what it remembers.
        seen: norm node → what the run showed there.
        mismatch: the largest so far (`Seen.mismatch`).
    """

    statistics: Mapping[fx.Node, tuple[Tensor, Tensor]]
    seen: dict[fx.Node, Seen] = field(default_factory=dict)
    mismatch: float = 0.0

    def __call__(self, site: NormSite, beside: Beside) -> Beside:
        """The input of a norm in each mode, as it has to have been.

        Raises:
            Unrunnable: too few values to tell the moments.
        """
        mean, variance = self.statistics[site.node]
        *draws, test = beside
        if test.numel() < LEAST_VALUES * len(mean):
            raise Unrunnable(f"{test.numel()} values for the {len(mean)} channels of {site.name}")
        shape = (1, -1, *(1 for _ in test.shape[2:]))
        quiet = all(draw is test for draw in draws)
        count = len(draws)
        signal = test if quiet else torch.stack(draws).mean(0)
        centre, own = moments(signal, len(mean))
        noise = torch.zeros_like(own)
        if not quiet:
            noise = torch.stack([moments(draw - signal, len(mean))[1] for draw in draws]).sum(0) / (count - 1)
            own = own - noise / count
        room = torch.maximum(variance - noise, LEAST_SIGNAL * variance)
        gain = (room / own.clamp(min=1e-12)).sqrt().clamp(max=MOST_GAIN)
        kept = ((variance - room) / noise.clamp(min=1e-30)).clamp(0, 1).sqrt().view(shape)
        apart = (room / own.clamp(min=1e-12)).log().abs()
        self.mismatch = max(self.mismatch, float((apart * variance).sum() / variance.sum()))
        tested = moments(test, len(mean))[1] * gain.square()
        self.seen[site.node] = Seen(float(tested.mean() / variance.mean()), self.mismatch)
        centre, gain, mean = (one.view(shape) for one in (centre, gain, mean))
        test = (test - centre) * gain + mean
        if quiet:
            return (test,) * len(beside)
        signalled = (signal - centre) * gain + mean
        return (*(signalled + (draw - signal) * kept for draw in draws), test)
