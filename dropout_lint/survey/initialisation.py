"""Whether a weight layer's initialisation knows of the dropout before it (Hendrycks and Gimpel 2017)."""

from __future__ import annotations

import torch
from torch import nn

SPREAD = 1e-3
"""Rows of a corrected weight all have one length (columns, where an orthogonal one is tall). Those of
Kaiming's and Xavier's draws differ by about 1 / sqrt(2 · fan-in): more than this up to half a million."""

LOOKED_AT = 64
"""As many rows or columns tell."""


def is_plain(module: nn.Module | None) -> bool:
    """Whether `module` has weights whose rows are not of one length, as the correction leaves them.

    Weights without values (on meta) count as plain, for nothing can have corrected them.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() < 2:
        return False
    if weight.device.type == "meta" or isinstance(weight, nn.UninitializedParameter):
        return True
    with torch.no_grad():
        matrix = weight.detach().flatten(1)
        rows = matrix[:LOOKED_AT].float().norm(dim=1)
        columns = matrix[:, :LOOKED_AT].float().norm(dim=0)
    return not (_one_length(rows) or _one_length(columns))


def _one_length(lengths: torch.Tensor) -> bool:
    return lengths.numel() > 1 and bool(lengths.std() <= SPREAD * lengths.mean())
