"""Running statistics that were taken with dropout off: the norm itself remembers it while they stay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_MARK = "_dropout_lint_test_variance"


def mark_reestimated(norm: nn.Module) -> None:
    """Note that a norm's running variance is that of test mode (`dropout_lint.recalibrate`)."""
    variance: Any = norm.running_var
    norm.__dict__[_MARK] = variance.detach().cpu().clone()


def is_reestimated(norm: nn.Module | None) -> bool:
    """Whether a norm still has the running variance that it was marked with.

    The mark is no part of the state_dict: weights that are saved and loaded have lost it.
    """
    marked, now = getattr(norm, _MARK, None), getattr(norm, "running_var", None)
    if marked is None or not isinstance(now, torch.Tensor) or now.is_meta:
        return False
    return torch.equal(marked, now.detach().cpu())
