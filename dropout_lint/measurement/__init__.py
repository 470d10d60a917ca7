"""Measuring the real shift: train mode against test mode on the user's batches."""

from __future__ import annotations

from dropout_lint.measurement.batches import Batches
from dropout_lint.measurement.run import TOLERANCE, measure
from dropout_lint.measurement.shift import NormMeasurement, Shift
from dropout_lint.measurement.validate import NormComparison, Validation, validate

__all__ = [
    "TOLERANCE",
    "Batches",
    "NormComparison",
    "NormMeasurement",
    "Shift",
    "Validation",
    "measure",
    "validate",
]
