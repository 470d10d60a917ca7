"""dropout-lint: find, predict, fix and measure the variance shift that dropout causes in batch norms.

The names below are loaded at their first use, so that importing the package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropout_lint.api import LintReport, fix, lint, pilot
    from dropout_lint.errors import DropoutLintError
    from dropout_lint.measurement import measure
    from dropout_lint.remedies.initialisation import correct_init_
    from dropout_lint.remedies.monte_carlo import dropout_on, monte_carlo
    from dropout_lint.remedies.recalibrate import recalibrate
    from dropout_lint.remedies.uout import Uout

__version__ = "0.1.0"

_HOMES = {
    "DropoutLintError": "dropout_lint.errors",
    "LintReport": "dropout_lint.api",
    "Uout": "dropout_lint.remedies.uout",
    "correct_init_": "dropout_lint.remedies.initialisation",
    "dropout_on": "dropout_lint.remedies.monte_carlo",
    "fix": "dropout_lint.api",
    "lint": "dropout_lint.api",
    "measure": "dropout_lint.measurement",
    "monte_carlo": "dropout_lint.remedies.monte_carlo",
    "pilot": "dropout_lint.api",
    "recalibrate": "dropout_lint.remedies.recalibrate",
}

__all__ = [
    "DropoutLintError",
    "LintReport",
    "Uout",
    "correct_init_",
    "dropout_on",
    "fix",
    "lint",
    "measure",
    "monte_carlo",
    "pilot",
    "recalibrate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
