"""The noise room: Δ at every norm and each dropout's share in it; the papers' closed forms in `equations`."""

from dropout_lint.prediction.bases import available_basis, predict
from dropout_lint.prediction.shifts import NormShift, Prediction

__all__ = ["NormShift", "Prediction", "available_basis", "predict"]
