"""`--validate`: what was measured before, predicted, and measured after a fix, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from dropout_lint.measurement.batches import Batches
from dropout_lint.measurement.predicted import predicted_deltas
from dropout_lint.measurement.ranks import Ranks
from dropout_lint.measurement.run import measure
from dropout_lint.measurement.shift import Shift
from dropout_lint.terms import shift_ratio

if TYPE_CHECKING:
    from dropout_lint.prediction.shifts import Prediction


@dataclass(frozen=True)
class NormComparison:
    """One norm before and after: Δ as measured and as predicted, None where there is no number.

    Attributes:
        norm: qualified name.
        before: measured Δ before the fix.
        predicted: predicted Δ before the fix.
        predicted_after: predicted Δ after the fix.
        after: measured Δ after the fix.
    """

    norm: str
    before: float | None
    predicted: float | None
    predicted_after: float | None
    after: float | None

    @property
    def shift_ratio(self) -> float:
        """max(Δ, 1/Δ) before the fix; 1 where it was not measured."""
        return 1.0 if self.before is None else shift_ratio(self.before)

    @property
    def error(self) -> float | None:
        """Predicted minus measured Δ before the fix."""
        return None if self.before is None or self.predicted is None else self.predicted - self.before


@dataclass(frozen=True, eq=False)
class Validation:
    """A measurement beside the prediction, and with a fix both once more.

    Attributes:
        rows: one for each norm that has a measured or predicted Δ, the worst before the fix first.
        before: the measurement of the model as it is.
        after: the measurement of the fixed model, None without a fix.
        notes: things to say aloud.
        steps: how long the networks were trained before they were measured; 0: measured as they are.
    """

    rows: tuple[NormComparison, ...]
    before: Shift
    after: Shift | None
    notes: tuple[str, ...] = ()
    steps: int = 0

    @property
    def mean_absolute_error(self) -> float | None:
        """Mean |predicted − measured Δ| before the fix, over the norms that have both."""
        errors = [abs(row.error) for row in self.rows if row.error is not None]
        return sum(errors) / len(errors) if errors else None


def validate(
    model: nn.Module,
    batches: Iterable[Any] | Batches,
    *,
    predicted: Prediction | Mapping[str, float] | None = None,
    fixed: nn.Module | None = None,
    predicted_after: Prediction | Mapping[str, float] | None = None,
    **options: Any,
) -> Validation:
    """Measure before and, with `fixed`, after a fix, on the same batches under the same random numbers.

    (`measure` leaves the random state as it was, so both measurements start from the same one.)

    Args:
        model: as it is.
        batches: as for `measure`; read again for the fixed model, or kept where that is not possible.
        predicted: Δ by norm name, or a `Prediction`, for the model as it is.
        fixed: the fixed model; its norms have the same names.
        predicted_after: the prediction for the fixed model.
        options: passed to `measure`; `per_dropout` is for the model as it is.

    Raises:
        MeasureError: as `measure`.
    """
    ranks = Ranks()
    limit, shard = options.get("max_batches"), options.pop("shard", False)
    source = (
        batches
        if isinstance(batches, Batches)
        else Batches(batches, limit=limit, rank=ranks.rank, world=ranks.world, shard=shard)
    )
    before = measure(model, source, **options)
    after = None
    if fixed is not None:
        after = measure(fixed, source, **options | {"per_dropout": False})
    return compared(before, after, predicted_deltas(predicted), predicted_deltas(predicted_after))


def compared(
    before: Shift,
    after: Shift | None,
    was: Mapping[str, float],
    will: Mapping[str, float],
    *,
    steps: int = 0,
) -> Validation:
    """Measurements side by side with what was predicted.

    Args:
        before: the measurement of the model as it is.
        after: the measurement of the fixed model, None without a fix.
        was: predicted Δ by norm name, for the model as it is.
        will: the same for the fixed model.
        steps: how long both were trained before.
    """
    now = after.delta if after is not None else {}
    names = dict.fromkeys([*before.delta, *before.gaps])
    rows = [
        NormComparison(name, before.delta.get(name), was.get(name), will.get(name), now.get(name))
        for name in names
    ]
    rows = [row for row in rows if (row.before, row.predicted, row.after) != (None, None, None)]
    rows.sort(key=lambda row: -row.shift_ratio)
    notes = [*before.notes, *(after.notes if after is not None else ())]
    return Validation(tuple(rows), before, after, tuple(dict.fromkeys(notes)), steps)
