"""Words that several rooms share, each with its meaning. Free of torch."""

from __future__ import annotations

NOT_FINITE = "values that are not finite"
"""Stands in `Prediction.fallbacks` where weights or statistics are NaN, infinite, or too large to square."""
