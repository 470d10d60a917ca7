"""dropout-lint: find, predict, fix and measure the variance shift that dropout causes in batch norms."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
