"""Sets of steps, carried out on copies of one trace and judged: each set once, however often a plan asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import fx

from dropout_lint.analysis import Analysis
from dropout_lint.fixes.graph.rewrite import Rewriter, share_tree, untrained_tree
from dropout_lint.fixes.plan.further import Composed
from dropout_lint.fixes.plan.steps import Step
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.guard.alone import at_rest
from dropout_lint.prediction.bases import Along
from dropout_lint.prediction.shifts import Prediction
from dropout_lint.terms import Severity, nearness
from dropout_lint.trace.traced import DropoutSite, Trace

Key = tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Remaining:
    """A finding about a dropout call after some steps.

    Attributes:
        node: the call, in the trace as it was before the steps.
        code: the rule.
        severity: as it was found.
    """

    node: fx.Node
    code: str
    severity: Severity


@dataclass(frozen=True)
class Outcome:
    """A set of steps with what comes of it: Δ at the norms that shift, and what is left."""

    steps: tuple[Step, ...]
    deltas: Mapping[str, float]
    left: tuple[Remaining, ...]


@dataclass(frozen=True)
class _Carried:
    """Steps that were carried out, with all that they brought: too large to be kept for every set."""

    key: Key
    before: Analysis
    trace: Trace
    origin: Mapping[fx.Node, fx.Node]
    placed: Collection[fx.Node] = ()

    @cached_property
    def analysis(self) -> Analysis:
        """All that is known of it."""
        return self.before if self.trace is self.before.trace else self.before.again(self.trace, self.along)

    @cached_property
    def along(self) -> Along:
        """Δ norm by norm, without the rest."""
        return self.before.along(self.trace)

    @property
    def prediction(self) -> Prediction:
        """Δ at every norm, with the rest only where it was worked out before."""
        known = "analysis" in self.__dict__ or self.trace is self.before.trace
        if known:
            return self.analysis.prediction
        with at_rest(self.trace.model):
            return self.along.prediction


class Trials:
    """What comes of sets of steps on one trace; every plan that is made of the trace may share it.

    Carrying out steps copies the graph, and judging them costs as much as a lint. What is asked of a set is
    answered from what is known: the numbers of all sets stay, the copy of the last one alone.

    A checkpoint's running statistics are those of the network as it was. Like is compared with like: each
    set, the empty one too, is judged by the statistics that its own network will have.

    Args:
        before: the model as it was linted.
    """

    def __init__(self, before: Analysis) -> None:
        self.before = before
        self.trace = before.trace
        self.flow = Ancestry(before.trace)
        self._trained = before.prediction.basis == "checkpoint"
        self._last: _Carried | None = None
        self._compared: _Carried | None = None
        self._deltas: dict[Key, Mapping[str, float]] = {}
        self._lost: dict[tuple[Key, Key, float], bool] = {}
        self._alone: dict[Key, Mapping[fx.Node, Mapping[str, float]]] = {}
        self._remaining: dict[Key, tuple[Remaining, ...]] = {}

    def deltas(self, steps: Sequence[Step]) -> Mapping[str, float]:
        """Predicted Δ at every norm that shifts, by node name; unknown ones are left out."""
        key = _key(steps)
        if key not in self._deltas:
            norms = self._carried(key, steps).prediction.norms
            self._deltas[key] = {
                shift.node: shift.delta for shift in norms if shift.shifts and shift.delta is not None
            }
        return self._deltas[key]

    def loses(self, steps: Sequence[Step], instead: Sequence[Step], threshold: float) -> bool:
        """Whether some norm is beyond the threshold after `steps`, and not after `instead`: both graphs are
        gone through only as far as the first.
        """
        asked = _key(steps), _key(instead), threshold
        if asked not in self._lost:
            with at_rest(self.trace.model):
                self._lost[asked] = self._loses(steps, instead, threshold)
        return self._lost[asked]

    def _loses(self, steps: Sequence[Step], instead: Sequence[Step], threshold: float) -> bool:
        key = _key(steps)
        names, delta_of = self._norm_by_norm(key, lambda: self._carried(key, steps))
        without_of: Callable[[str], float | None] | None = None
        found: dict[str, float] = {}
        for name in names:
            delta = delta_of(name)
            if delta is None:
                continue
            found[name] = delta
            if nearness(delta) >= threshold:
                continue
            if without_of is None:
                without_of = self._without(instead)
            without = without_of(name)
            if without is None or nearness(without) >= threshold:
                return True
        self._deltas[key] = found
        return False

    def _norm_by_norm(
        self, key: Key, carried: Callable[[], _Carried]
    ) -> tuple[Iterable[str], Callable[[str], float | None]]:
        """The norms, and what gives Δ at one of them."""
        known = self._deltas.get(key)
        if known is not None:
            return known, known.get
        along = carried().along
        return along, along.delta

    def _without(self, instead: Sequence[Step]) -> Callable[[str], float | None]:
        """What gives Δ at a norm after the steps that others are compared to; those of the last time stay."""
        key = _key(instead)

        def carried() -> _Carried:
            if self._compared is None or self._compared.key != key:
                self._compared = self._carry_out(key, instead)
            return self._compared

        return self._norm_by_norm(key, carried)[1]

    def remaining(self, steps: Sequence[Step]) -> tuple[Remaining, ...]:
        """What is found about dropout calls, before or after the steps."""
        key = _key(steps)
        if key not in self._remaining:
            carried = self._carried(key, steps)
            self._remaining[key] = tuple(
                Remaining(
                    carried.origin.get(item.dropout.node, item.dropout.node), item.rule.code, item.severity
                )
                for item in carried.analysis.findings
                if isinstance(item.dropout, DropoutSite)
            )
        return self._remaining[key]

    def alone(self, steps: Sequence[Step]) -> Mapping[fx.Node, Mapping[str, float]]:
        """For each dropout call, Δ that its share alone would leave at the norms that shift, by node name."""
        key = _key(steps)
        if key not in self._alone:
            carried = self._carried(key, steps)
            norms = [item for item in carried.analysis.whole.prediction.norms if item.shifts]
            self._alone[key] = {
                carried.origin.get(site.node, site.node): {
                    item.node: alone for item in norms if (alone := item.left_by((site.name,))) is not None
                }
                for site in carried.trace.dropouts
            }
        return self._alone[key]

    def analysis(self, steps: Sequence[Step]) -> Analysis:
        """All that is known after some steps."""
        return self._carried(_key(steps), steps).analysis

    def beyond(self, steps: Sequence[Step]) -> tuple[Trials, Composed]:
        """Trials on what the steps lead to, and what makes steps there part of these."""
        carried = self._carried(_key(steps), steps)
        composed = Composed(self.flow.dropouts, steps, carried.origin, carried.placed)
        return Trials(carried.analysis), composed

    def _carried(self, key: Key, steps: Sequence[Step]) -> _Carried:
        if not key and not self._trained:
            return _Carried(key, self.before, self.trace, {})
        if self._last is None or self._last.key != key:
            self._last = self._carry_out(key, steps)
        return self._last

    def _carry_out(self, key: Key, steps: Sequence[Step]) -> _Carried:
        rewriter = Rewriter(self.trace, untrained_tree if self._trained else share_tree)
        trace = rewriter.apply(steps)
        return _Carried(key, self.before, trace, rewriter.origin, rewriter.placed)


def _key(steps: Sequence[Step]) -> Key:
    """Equal for steps that rewrite the graph alike; `codes` matter to a moved call that is to be repaired."""
    return tuple(
        (
            step.site.node,
            step.action,
            None if step.anchor is None else step.anchor.key,
            None if step.into is None else step.into.node,
            step.value,
            step.kind,
            step.action == "move" and "DL401" in step.codes,
        )
        for step in steps
    )
