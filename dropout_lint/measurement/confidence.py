"""Confidence intervals for Δ from the spread between batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from dropout_lint.measurement.moments import Block, Layout, merge_all


def t_quantile(level: float, degrees: int) -> float:
    """Two-sided Student t quantile: P(|T| ≤ q) = `level` with that many degrees of freedom.

    Exact for 1 and 2 degrees, else the expansion of Abramowitz and Stegun 26.7.5 (0.12 % off at worst for the
    95 % level).
    """
    upper = (1 + level) / 2
    if degrees < 1:
        return math.inf
    if degrees == 1:
        return float(math.tan(math.pi * (upper - 0.5)))
    if degrees == 2:
        return (2 * upper - 1) * math.sqrt(2 / (4 * upper * (1 - upper)))
    z = NormalDist().inv_cdf(upper)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms)))


def variance_parts(blocks: Sequence[Block], layout: Layout) -> tuple[Tensor, Tensor]:
    """How much each block adds to the channel-averaged variance of each norm.

    Returns:
        Weights (blocks, norms), which add up to 1 over the blocks, and parts (blocks, norms): the block's own
        variance plus the square of its mean's distance from the mean of all, averaged over channels.
        Their weighted sum is exactly the variance of all blocks together.
    """
    owners, between = layout.owners(), layout.between_channels()
    overall = merge_all(blocks, layout)
    channels = torch.tensor(layout.channels, dtype=torch.float64)
    weights, parts = [], []
    for block in blocks:
        own = block.m2 / block.count[owners].clamp_min(1)
        part = own + between * (block.mean - overall.mean).square()
        parts.append(
            torch.zeros(len(layout.names), dtype=torch.float64).index_add_(0, owners, part) / channels
        )
        weights.append(block.count / overall.count.clamp_min(1))
    return torch.stack(weights), torch.stack(parts)


def ratio_half_width(
    train: Sequence[Block], test: Sequence[Block], layout: Layout, level: float = 0.95
) -> Tensor:
    """Half width of the interval around Δ of each norm, (norms,); NaN where there are fewer than two blocks.

    The linearised ratio estimator over paired blocks: a block's residual is its test part minus Δ times its
    train part. Pairing takes out what the two modes have in common, the data above all.
    """
    if len(train) < 2 or len(train) != len(test):
        return torch.full((len(layout.names),), math.nan, dtype=torch.float64)
    w_train, train_parts = variance_parts(train, layout)
    w_test, test_parts = variance_parts(test, layout)
    train_variance = (w_train * train_parts).sum(0)
    delta = (w_test * test_parts).sum(0) / train_variance
    residual = w_test * test_parts - delta * w_train * train_parts
    blocks = len(train)
    error = (residual.square().sum(0) * blocks / (blocks - 1)).sqrt() / train_variance
    return error * t_quantile(level, blocks - 1)


def mean_half_width(blocks: Sequence[Block], layout: Layout, level: float = 0.95) -> Tensor:
    """Half width of the interval around each norm's variance, relative to that variance, (norms,)."""
    if len(blocks) < 2:
        return torch.full((len(layout.names),), math.nan, dtype=torch.float64)
    weights, parts = variance_parts(blocks, layout)
    variance = (weights * parts).sum(0)
    residual = weights * (parts - variance)
    error = (residual.square().sum(0) * len(blocks) / (len(blocks) - 1)).sqrt() / variance
    return error * t_quantile(level, len(blocks) - 1)
