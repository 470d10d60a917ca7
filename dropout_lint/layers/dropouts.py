"""Dropout-like layers: torch's own modules and functions, and the well-known ones of other packages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from dropout_lint.layers.blocks import Block
from dropout_lint.terms import Noise


@dataclass(frozen=True)
class DropoutSpec:
    """One dropout as the formulas need it.

    Attributes:
        kind: the class or function name, as the user wrote it (`Dropout2d`, `F.dropout`, `DropPath`).
        noise: what shares one draw of the mask.
        p: drop ratio in [0, 1]; for Uout it is β, for Gaussian dropout α, for a gate its relative variance.
            NaN where it cannot be read. For a mean by random weights that of a mask which varies as much.
        inplace: whether it overwrites its input.
        channelwise: Uout only: one draw per channel instead of per element.
        rescales: what is kept is divided by the keep probability, so that the mean stays.
        kept: what kept values are multiplied by, where it is another number than `rescales` says.
        scale: what values are multiplied by on average, in either mode: a random gate's mean.
        weights: of a mean by random weights, the mean and variance of their sum.
        block: DropBlock only: how blocks are drawn, where it is known.
        varies: the dimensions along which a mask that is written by hand differs; None for all others.
    """

    kind: str
    noise: Noise
    p: float
    inplace: bool = False
    channelwise: bool = False
    rescales: bool = True
    block: Block | None = None
    kept: float | None = None
    scale: float = 1.0
    weights: tuple[float, float] = (1.0, 0.0)
    varies: tuple[int, ...] | None = None

    def shared_over(self, axis: int, shape: Sequence[int]) -> Literal["element", "channel", "sample"] | None:
        """What one draw is for, in a tensor with its channels in dimension `axis`; None where that is none of
        these: a mask that all samples of a batch share, or some of the positions.

        A mask that the channels share, and the positions do not, counts as one for each element.
        """
        if self.noise.mask.over == "batch":
            return "sample"
        varies = self._varies(len(shape))
        positions = {dim for dim in range(1, len(shape)) if dim != axis and shape[dim] > 1}
        apart = positions.intersection(varies)
        if apart:
            return "element" if apart == positions else None
        if shape and shape[0] > 1 and 0 not in varies:
            return None
        if axis not in varies:
            return "sample"
        return "channel" if positions or self.by_channel else "element"

    def _varies(self, rank: int) -> Sequence[int]:
        if self.varies is not None:
            return self.varies
        if self.noise.whole_sample:
            return (0,)
        return (0, 1) if self.by_channel else range(rank)

    def at(self, shape: Sequence[int]) -> DropoutSpec:
        """The same on a tensor of this shape (N, C, …): DropBlock's p is the share that is really zeroed."""
        zeroed = self._zeroed(shape)
        return replace(self, p=sum(zeroed) / len(zeroed)) if zeroed else self

    def element_means(self, shape: Sequence[int]) -> tuple[float, float] | None:
        """Least and largest mean that a DropBlock's mask has at a position of a tensor (N, C, …); None of
        others. What more blocks reach is dropped more often, and all are divided by one keep probability.
        """
        kept = [1 - zeroed for zeroed in self._zeroed(shape)]
        if not kept or (self.block is not None and self.block.fills):
            return None
        scale = len(kept) / sum(kept) if self.rescales else 1.0
        return min(kept) * scale, max(kept) * scale

    def _zeroed(self, shape: Sequence[int]) -> list[float]:
        """How likely DropBlock zeroes each position; empty where it is not known."""
        if self.block is None or len(shape) < 3 or not 0 < self.p < 1:
            return []
        return self.block.zeroed(self.p, shape[2:])

    @property
    def mask_variance(self) -> float:
        """Variance `s` of the multiplicative mask of mean 1: (1-k)/k, or what its noise says (β²/3, α)."""
        if math.isnan(self.p):
            return math.nan
        if self.noise.mask.variance is not None:
            return self.noise.mask.variance(self.p)
        return math.inf if self.p >= 1 else self.p / (1 - self.p)

    @property
    def mask_mean(self) -> float:
        """Mean of the mask in training, 1 in test mode: k times what kept values are multiplied by."""
        if self.noise is Noise.BLEND:
            return self.weights[0]
        if not self.noise.drops or self.noise.mask.keeps_moments or self.p >= 1:
            return 1.0
        if self.kept is not None:
            return (1 - self.p) * self.kept
        return 1.0 if self.rescales else 1 - self.p

    @property
    def by_channel(self) -> bool:
        """Whether one draw is for all positions of a channel."""
        return self.channelwise or self.noise.channelwise

    @property
    def is_noisy(self) -> bool:
        """False for p = 0, which changes nothing and is never reported."""
        return self.p != 0 or self.weights[1] != 0  # NaN, a ratio that cannot be read, counts as noise


