"""Predicted Δ by norm name, from what a caller hands over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropout_lint.prediction.shifts import Prediction


def predicted_deltas(predicted: Prediction | Mapping[str, float] | None) -> dict[str, float]:
    """Δ by norm name; of a norm that is called several times the one furthest from 1."""
    if predicted is None:
        return {}
    if isinstance(predicted, Mapping):
        return dict(predicted)
    deltas: dict[str, float] = {}
    for shift in predicted.norms:
        known = deltas.get(shift.norm)
        if known is None or abs(shift.delta - 1) > abs(known - 1):
            deltas[shift.norm] = shift.delta
    return deltas
