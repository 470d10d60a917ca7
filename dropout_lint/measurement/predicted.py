"""Predicted Δ by norm name, from what a caller hands over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dropout_lint.terms import nearness

if TYPE_CHECKING:
    from dropout_lint.prediction.shifts import Prediction


def predicted_deltas(predicted: Prediction | Mapping[str, float] | None) -> dict[str, float]:
    """Δ by norm name with the weights as they are; of several calls of a norm the one furthest from 1."""
    if predicted is None:
        return {}
    if isinstance(predicted, Mapping):
        return dict(predicted)
    return _furthest((shift.norm, shift.delta_now) for shift in predicted.norms)


def expected_deltas(prediction: Prediction) -> dict[str, float]:
    """Δ by norm name of the trained network; of several calls of a norm the one furthest from 1."""
    return _furthest((shift.norm, shift.delta) for shift in prediction.norms)


def _furthest(found: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    deltas: dict[str, float] = {}
    for norm, delta in found:
        if delta is None:
            continue
        known = deltas.get(norm)
        if known is None or nearness(delta) < nearness(known):
            deltas[norm] = delta
    return deltas