MODULES: Mapping[type[nn.Module], Noise] = {
    nn.Dropout: Noise.ELEMENT,
    nn.Dropout1d: Noise.CHANNEL,
    nn.Dropout2d: Noise.CHANNEL,
    nn.Dropout3d: Noise.CHANNEL,
    nn.AlphaDropout: Noise.ALPHA,
    nn.FeatureAlphaDropout: Noise.FEATURE_ALPHA,
}

# Classes of other packages, known by name so that none of those packages has to be imported.
# Value: (noise, attributes that may hold the ratio, whether that attribute is the keep probability).
NAMED_MODULES: Mapping[str, tuple[Noise, tuple[str, ...], bool]] = {
    "StochasticDepth": (Noise.SAMPLE, ("p", "drop_prob", "survival_rate"), False),
    "DropPath": (Noise.SAMPLE, ("drop_prob", "p", "drop_path_prob"), False),
    "DropBlock1d": (Noise.BLOCK, ("drop_prob", "p"), False),
    "DropBlock2d": (Noise.BLOCK, ("drop_prob", "p"), False),
    "DropBlock3d": (Noise.BLOCK, ("drop_prob", "p"), False),
    "DropBlock2D": (Noise.BLOCK, ("drop_prob", "p"), False),
    "DropBlock3D": (Noise.BLOCK, ("drop_prob", "p"), False),
    "DropBlock": (Noise.BLOCK, ("drop_prob", "p"), False),
    "Uout": (Noise.UNIFORM, ("beta",), False),
    "GaussianDropout": (Noise.GAUSSIAN, ("alpha", "p"), False),
    "VariationalDropout": (Noise.ELEMENT, ("p", "dropout"), False),
    "StableDropout": (Noise.ELEMENT, ("drop_prob", "p"), False),
    "DropConnect": (Noise.SAMPLE, ("drop_connect_rate", "p"), False),
}

# `dropout_lint.remedies.uout` adds itself when it is imported.
FUNCTIONS: dict[Callable[..., Any], tuple[str, Noise]] = {
    F.dropout: ("F.dropout", Noise.ELEMENT),
    torch.dropout: ("torch.dropout", Noise.ELEMENT),
    F.dropout1d: ("F.dropout1d", Noise.CHANNEL),
    F.dropout2d: ("F.dropout2d", Noise.CHANNEL),
    F.dropout3d: ("F.dropout3d", Noise.CHANNEL),
    F.alpha_dropout: ("F.alpha_dropout", Noise.ALPHA),
    F.feature_alpha_dropout: ("F.feature_alpha_dropout", Noise.FEATURE_ALPHA),
    torch.dropout_: ("torch.dropout_", Noise.ELEMENT),
    torch.feature_dropout: ("torch.feature_dropout", Noise.CHANNEL),
    torch.alpha_dropout: ("torch.alpha_dropout", Noise.ALPHA),
    torch.feature_alpha_dropout: ("torch.feature_alpha_dropout", Noise.FEATURE_ALPHA),
}

# `F.alpha_dropout` and `F.feature_alpha_dropout` default to training=False, all others to True (THEORY.md).
TRAINING_DEFAULT: Mapping[str, bool] = {"F.alpha_dropout": False, "F.feature_alpha_dropout": False}


def is_dropout_function(function: Callable[..., Any]) -> bool:
    """Whether `function` is one of torch's functional dropouts."""
    try:
        return function in FUNCTIONS
    except TypeError:  # an unhashable callable is none of torch's
        return False


def ratio_of(module: nn.Module, attributes: tuple[str, ...], keeps: bool = False) -> float:
    """Drop ratio that `module` holds under the first of `attributes` that it has; NaN if none is a number."""
    for attribute in attributes:
        value = getattr(module, attribute, None)
        if value is None and attribute == "drop_prob":
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return 1 - float(value) if keeps else float(value)
        if isinstance(value, torch.Tensor) and value.numel() == 1 and value.device.type != "meta":
            return 1 - float(value) if keeps else float(value)
    # timm's DropPath(drop_prob=None) is its default and drops nothing
    return 0.0 if any(hasattr(module, attribute) for attribute in attributes) else math.nan
