"""Weighted sums over positions: interpolation, sampling on a grid, running sums."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from dropout_lint.prediction.ops.base import Call, NoRule, function, module
from dropout_lint.prediction.ops.dropout import Sources
from dropout_lint.prediction.ops.pooling import averaged
from dropout_lint.prediction.parts import replace
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State


def rho_at(rho: Array, distance: npt.NDArray[Any]) -> Array:
    """Correlation at any distance: 1 at 0, and between the kept ones by their logarithm."""
    far = np.interp(np.log2(np.maximum(distance, 1.0)), np.arange(len(rho)), rho)
    result: Array = np.where(distance < 1, 1 - (1 - rho[0]) * distance, far)
    return result


def filtered(x: State, overlaps: Sequence[Array], step: float, tied: Sources) -> State:
    """Weighted sums over positions.

    `overlaps` holds for each dimension D(δ) = mean over the results of Σ_i a_i·a_{i+δ}, δ ≥ 0. Then Σw² is
    Π D(0), the data part keeps Σ_δ Π D(δ)·ρ(|δ|), over δ of both signs, and what all positions share grows by
    Σ_δ Π D(δ), which is 1 for weights that add up to 1. `step` is the distance of neighbouring results.
    """
    square: Array = np.zeros(())
    share: Array = np.ones(())
    for overlap in overlaps:
        both = np.concatenate([overlap[:0:-1], overlap])
        offsets = np.arange(len(both)) - (len(overlap) - 1.0)
        square, share = np.add.outer(square, offsets**2), np.multiply.outer(share, both)
    whole = float(share.sum())
    keep = float((share * rho_at(x.rho, np.sqrt(square))).sum()) / whole
    weight = math.prod(float(overlap[0]) for overlap in overlaps) / whole
    rho = rho_at(x.rho, step * 2.0 ** np.arange(len(x.rho)))
    if abs(weight - 1) < 1e-6 and abs(keep - 1) < 1e-6:
        return replace(x, rho=rho)
    if x.mask not in ("sample", "channel"):
        x = x.collapse()
    y = averaged(x, keep, 1 / weight, tied)
    y = replace(y, rho=np.maximum(rho, y.rho if step < 1 else 0.0))
    return y if abs(whole - 1) < 1e-3 else y.scaled(math.sqrt(whole))


MOST_SIZE = 64
"""Above this size, weights are taken from a smaller map of the same ratio: they are all alike."""


@functools.lru_cache(maxsize=256)
def resampling(before: int, after: int, mode: str, corners: bool | None, smooth: bool) -> Array:
    """D(δ) of `F.interpolate` along one dimension, from what it makes of unit vectors."""
    if before > MOST_SIZE or after > 4 * MOST_SIZE:
        ratio = max(before / MOST_SIZE, after / (4 * MOST_SIZE))
        before, after = max(round(before / ratio), 2), max(round(after / ratio), 1)
    options: dict[str, Any] = {"align_corners": corners, "antialias": smooth} if mode in SMOOTH else {}
    unit = torch.eye(before, dtype=torch.float64)[:, None, :, None]
    rows = F.interpolate(unit, size=(after, 1), mode=SMOOTH.get(mode, mode), **options)[:, 0, :, 0].numpy()
    lags = [float((rows[d:] * rows[: before - d]).sum() / after) for d in range(before)]
    last = max(i for i, value in enumerate(lags) if abs(value) > 1e-9)
    return np.array(lags[: last + 1])


SMOOTH = {"linear": "bilinear", "bilinear": "bilinear", "trilinear": "bilinear", "bicubic": "bicubic"}


@module("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d")
@function(
    "interpolate",
    "upsample",
    "upsample_nearest",
    "upsample_bilinear",
    "upsample_nearest2d",
    "upsample_bilinear2d",
)
def interpolated(call: Call) -> State:
    """Every result is a weighted mean of neighbours; the weights are those of torch itself."""
    x, m = call.x, call.module
    if m is not None:
        mode, corners, smooth = getattr(m, "mode", "nearest"), getattr(m, "align_corners", None), False
    else:
        mode, corners = call.arg(3, "mode", "nearest"), call.arg(4, "align_corners")
        smooth = bool(call.arg(6, "antialias", False))
        if call.name.startswith("upsample_bilinear"):
            mode, corners = "bilinear", True
        if call.name.startswith("upsample_nearest") or not isinstance(mode, str):
            mode = "nearest"
    before, after = call.in_shape[2:], call.shape[2:]
    corners = corners if isinstance(corners, bool) else None
    overlaps = [resampling(n, k, mode, corners, smooth) for n, k in zip(before, after, strict=True)]
    step = max((n / k for n, k in zip(before, after, strict=True)), default=1.0)
    return filtered(x, overlaps, step, call.ledger.tied)


@function("grid_sample")
def sampled(call: Call) -> State:
    """Bilinear between the grid's positions: Σw² = E[u² + (1 - u)²] = ⅔, Σ w_i w_{i+1} = E[u(1 - u)] = ⅙."""
    if call.arg(2, "mode", "bilinear") == "nearest":
        return call.x
    dims = max(len(call.in_shape) - 2, 1)
    return filtered(call.x, [np.array([2 / 3, 1 / 6])] * dims, 1.0, call.ledger.tied)


@function("cumsum")
def accumulated(call: Call) -> State:
    """Sums over the first j of n positions, j = 1 … n: with weights 1/j, and then j times as large.

    D(δ) = mean of max(j - δ, 0) over j. Means become a slope over the positions, a pattern in either mode.
    """
    x, rank = call.x, len(call.in_shape)
    dim = call.arg(1, "dim", 0)
    axis = int(dim) % rank if isinstance(dim, int) and rank else 0
    if axis in (0, x.axis) or not rank:
        raise NoRule
    n = call.in_shape[axis]
    ends = np.arange(1, n + 1)
    overlap = np.array([float(np.maximum(ends - lag, 0).mean()) for lag in range(n)])
    if x.mask not in ("sample", "channel"):
        x = x.collapse()
    flat = replace(x, mean=np.zeros_like(x.mean), dev=np.zeros_like(x.dev))
    y = filtered(flat, [overlap], 1.0, call.ledger.tied)
    middle, slope = float(ends.mean()), float(ends.var())
    pattern = slope * (x.mean**2 + x.dev**2)
    y = replace(
        y,
        t_mean=x.t_mean * middle,
        t_dev=x.t_dev * middle,
        t_var=y.t_var + slope * (x.t_mean**2 + x.t_dev**2),
        mean=x.mean * middle,
        dev=x.dev * middle,
        var=y.var + pattern,
        sig=np.sqrt(y.sig**2 + pattern),
        data=y.data + slope * (x.train_mean**2 + x.train_dev**2),
        levels=(),
        covariance_growth=None,
    )
    return y.balanced()
