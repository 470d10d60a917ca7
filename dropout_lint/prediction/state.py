"""What the ledger knows about one tensor: its moments in test mode, in train mode, and the noise by dropout.

Channels that cannot be told apart are kept as one group. With real weights every channel is its own group;
with weights on meta a tensor is one group, and a concatenation is one group for each part. In such a group
the mean of a channel is itself spread over the channels: channel mean = `mean + dev·ζ`, ζ ~ N(0, 1).

In train mode a value is drawn from K components, one for each value that a pending mask can take (K = 1 where
none is pending; a dropped and a kept one after a dropout). Within a component the value is

    mean + dev·ζ  +  sig·ξ  +  noise            ξ the data, sig² + Var noise = var

so the mixture gives ReLU(mask·x) = mask·ReLU(x) (Kim Prop. 1) without a special case, and works for functions
that do not commute with a mask as well. A linear layer adds up many masks and leaves one normal component.

What several trainings make of a tensor may stand in one state, abreast: its arrays then have the trainings as
one more dimension, the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropout_lint.prediction.parts import Normals, Skewness, by_row, quotient, replace
from dropout_lint.prediction.quadrature import Array

LAGS = 8
"""Spatial correlation is kept at the distances 1, 2, 4, …, 2^(LAGS-1)."""


INDEPENDENT_NOISE_SHARE = 0.12
"""How far noise that the data know nothing of takes part in the amplification by trained weights. Assumed."""
LEAST_DATA_CORRELATION = 0.05
"""The same, at least, for the mask of a whole sample: its channels have a shift in common. Assumed."""
PER_GROUP = (
    "t_mean",
    "t_dev",
    "t_var",
    "mean",
    "dev",
    "sig",
    "var",
    "data",
    "noise",
    "shared_by_positions",
    "shared_by_channels",
)
"""Fields of every `State` whose last dimension is the groups of channels."""

PER_GROUP_OR_NONE = (
    "covariance_growth",
    "energy_slope",
    "t_energy_slope",
    "sample_mask_slope",
    "border_variance",
    "t_border_variance",
    "newly_shared",
    "sources",
)
"""The same, of fields that not every `State` has."""

MOMENTS_ALONE = dict.fromkeys((*PER_GROUP_OR_NONE, "skew", "before_relu"), None)
"""What is not known of a tensor whose moments alone were worked out."""

SEVERAL = -2
"""`State.source` where channels hold pending masks of different dropouts."""


@dataclass(frozen=True)
class State:
    """Moments of one tensor; G groups of channels, K components, S dropouts (the sources of noise).

    Attributes:
        axis: the dimension that holds the channels.
        counts: (G,) number of channels in each group.
        t_mean, t_dev, t_var: (G,) mean, spread of the mean over channels, and variance, in test mode.
        prob: (K,) probability of each component.
        mean, dev, sig, var: (K, G) train mode, within a component.
        data: (G,) variance over the data of the mean over all masks, train mode; the rest of the variance is
            noise.
        noise: (S, G) variance that each dropout causes in train mode.
        shared_by_positions: (S, G) share of it that is the same at all positions of a channel.
        shared_by_channels: (S, G) share of it that channels hold in common: it has passed a weight layer,
            or its mask is one for the whole sample.
        data_correlation: (S, 1) squared correlation of its pattern with the data's: 1 for a fresh mask of
            a whole sample, which takes away just what the data put there; 0 for masks that the data know
            nothing of.
        rho: (LAGS,) correlation of the data part between positions.
        mask: what the components' mask is shared over: "" (none pending), "element", "channel" or "sample".
        source: index of the dropout whose mask is pending, -1 for none, `SEVERAL` where channels differ.
        sources: (G,) the same for each channel, where they differ.
        levels: the mask's values, while the tensor still is mask times something.
        channel_correlation: mean squared correlation of the data part between two channels.
        kernel_size: size of the kernel that made `channel_spread`.
        channel_spread: relative variance, over the channels, of the data part's variance, where it is not
            known by channel.
        covariance_growth: (G,) test over train variance of whatever the data cause beyond `data` (what the
            weights' signs add up, which only a trained norm's statistics tell); None: the same as `t_var /
            data`.
        skew: third moments; None for 0. A weight layer adds up many inputs and leaves none, but a rectified
            skip keeps its own.
        energy_slope, t_energy_slope: (G,) how far the channel goes along, per standard deviation, with the
            one thing that all channels have in common: how much there is to see around a position (its
            local energy). Its square is part of `data` and `t_var`; None for 0.
        sample_mask_slope: (S, G) how far the channel's mean goes along with each mask that whole samples
            share, per standard deviation of the mask: dropping a branch moves all channels at once, each
            its own way. Its square is part of `noise`; None for 0.
        before_relu: while the tensor is mask times ReLU of something, that something, as one component.
        withheld: how many times larger the data part is in test mode for masks whose mean is not 1.
        trained_gain: how many times larger than Σ w²·data the last trained norm found the data part behind
            a weight layer.
        from_weight_layer: a weight layer's output, nothing but masks since.
        border_variance, t_border_variance: (G,) variance over positions of the mean, which the layer's
            zero padding makes; part of `data` and `t_var` while the tensor is `from_weight_layer`. None
            for 0.
        newly_shared: (S, G) share of the noise that has passed its first weight layer just now, of a tensor
            that is `from_weight_layer`: Σ w²·noise, exactly, whatever the weights are. None for 0.
        energy_variance: relative variance, over the positions, of the variance around a position (its
            local energy).
        positions_averaged: for attention weights (softmax output), number of positions that they
            effectively average.
    """

    axis: int
    counts: Array
    t_mean: Array
    t_dev: Array
    t_var: Array
    prob: Array
    mean: Array
    dev: Array
    sig: Array
    var: Array
    data: Array
    noise: Array
    shared_by_positions: Array
    shared_by_channels: Array
    data_correlation: Array
    rho: Array
    mask: str = ""
    source: int = -1
    sources: npt.NDArray[Any] | None = None
    levels: tuple[float, ...] = ()
    kernel_size: tuple[int, ...] = ()
    positions_averaged: float = 0.0
    channel_correlation: float = 0.0
    channel_spread: float = 0.0
    covariance_growth: Array | None = None
    skew: Skewness | None = None
    energy_slope: Array | None = None
    t_energy_slope: Array | None = None
    sample_mask_slope: Array | None = None
    before_relu: Normals | None = None
    withheld: float = 1.0
    trained_gain: float = 1.0
    from_weight_layer: bool = False
    border_variance: Array | None = None
    t_border_variance: Array | None = None
    newly_shared: Array | None = None
    energy_variance: float = 0.0

    def changed(self, **values: Any) -> State:
        """A copy with other values: `dataclasses.replace` for values that come as a dictionary."""
        return replace(self, **values)

    @property
    def abreast(self) -> bool:
        """Whether it is what several trainings make of a tensor."""
        return self.t_var.ndim > 1

    @property
    def groups(self) -> int:
        """G."""
        return len(self.counts)

    @property
    def components(self) -> int:
        """K."""
        return len(self.prob)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.counts.sum())

    @property
    def train_mean(self) -> Array:
        """(G,) mean in train mode."""
        mean: Array = self.mean[..., 0, :] if self.components == 1 else self.prob @ self.mean
        return mean

    @property
    def train_dev(self) -> Array:
        """(G,) signed spread of the channel means in train mode."""
        dev: Array = self.dev[..., 0, :] if self.components == 1 else self.prob @ self.dev
        return dev

    @property
    def train_var(self) -> Array:
        """(G,) variance of a channel over data, positions and masks in train mode."""
        if self.components == 1:
            only: Array = self.var[..., 0, :]
            return only
        second = self.prob @ (self.var + self.mean**2 + self.dev**2)
        result: Array = second - self.train_mean**2 - self.train_dev**2
        return result

    @property
    def delta(self) -> float:
        """Σ test variances / Σ train variances over the channels (Li Sec. 4); 1 for a constant, NaN where
        weights are not finite.
        """
        train = float(self.counts @ self.train_var)
        return 1.0 if train <= 0 else float(self.counts @ self.t_var) / train

    @property
    def covariance_growths(self) -> Array:
        """(G,) `covariance_growth`, worked out where it is not given; where a channel's own signal fades
        in test mode, so does what it has in common with others.
        """
        data, test = self.data, self.t_var
        if self.from_weight_layer and self.border_variance is not None:
            border_variance, t_border = self.border_variances
            data, test = data - border_variance, test - t_border
        own: Array = quotient(test, data, 1.0)
        if self.covariance_growth is None:
            return own
        fading = np.minimum(np.minimum(self.covariance_growth, 1.0), own)
        result: Array = np.maximum(self.covariance_growth, 1.0) * fading
        return result

    @property
    def sample_wide(self) -> bool:
        """Whether one mask that whole samples share is pending: weight layers keep its components."""
        return self.components > 1 and self.mask == "sample" and self.source >= 0

    @property
    def pending(self) -> npt.NDArray[Any]:
        """(G,) index of the dropout whose mask is pending, below 0 where none or unknown."""
        return np.full(self.groups, self.source) if self.sources is None else self.sources

    @property
    def masked(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Index into (S, G): each channel's pending mask."""
        channels = np.flatnonzero(self.pending >= 0)
        return self.pending[channels], channels

    @property
    def component_scale(self) -> Array:
        """(K, G) the data part's deviation in each component, against its mean over the components."""
        mean = self.prob @ self.sig
        return quotient(self.sig, mean[..., None, :], 1.0)

    @property
    def energy_slopes(self) -> tuple[Array, Array]:
        """(G,) `energy_slope` and `t_energy_slope`, zeros where they are not known."""
        if (
            self.energy_slope is None
            or self.t_energy_slope is None
            or self.energy_slope.shape != self.t_mean.shape
        ):
            return np.zeros(self.t_mean.shape), np.zeros(self.t_mean.shape)
        bound, t_bound = np.sqrt(np.maximum(self.data, 0.0)), np.sqrt(np.maximum(self.t_var, 0.0))
        return np.clip(self.energy_slope, -bound, bound), np.clip(self.t_energy_slope, -t_bound, t_bound)

    @property
    def border_variances(self) -> tuple[Array, Array]:
        """(G,) `border_variance` and `t_border_variance`, zeros where there is none."""
        if (
            not self.from_weight_layer
            or self.border_variance is None
            or self.t_border_variance is None
            or self.border_variance.shape != self.data.shape
        ):
            return np.zeros(self.data.shape), np.zeros(self.data.shape)
        return np.minimum(self.border_variance, self.data), np.minimum(self.t_border_variance, self.t_var)

    @property
    def sample_mask_slopes(self) -> Array:
        """(S, G) `sample_mask_slope`, zeros where it is not known."""
        if self.sample_mask_slope is None or self.sample_mask_slope.shape != self.noise.shape:
            return np.zeros_like(self.noise)
        bound = np.sqrt(self.noise)
        return np.clip(self.sample_mask_slope, -bound, bound)

    @property
    def independent_noise(self) -> Array:
        """(S, G) noise beside what the channels' means owe to masks of whole samples."""
        return (
            self.noise
            if self.sample_mask_slope is None
            else np.maximum(self.noise - self.sample_mask_slopes**2, 0.0)
        )

    @property
    def amplified_noise(self) -> Array:
        """(S, G) noise that trained weights amplify together with the data."""
        result: Array = self.independent_noise * self.shared_before_weights * self.amplified_share
        return result

    @property
    def shared_before_weights(self) -> Array:
        """(S, G) share of the noise that weights may add up: it was shared by channels before they saw it."""
        if not self.from_weight_layer or self.newly_shared is None:
            return self.shared_by_channels
        result: Array = np.maximum(self.shared_by_channels - self.newly_shared, 0.0)
        return result

    @property
    def amplified_share(self) -> Array:
        """(S, 1) how far noise takes part in what trained weights make of the data."""
        return np.where(
            self.data_correlation > 0,
            np.maximum(self.data_correlation, LEAST_DATA_CORRELATION),
            INDEPENDENT_NOISE_SHARE,
        )

    def collapse(self) -> State:
        """One normal component with the mixture's moments: what a sum over many masks looks like."""
        if self.components == 1:
            return self if not self.mask else replace(self, mask="", source=-1, levels=())
        return replace(
            self,
            prob=np.ones(1),
            mean=self.train_mean[..., None, :],
            dev=self.train_dev[..., None, :],
            sig=np.sqrt(self.data)[..., None, :],
            var=np.maximum(self.train_var, 0.0)[..., None, :],
            skew=None if self.skew is None else self._mixed(self.skew),
            sample_mask_slope=self._turned(),
            before_relu=None,
            mask="",
            source=-1,
            sources=None,
            levels=(),
        )

    def _turned(self) -> Array | None:
        """`sample_mask_slope` with the pending mask's own: what it does to the channels' means."""
        if self.mask != "sample":
            return self.sample_mask_slope
        spread = np.sqrt(self.prob @ (self.mean - self.train_mean[..., None, :]) ** 2)
        if not np.any(spread):
            return self.sample_mask_slope
        sample_mask_slope = self.sample_mask_slopes.copy()
        turned = spread * np.sign(self.mean[..., -1, :] - self.mean[..., 0, :])
        row, channel = self.masked
        sample_mask_slope[..., row, channel] += turned[..., channel]
        return sample_mask_slope

    def _mixed(self, skew: Skewness) -> Skewness:
        """Skewness of the whole mixture: Σ π_k (κ₃_k + 3·d_k·Var_k + d_k³), d_k = mean_k - mean."""
        apart = self.mean - self.train_mean[..., None, :]
        third = self.prob @ (skew.train * self.var**1.5 + 3 * apart * self.var + apart**3)
        train = third / np.maximum(self.train_var, 1e-30) ** 1.5
        return Skewness(train[..., None, :], skew.test[..., None, :], skew.test)

    def balanced(self) -> State:
        """The same with `noise` scaled so that its sum is what train mode has beyond the data part."""
        total = np.maximum(self.train_var - self.data, 0.0)
        now = self.noise.sum(-2)
        scale = quotient(total, now)
        return replace(self, noise=self.noise * scale[..., None, :])

    def pick(self, index: npt.NDArray[Any], counts: Array) -> State:
        """Groups `index` (repeats allowed), with `counts` channels each."""
        take = {name: getattr(self, name)[..., index] for name in PER_GROUP}
        for name in PER_GROUP_OR_NONE:
            value = getattr(self, name)
            take[name] = None if value is None else value[..., index]
        skew = None if self.skew is None else self.skew.pick(index)
        under = None if self.before_relu is None else self.before_relu.pick(index)
        return replace(self, counts=counts, skew=skew, before_relu=under, **take)

    def per_channel(self) -> State:
        """Every channel its own group."""
        if np.all(self.counts == 1):
            return self
        index = np.repeat(np.arange(self.groups), self.counts.astype(int))
        return self.pick(index, np.ones(len(index)))

    def merged(self) -> State:
        """All channels as one group: means over the channels, their differences kept as spread."""
        if self.groups == 1:
            return self
        weight = self.counts / self.counts.sum()
        mean, t_mean = self.mean @ weight, self.t_mean @ weight
        dev2 = (self.dev**2 + self.mean**2) @ weight - mean**2
        t_dev2 = (self.t_dev**2 + self.t_mean**2) @ weight - t_mean**2
        noise = self.noise @ weight
        shared, old = (
            quotient((self.noise * part) @ weight, noise)
            for part in (self.shared_by_positions, self.shared_by_channels)
        )
        return replace(
            self,
            counts=self.counts.sum(keepdims=True),
            t_mean=t_mean[..., None],
            t_dev=np.sqrt(np.maximum(t_dev2, 0.0))[..., None],
            t_var=(self.t_var @ weight)[..., None],
            mean=mean[..., None],
            dev=np.sqrt(np.maximum(dev2, 0.0))[..., None],
            sig=np.sqrt(self.sig**2 @ weight)[..., None],
            var=(self.var @ weight)[..., None],
            data=(self.data @ weight)[..., None],
            noise=noise[..., None],
            shared_by_positions=shared[..., None],
            shared_by_channels=old[..., None],
            **MOMENTS_ALONE,
        )

    def on(self, axis: int, channels: int) -> State:
        """The same with `channels` channels in dimension `axis`; merges the groups where they lie
        elsewhere.
        """
        if self.axis == axis and self.channels == channels:
            return self
        return replace(self.merged(), axis=axis, counts=np.array([float(max(channels, 1))]))

    def scaled(self, factor: Array | float, shift: Array | float = 0.0) -> State:
        """`factor·x + shift`, per group."""
        square, plain = factor * factor, isinstance(shift, float) and shift == 0
        rows, power = by_row(factor), by_row(square)
        return replace(
            self,
            t_mean=self.t_mean * factor + shift,
            t_dev=self.t_dev * factor,
            t_var=self.t_var * square,
            mean=self.mean * rows + by_row(shift),
            dev=self.dev * rows,
            sig=self.sig * np.abs(rows),
            var=self.var * power,
            data=self.data * square,
            noise=self.noise * power,
            levels=self.levels if plain or not np.any(shift) else (),
            skew=None if self.skew is None else self.skew.times(np.sign(factor)),
            energy_slope=None if self.energy_slope is None else self.energy_slope * factor,
            t_energy_slope=None if self.t_energy_slope is None else self.t_energy_slope * factor,
            sample_mask_slope=None if self.sample_mask_slope is None else self.sample_mask_slope * rows,
            border_variance=None if self.border_variance is None else self.border_variance * square,
            t_border_variance=None if self.t_border_variance is None else self.t_border_variance * square,
            before_relu=None,
        )


