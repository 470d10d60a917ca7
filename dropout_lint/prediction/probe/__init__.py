"""Δ of a trained network by a run of it, without data: on inputs recovered from its norms' statistics.

The ledger carries moments from rule to rule; trained features depend on one another in ways that no moment of
one tensor tells. A checkpoint's running statistics tell of them together: inputs for which every norm sees
what it remembers excite the network as its data did (Yin et al. 2020, "Dreaming to Distill", Sec. 3.2). The
network's own graph is run on a few of them, under several draws of the masks and in test mode at once.
"""

from dropout_lint.prediction.probe.statistics import Seen
from dropout_lint.prediction.probe.unseen import AT_MOST, probe, recovered_inputs

__all__ = ["AT_MOST", "Seen", "probe", "recovered_inputs"]
