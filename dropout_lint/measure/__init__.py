"""Measuring the real shift: train mode against test mode on the user's batches."""

from __future__ import annotations

import sys
from functools import wraps
from types import ModuleType
from typing import Any

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


class _Room(ModuleType):
    """Importing this package binds `dropout_lint.measure` to it, so it answers to `dl.measure(…)` itself."""

    @wraps(measure)
    def __call__(self, *args: Any, **options: Any) -> Shift:
        return measure(*args, **options)


sys.modules[__name__].__class__ = _Room
