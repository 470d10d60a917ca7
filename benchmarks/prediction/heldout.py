"""The held-out set: no constant is chosen while looking at it, and each look is logged in the page.

It was fixed before any constant of the present ledger was chosen. Families, data and optimisers are others
than those of `tuning` and `twelve`.
"""

from __future__ import annotations

from . import crepe, heldout_images, heldout_series, heldout_tables
from .settings import Network

NETWORKS: tuple[Network, ...] = (
    *heldout_images.NETWORKS,
    *heldout_series.NETWORKS,
    *heldout_tables.NETWORKS,
    *crepe.NETWORKS,
)
