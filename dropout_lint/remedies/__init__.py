"""The papers' remedies: Uout, re-estimated statistics, corrected initialisation, Monte-Carlo averaging."""

from dropout_lint.remedies.initialisation import Initialisation, correct_init_
from dropout_lint.remedies.monte_carlo import MonteCarlo, dropout_on, monte_carlo
from dropout_lint.remedies.recalibrate import Recalibration, recalibrate
from dropout_lint.remedies.uout import Uout, uout

__all__ = [
    "Initialisation",
    "MonteCarlo",
    "Recalibration",
    "Uout",
    "correct_init_",
    "dropout_on",
    "monte_carlo",
    "recalibrate",
    "uout",
]
