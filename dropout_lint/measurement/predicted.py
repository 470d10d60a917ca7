"""Predicted Δ by norm name, from what a caller hands over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropout_lint.prediction.shifts import Prediction


def predicted_deltas(predicted: Prediction | Mapping[str, float] | None) -> dict[str, float]:
    """Δ by norm name with the weights as they are; of several calls of a norm the one furthest from 1."""
    if predicted is None:
        return {}
    if isinstance(predicted, Mapping):
        return dict(predicted)
    deltas: dict[str, float] = {}
    for shift in predicted.norms:
        delta = shift.delta_now
        if delta is None:
            continue
        known = deltas.get(shift.norm)
        if known is None or abs(delta - 1) > abs(known - 1):
            deltas[shift.norm] = delta
    return deltas
