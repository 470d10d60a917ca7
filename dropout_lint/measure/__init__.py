"""Measuring the real shift: train mode against test mode on the user's batches."""

from dropout_lint.measure.batches import Batches
from dropout_lint.measure.run import TOLERANCE, measure
from dropout_lint.measure.shift import NormMeasurement, Shift
from dropout_lint.measure.validate import NormComparison, Validation, validate

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
