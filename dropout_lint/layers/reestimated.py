"""Running statistics that were taken with dropout off: known again by the digest of the variance."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import torch
from torch import nn

_MARK = "_dropout_lint_test_variance"


def digest(tensor: torch.Tensor) -> str:
    """32 hexadecimal digits of a tensor's values, bit by bit, wherever it lies."""
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return blake2b(values.numpy().tobytes(), digest_size=16).hexdigest()


def mark_reestimated(norm: nn.Module) -> str:
    """Note that a norm's running variance is that of test mode (`dropout_lint.recalibrate`); its digest."""
    variance: Any = norm.running_var
    mark = norm.__dict__[_MARK] = digest(variance)
    return mark


def is_reestimated(norm: nn.Module | None) -> bool:
    """Whether a norm still has the running variance that it was marked with.

    The mark is no part of the state_dict; `loading/marks.py` puts it into a checkpoint and finds it there.
    """
    marked, now = getattr(norm, _MARK, None), getattr(norm, "running_var", None)
    if marked is None or not isinstance(now, torch.Tensor) or now.is_meta:
        return False
    return bool(marked == digest(now))
