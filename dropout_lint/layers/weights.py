"""Weight layers: the ones between a dropout and a norm that make case (a) a case (b)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

WEIGHT_MODULES: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Bilinear,
    _ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)

WEIGHT_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    {
        F.linear,
        F.bilinear,
        F.conv1d,
        F.conv2d,
        F.conv3d,
        F.conv_transpose1d,
        F.conv_transpose2d,
        F.conv_transpose3d,
        torch.conv1d,
        torch.conv2d,
        torch.conv3d,
        torch.addmm,
        torch.baddbmm,
    }
)


def is_weight_layer(module: nn.Module) -> bool:
    """Whether `module` is a linear map with trained weights (linear, convolution, recurrent, attention)."""
    return isinstance(module, WEIGHT_MODULES)