def constant(mean: float, sources: int, *, dev: float = 0.0, axis: int = 1, channels: int = 1) -> State:
    """A tensor that neither data nor masks change: a parameter, an index, a number."""
    return fresh(sources, axis=axis, channels=channels, mean=mean, var=0.0, dev=dev)


def fresh(
    sources: int,
    *,
    axis: int,
    channels: int,
    mean: float = 0.0,
    var: float = 1.0,
    dev: float = 0.0,
    rho: Array | None = None,
) -> State:
    """A tensor without noise: one group of `channels` channels of the given mean and variance."""
    one = np.ones(1)
    return State(
        axis=axis,
        counts=np.array([float(max(channels, 1))]),
        t_mean=mean * one,
        t_dev=dev * one,
        t_var=var * one,
        prob=one,
        mean=np.full((1, 1), mean),
        dev=np.full((1, 1), dev),
        sig=np.full((1, 1), np.sqrt(var)),
        var=np.full((1, 1), var),
        data=var * one,
        noise=np.zeros((sources, 1)),
        shared_by_positions=np.zeros((sources, 1)),
        shared_by_channels=np.zeros((sources, 1)),
        data_correlation=np.zeros((sources, 1)),
        rho=np.zeros(LAGS) if rho is None else rho,
    )


def align(a: State, b: State) -> tuple[State, State]:
    """The same groups of channels in both, for an elementwise operation; the finer grouping wins."""
    if a.groups == b.groups and np.array_equal(a.counts, b.counts):
        return a, b
    if b.groups == 1:
        return a, replace(b.pick(np.zeros(a.groups, dtype=int), a.counts), axis=a.axis)
    if a.groups == 1:
        return replace(a.pick(np.zeros(b.groups, dtype=int), b.counts), axis=b.axis), b
    if a.channels != b.channels:
        return align(a, b.merged())
    ends = np.union1d(np.cumsum(a.counts), np.cumsum(b.counts))
    counts = np.diff(ends, prepend=0.0)
    middle = ends - counts / 2
    return (
        a.pick(np.searchsorted(np.cumsum(a.counts), middle), counts),
        b.pick(np.searchsorted(np.cumsum(b.counts), middle), counts),
    )
