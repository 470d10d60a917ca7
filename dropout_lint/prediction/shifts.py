"""What the noise room hands on: Δ at every norm and each dropout's share in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Basis = Literal["initialisation", "weights", "checkpoint", "prior"]


@dataclass(frozen=True)
class NormShift:
    """The predicted shift at one norm call.

    Attributes:
        norm: qualified name of the norm (`NormSite.name`).
        node: name of the graph node.
        delta: Var_test / Var_train of its input, averaged over channels as Li et al. Sec. 4 does
            (mean of test variances over mean of train variances).
        basis: what the number was worked out from.
        shares: dropout name → its share of the shortfall 1 − Δ; they add up to 1 where Δ < 1. Each is the log
            of the factor by which its removal would raise Δ, with all statistics estimated anew, against that
            of the others: two dropouts with a norm between them make Δ a product.
        shifts: whether it is a norm that remembers the training variance; others show their Δ for
            information.
    """

    norm: str
    node: str
    delta: float
    basis: Basis
    shares: Mapping[str, float] = field(default_factory=dict)
    shifts: bool = True


@dataclass(frozen=True)
class Prediction:
    """Δ at every norm of a trace, in the order of the data.

    Attributes:
        basis: the best basis that was available.
        norms: one entry for each norm call.
        prior: Δ "after training" by Li Eq. 12 with Table 1's d·cos²θ, by (dropout node name, norm node name);
            only where the basis is `initialisation`.
        fallbacks: operation name → how many nodes were passed by the stated fallback.
    """

    basis: Basis
    norms: tuple[NormShift, ...]
    prior: Mapping[tuple[str, str], float] = field(default_factory=dict)
    fallbacks: Mapping[str, int] = field(default_factory=dict)

    def at(self, node: str) -> NormShift | None:
        """The shift at the norm call whose graph node is named `node`."""
        return next((shift for shift in self.norms if shift.node == node), None)
