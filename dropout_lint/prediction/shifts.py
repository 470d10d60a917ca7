"""What the noise room hands on: Δ at every norm and each dropout's share in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from dropout_lint.terms import Basis, nearness


@dataclass(frozen=True)
class NormShift:
    """The predicted shift at one norm call.

    Attributes:
        norm: qualified name of the norm (`NormSite.name`).
        node: name of the graph node.
        delta: Var_test / Var_train of its input in the trained network, averaged over channels as Li et al.
            Sec. 4 does (mean of test variances over mean of train variances); None where it is unknown.
        basis: what the number was worked out from.
        shares: dropout name → its share of the shortfall 1 − Δ; they add up to 1 where Δ is not 1. Each is
            the log of the factor by which its removal would raise Δ, with all statistics estimated anew,
            against that of the others: two dropouts with a norm between them make Δ a product. Above 1 it is
            the dropout's share of the noise. Of a trained network that is run, each dropout was taken out of
            the run. None where they were left out.
        fed: dropout name → Δ on the channels that its noise reaches (one part of a concat, say), and its
            share of the noise there.
        shifts: whether it is a norm that remembers the training variance; others show their Δ for
            information.
        interval: where Δ lies nine times in ten, on the basis `trained-estimate`.
        delta_initial: Δ with the weights that the network has before it is trained; None with a checkpoint,
            and where it was not asked for.
        unknown: why Δ is not known: operations on the way of which neither a rule nor a run on samples tells,
            and random draws that reach the norm and are not followed, as `net.py:31 torch.randn_like`.
        approximate: operations on the way that were run on samples, so that Δ is about right.
        probed: Δ is what a run of the trained network showed, on inputs recovered from its norms' statistics.
    """

    norm: str
    node: str
    delta: float | None
    basis: Basis
    shares: Mapping[str, float] = field(default_factory=dict)
    shifts: bool = True
    interval: tuple[float, float] | None = None
    delta_initial: float | None = None
    fed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    approximate: tuple[str, ...] = ()
    probed: bool = False

    @property
    def delta_now(self) -> float | None:
        """Δ with the weights as they are: those of the start, or trained ones."""
        return self.delta if self.basis == "checkpoint" else self.delta_initial

    def left_by(self, names: Collection[str]) -> float | None:
        """Δ that the shares of these dropouts alone would leave: dropouts in series multiply."""
        share = sum(part for name, part in self.shares.items() if name in names)
        return None if self.delta is None else self.delta**share


@dataclass(frozen=True)
class Prediction:
    """Δ at every norm of a trace, in the order of the data.

    Attributes:
        basis: the best basis that was available.
        norms: one entry for each norm call.
        fallbacks: operation name → how many nodes were passed by the stated fallback.
        shared: gives the same with each dropout's share, where it was predicted without and can.
    """

    basis: Basis
    norms: tuple[NormShift, ...]
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    shared: Callable[[], Prediction] | None = field(default=None, repr=False, compare=False)

    def at(self, node: str) -> NormShift | None:
        """The shift at the norm call whose graph node is named `node`."""
        return next((shift for shift in self.norms if shift.node == node), None)

    @property
    def worst(self) -> NormShift | None:
        """The norm that remembers a variance and whose known Δ is the farthest from 1."""
        return worst(shift for shift in self.norms if shift.shifts)


def worst(shifts: Iterable[NormShift]) -> NormShift | None:
    """The shift with the Δ that is farthest from 1, of those whose Δ is known."""
    found: tuple[float, NormShift] | None = None
    for shift in shifts:
        if shift.delta is not None and (found is None or nearness(shift.delta) < found[0]):
            found = nearness(shift.delta), shift
    return None if found is None else found[1]
