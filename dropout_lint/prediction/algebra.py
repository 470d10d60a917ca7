"""Arithmetic of states: sums, products, choices, and channels side by side.

Add. Noise that reaches both sides of an add is the same noise in two places; its covariance is Σ w·(...) over
the weights between, which has mean 0 for untrained weights, so variances add. A mask that is still pending on
both sides (no weights between) is the same mask: its components are added one by one, and so the coherence is
exact.

Multiply. For independent a and b: E[ab] = E[a]E[b], E[(ab)²] = E[a²]E[b²], in each mode and for the data part
alike.

Choice. Where a mask that does not depend on a and b takes a at a fraction f of the positions, else b, moments
are averaged and f(1 - f)(E a - E b)² is added, in either mode: it is a pattern, not noise.

Concatenate. Channels side by side: groups side by side. Along another dimension a position is in one or the
other part: moments are averaged by size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dropout_lint.prediction.abreast import everywhere, level
from dropout_lint.prediction.parts import Skewness, by_row, quotient, replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import MOMENTS_ALONE, PER_GROUP, PER_GROUP_OR_NONE, SEVERAL, State, align


def paired(a: State, b: State) -> tuple[State, State]:
    """The same groups and components in both."""
    if a.components > 1 and b.components > 1:
        same = a.source == b.source and a.mask == b.mask and a.components == b.components
        if not same:
            a, b = latest(a, b)
    a, b = align(a, b)
    if a.components == b.components:
        return a, b
    if a.components == 1:
        return _repeated(a, b), b
    return a, _repeated(b, a)


def latest(a: State, b: State) -> tuple[State, State]:
    """The sides with one pending mask: a whole sample's rather than another one, the later rather than the
    earlier one.
    """
    if (a.sample_wide, a.source) > (b.sample_wide, b.source):
        return a, b.collapse()
    return a.collapse(), b


def _repeated(x: State, like: State) -> State:
    k = like.components
    wide = {name: np.repeat(getattr(x, name), k, axis=-2) for name in ("mean", "dev", "sig", "var")}
    skew = x.skew and x.skew.components([0] * k)
    return x.changed(
        prob=like.prob,
        mask=like.mask,
        source=like.source,
        sources=like.sources,
        levels=(),
        skew=skew,
        **wide,
    )


def _parts(a: State, b: State) -> tuple[Array, Array, bool]:
    """Test variance of each part over all channels, and whether there is any."""
    left, right = a.t_var @ a.counts, b.t_var @ b.counts
    return left, right, everywhere(a, left + right > 0)


def _mixed_rho(a: State, b: State) -> Array:
    left, right, some = _parts(a, b)
    if not some:
        return a.rho
    result: Array = (a.rho * left[..., None] + b.rho * right[..., None]) / (left + right)[..., None]
    return result


def _mixed_spread(a: State, b: State) -> dict[str, Any]:
    """Two parts whose covariances have random signs, so that squares add up.

    Channels of the two parts correlate as channels of one part do, by the root of
    the product of their `channel_correlation`s, squared. In a sum of a and b a channel's variance holds
    2·cov(a, b), which differs from channel to channel by 4·fg·channel_correlation.
    """
    left, right, some = _parts(a, b)
    if not some:
        return {"channel_correlation": a.channel_correlation, "channel_spread": a.channel_spread}
    f, g = left / (left + right), right / (left + right)
    crossed = f * g * np.sqrt(a.channel_correlation * b.channel_correlation)
    return {
        "channel_correlation": f**2 * a.channel_correlation + g**2 * b.channel_correlation + 2 * crossed,
        "channel_spread": f**2 * a.channel_spread + g**2 * b.channel_spread + 4 * crossed,
    }


def mixed_noise(a: State, b: State, left: Array, right: Array) -> dict[str, Array]:
    """Noise of two independent parts, and the shares in it."""
    total = left + right
    shared, old = (
        quotient(left * f + right * g, total)
        for f, g in (
            (a.shared_by_positions, b.shared_by_positions),
            (a.shared_by_channels, b.shared_by_channels),
        )
    )
    return {
        "noise": total,
        "shared_by_positions": shared,
        "shared_by_channels": old,
        "data_correlation": np.maximum(a.data_correlation, b.data_correlation),
    }


def add(a: State, b: State, agreement: float = 0.0) -> State:
    """a + b, whose data parts correlate by `agreement` in either mode."""
    a, b = level(a, b)
    same = a.components > 1 and a.source == b.source and bool(a.levels) and bool(b.levels)
    if (
        not same and not everywhere(a, a.dev == 0) and not everywhere(b, b.dev == 0)
    ):  # two spreads have no common sign: components cannot hold both
        a, b = a.collapse(), b.collapse()
    a, b = paired(a, b)
    twice = 2 * agreement
    common, t_common = twice * a.sig * b.sig, twice * np.sqrt(a.t_var * b.t_var)
    var, t_var = a.var + b.var + common, a.t_var + b.t_var + t_common
    noise, sample_mask_slope = (
        mixed_noise(a, b, a.noise, b.noise),
        a.sample_mask_slope if b.sample_mask_slope is None else b.sample_mask_slope,
    )
    if (
        a.sample_mask_slope is not None and b.sample_mask_slope is not None
    ):  # one mask moves both sides at once
        together, sample_mask_slope = (
            2 * a.sample_mask_slopes * b.sample_mask_slopes,
            a.sample_mask_slopes + b.sample_mask_slopes,
        )
        noise["noise"], var = noise["noise"] + together, var + together.sum(-2)[..., None, :]
    if agreement:  # noise that goes along with the data agrees as far as they do
        amplified_share = twice * np.sqrt(
            a.amplified_share * b.amplified_share * a.independent_noise * b.independent_noise
        )
        if a.components > 1:  # the components say so of the pending masks
            amplified_share[a.masked] = 0.0
        noise["noise"], var = noise["noise"] + amplified_share, var + amplified_share.sum(0)
    noise["data_correlation"] = _joint_data_correlation((a, b), agreement)
    result = a.changed(
        axis=max(a.axis, b.axis),
        t_mean=a.t_mean + b.t_mean,
        t_dev=np.hypot(a.t_dev, b.t_dev),
        t_var=t_var,
        mean=a.mean + b.mean,
        dev=np.where(b.dev == 0, a.dev, np.where(a.dev == 0, b.dev, np.hypot(a.dev, b.dev))),
        sig=np.sqrt(a.sig**2 + b.sig**2 + common),
        var=var,
        data=a.data + b.data + twice * np.sqrt(a.data * b.data),
        **noise,
        sample_mask_slope=sample_mask_slope,
        from_weight_layer=False,
        trained_gain=1.0,
        rho=_mixed_rho(a, b),
        **_mixed_spread(a, b),
        covariance_growth=_mean_lift(a, b),
        skew=_mixed_skewness(a, b, agreement),
        **_added_swing(a, b),
        before_relu=None,
        levels=a.levels if same else (),
        positions_averaged=max(a.positions_averaged, b.positions_averaged),
        energy_variance=max(a.energy_variance, b.energy_variance),
    )
    return result.balanced() if result.components > 1 else result


def _joint_data_correlation(parts: Sequence[State], agreement: float = 0.0) -> Array:
    """(S, 1) `State.data_correlation` of a sum or a concat.

    With N and D the power of noise and data in each part, and ρ their agreement, the covariance of noise and
    data is Σ_ij ρ_ij √(κ_i N_i D_j). Weights amplify what is strongest in the sum most, so its squared
    correlation counts squared (assumed): noise of all that the data do keeps 1, that of one branch gets
    little.
    """
    kins = np.array([x.data_correlation[..., 0] for x in parts])
    noise = np.array([x.independent_noise @ x.counts for x in parts])
    data = np.array([(x.data @ x.counts)[..., None] for x in parts])
    along, roots = np.sqrt(kins * noise), np.sqrt(data)

    cov, total, every = (roots * along).sum(0), noise.sum(0), data.sum(0)
    if agreement:
        cov = cov + agreement * (roots.sum(0) * along.sum(0) - cov)
        total = total + agreement * (along.sum(0) ** 2 - (along**2).sum(0))
        every = every + agreement * (roots.sum(0) ** 2 - every)
    power = total * every
    held = np.divide(cov**2, power, out=kins.max(0), where=power > 0)
    result: Array = (np.minimum(held, 1.0) ** 2)[..., None]
    return result


def _added_swing(a: State, b: State) -> dict[str, Array | None]:
    if a.energy_slope is None and b.energy_slope is None:
        return {"energy_slope": None, "t_energy_slope": None}
    (left, t_left), (right, t_right) = a.energy_slopes, b.energy_slopes
    return {"energy_slope": left + right, "t_energy_slope": t_left + t_right}


def _mean_lift(a: State, b: State) -> Array:
    total = a.data + b.data
    covariance_growths = a.covariance_growths * a.data + b.covariance_growths * b.data
    return quotient(covariance_growths, total, 1.0)


def _mixed_skewness(a: State, b: State, agreement: float) -> Skewness | None:
    """Third cumulants of independent parts add up; one that goes along with the other has a longer tail."""
    if a.skew is None and b.skew is None:
        return None
    common, t_common = 2 * agreement * a.sig * b.sig, 2 * agreement * np.sqrt(a.t_var * b.t_var)
    train, data, test = np.zeros_like(a.var), np.zeros_like(a.var), np.zeros_like(a.t_var)
    for x, other in ((a, b), (b, a)):
        if x.skew is not None:
            along, t_along = quotient(other.sig, x.sig), np.sqrt(quotient(other.t_var, x.t_var))
            train = train + x.skew.train * x.var**1.5 * (1 + agreement * along) ** 3
            data = data + x.skew.data * x.sig**3 * (1 + agreement * along) ** 3
            test = test + x.skew.test * x.t_var**1.5 * (1 + agreement * t_along) ** 3
    return Skewness(
        train / np.maximum(a.var + b.var + common, 1e-30) ** 1.5,
        data / np.maximum(a.sig**2 + b.sig**2 + common, 1e-30) ** 1.5,
        test / np.maximum(a.t_var + b.t_var + t_common, 1e-30) ** 1.5,
    )


def product(a: State, b: State) -> State:
    """a·b for independent a and b."""
    a, b = paired(*level(a, b))
    mean, t_mean = a.mean * b.mean, a.t_mean * b.t_mean
    a_mid, b_mid = a.mean**2 + a.dev**2, b.mean**2 + b.dev**2
    at_mid, bt_mid = a.t_mean**2 + a.t_dev**2, b.t_mean**2 + b.t_dev**2
    a_all, b_all = a.train_mean**2 + a.train_dev**2, b.train_mean**2 + b.train_dev**2
    left = a.noise * by_row(b_all + b.train_var)
    right = b.noise * by_row(a_all + a.data)
    spread, t_spread = (
        np.maximum(mid - product**2, 0.0) if np.any(one) or np.any(other) else np.zeros_like(mid)
        for mid, product, one, other in (
            (a_mid * b_mid, mean, a.dev, b.dev),
            (at_mid * bt_mid, t_mean, a.t_dev, b.t_dev),
        )
    )
    levels = a.levels if b.levels == () and not np.any(b.noise) else ()
    return a.changed(
        axis=max(a.axis, b.axis),
        t_mean=t_mean,
        t_dev=np.sqrt(t_spread),
        t_var=(at_mid + a.t_var) * (bt_mid + b.t_var) - at_mid * bt_mid,
        mean=mean,
        dev=np.sqrt(spread),
        sig=np.sqrt(np.maximum((a_mid + a.sig**2) * (b_mid + b.sig**2) - a_mid * b_mid, 0.0)),
        var=(a_mid + a.var) * (b_mid + b.var) - a_mid * b_mid,
        **MOMENTS_ALONE,
        data=(a_all + a.data) * (b_all + b.data) - a_all * b_all,
        **mixed_noise(a, b, left, right),
        from_weight_layer=False,
        rho=_mixed_rho(a, b),
        levels=levels,
        positions_averaged=max(a.positions_averaged, b.positions_averaged),
    ).balanced()


def _same_components(states: Sequence[State], axis: int) -> Sequence[State]:
    """The parts of a concat with as many components each.

    Masks of several dropouts may be pending side by side, as in a DenseNet: a channel knows one of them.
    Each channel keeps its own components until a weight layer adds up the channels.
    """
    kinds = {(s.components, s.source, s.mask) for s in states}
    if len(kinds) == 1:
        return states
    masked = [s for s in states if s.components > 1]
    channel_correlation = all(
        s.mask == masked[0].mask and np.array_equal(s.prob, masked[0].prob) for s in masked
    )
    if not masked or not channel_correlation or any(s.axis != axis for s in states):
        return [s.collapse() for s in states]
    like = replace(masked[0], source=SEVERAL)
    return [
        replace(
            _repeated(s, like) if s.components == 1 else s,
            source=SEVERAL,
            sources=s.pending,
            levels=(),
        )
        for s in states
    ]


def concatenate(states: Sequence[State], axis: int, sizes: Sequence[int]) -> State:
    """Side by side in dimension `axis`."""
    states = _same_components(level(*states), axis)
    along = all(s.groups == 1 or s.axis == axis for s in states) and any(s.axis == axis for s in states)
    first = states[0]
    total = np.array([s.t_var @ s.counts for s in states])
    weight = quotient(total, total.sum(0), 1 / len(states))
    rho = sum((w[..., None] * s.rho for w, s in zip(weight, states, strict=True)), np.zeros_like(first.rho))
    levels = first.levels if all(s.levels == first.levels for s in states) else ()
    if along:
        parts = [s.on(axis, size) for s, size in zip(states, sizes, strict=True)]
        joined: dict[str, Array | None] = dict.fromkeys(PER_GROUP_OR_NONE)
        for name in ("counts", *PER_GROUP):
            joined[name] = np.concatenate([getattr(p, name) for p in parts], axis=-1)
        channel_correlation = (weight * np.sqrt([s.channel_correlation for s in states])).sum(0) ** 2
        channel_spread = (weight * np.array([s.channel_spread for s in states])).sum(0)
        skew = _side_by_side(parts)
        joined["covariance_growth"] = np.concatenate([p.covariance_growths for p in parts], axis=-1)
        if first.source == SEVERAL:
            joined["sources"] = np.concatenate([p.pending for p in parts])
        if any(p.energy_slope is not None for p in parts):
            joined["energy_slope"], joined["t_energy_slope"] = np.concatenate(
                [p.energy_slopes for p in parts], axis=-1
            )
        if any(p.sample_mask_slope is not None for p in parts):
            joined["sample_mask_slope"] = np.concatenate([p.sample_mask_slopes for p in parts], axis=-1)
        return parts[0].changed(
            axis=axis,
            energy_variance=max(p.energy_variance for p in parts),
            data_correlation=_joint_data_correlation(parts),
            rho=rho,
            levels=levels,
            before_relu=None,
            from_weight_layer=False,
            channel_correlation=channel_correlation,
            channel_spread=channel_spread,
            skew=skew,
            **joined,
        )
    return mixed(states, sizes, rho)


def mixed(states: Sequence[State], sizes: Sequence[float], rho: Array) -> State:
    """What is one of `states`, as often as `sizes` say; `rho` of it."""
    result, done = states[0].collapse(), float(sizes[0])
    for state, size in zip(states[1:], sizes[1:], strict=True):
        a, b = align(result, state.collapse())
        share = done / (done + size)
        blended = {
            name: share * getattr(a, name) + (1 - share) * getattr(b, name)
            for name in ("t_mean", "t_dev", "t_var", "mean", "dev", "sig", "var", "data")
        }
        of_noise = mixed_noise(a, b, share * a.noise, (1 - share) * b.noise)
        result, done = a.changed(rho=rho, **MOMENTS_ALONE, **of_noise, **blended), done + size
    return result


def _side_by_side(parts: Sequence[State]) -> Skewness | None:
    if all(p.skew is None for p in parts):
        return None
    given = [
        p.skew or Skewness(np.zeros_like(p.mean), np.zeros_like(p.mean), np.zeros_like(p.t_mean))
        for p in parts
    ]
    return Skewness(
        np.concatenate([g.train for g in given], axis=-1),
        np.concatenate([g.data for g in given], axis=-1),
        np.concatenate([g.test for g in given], axis=-1),
    )


def chosen(a: State, b: State, f: float) -> State:
    """`a` at a fraction `f` of the positions, else `b`."""
    a, b = paired(a, b)
    cut = f * (1 - f)

    def spread(one: Array, other: Array, dev: Array, far: Array) -> Array:
        result: Array = cut * ((one - other) ** 2 + (dev - far) ** 2)
        return result

    within = spread(a.mean, b.mean, a.dev, b.dev)
    y = replace(
        a,
        t_mean=f * a.t_mean + (1 - f) * b.t_mean,
        t_dev=f * a.t_dev + (1 - f) * b.t_dev,
        t_var=f * a.t_var + (1 - f) * b.t_var + spread(a.t_mean, b.t_mean, a.t_dev, b.t_dev),
        mean=f * a.mean + (1 - f) * b.mean,
        dev=f * a.dev + (1 - f) * b.dev,
        sig=np.sqrt(f * a.sig**2 + (1 - f) * b.sig**2 + within),
        var=f * a.var + (1 - f) * b.var + within,
        data=f * a.data + (1 - f) * b.data + spread(a.train_mean, b.train_mean, a.train_dev, b.train_dev),
        **mixed_noise(a, b, f * a.noise, (1 - f) * b.noise),
        levels=a.levels if not np.any(b.mean) and not np.any(b.var) and not np.any(b.dev) else (),
        **MOMENTS_ALONE,
        from_weight_layer=False,
    )
    return y.balanced()


def stretch(x: State, start: int, length: int) -> State:
    """Channels start … start + length."""
    ends = np.cumsum(x.counts)
    begins = ends - x.counts
    overlap = np.minimum(ends, start + length) - np.maximum(begins, start)
    index = np.flatnonzero(overlap > 0)
    return x.pick(index, overlap[index]) if len(index) else x


def chosen_channels(x: State, index: npt.NDArray[Any]) -> State:
    """The channels of these numbers, in this order."""
    if x.groups == 1:
        return replace(x, counts=np.array([float(len(index))]))
    x = x.per_channel()
    return x.pick(index, np.ones(len(index)))
