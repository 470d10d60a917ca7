"""Whether a weight layer's initialisation knows of the dropout before it (Hendrycks and Gimpel 2017)."""

from __future__ import annotations

import torch
from torch import nn

# Rows of a corrected weight all have one length; those of Kaiming's and Xavier's draws differ by about
# 1 / sqrt(2 · fan-in), which is above this up to a fan-in of half a million.
SPREAD = 1e-3


def is_plain(module: nn.Module | None) -> bool:
    """Whether `module` has weights, and they are no rows of one length as the correction leaves them.

    Weights without values (on meta) count as plain, for nothing can have corrected them.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() < 2:
        return False
    if weight.device.type == "meta" or isinstance(weight, nn.UninitializedParameter):
        return True
    with torch.no_grad():
        lengths = weight.detach().flatten(1).norm(dim=1)
        if lengths.numel() < 2:
            return True
        return bool(lengths.std() > SPREAD * lengths.mean())
