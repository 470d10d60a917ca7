"""What a measurement hands on: Δ at every norm, how sure it is, and what could not be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from dropout_lint.guard.arguments import check_whole
from dropout_lint.measurement.plot import plot
from dropout_lint.terms import shift_ratio
from dropout_lint.words import sparkline

if TYPE_CHECKING:
    from dropout_lint.prediction.shifts import Prediction

Statistics = Literal["stored", "measured", "mixed"]


@dataclass(frozen=True, eq=False)
class NormMeasurement:
    """The measured shift of one norm module.

    A module that is called several times has one entry, over the inputs of all its calls, because it
    remembers one variance for all of them.

    Attributes:
        name: qualified name, as `NormSite.name`.
        kind: class name.
        train_variance: population variance of its input in train mode, per channel (C,), float64.
        test_variance: the same in test mode.
        train_mean: mean of its input in train mode, per channel (C,), float64.
        test_mean: the same in test mode.
        half_width: half width of the 95 % interval around `delta`; None with fewer than two batches.
        statistics: what it normalised by in test mode: `stored` or `measured`.
    """

    name: str
    kind: str
    train_variance: Tensor
    test_variance: Tensor
    train_mean: Tensor
    test_mean: Tensor
    half_width: float | None
    statistics: Literal["stored", "measured"]

    @property
    def delta(self) -> float:
        """Var_test / Var_train (Li et al. 2019, Eq. 6; Kim et al. 2023, Def. 2).

        The mean of the test variances over the mean of the train variances, both over channels, as
        Li et al. Sec. 4 averages them.
        """
        return float(self.test_variance.mean() / self.train_variance.mean())

    @property
    def shift_ratio(self) -> float:
        """max(Δ, 1/Δ) (Li et al. 2019, Sec. 4); 1 is no shift."""
        return shift_ratio(self.delta)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of Δ over the batches, or None with fewer than two of them."""
        if self.half_width is None:
            return None
        return max(0.0, self.delta - self.half_width), self.delta + self.half_width

    @property
    def channel_delta(self) -> Tensor:
        """Δ of each channel (C,); NaN for a channel that does not vary in train mode."""
        return (self.test_variance / self.train_variance).where(
            self.train_variance > 0, self.train_variance.new_tensor(float("nan"))
        )

    @property
    def mean_shift(self) -> float:
        """How far the mean moves from train to test mode, in units of the train standard deviation.

        √(mean (μ_test − μ_train)² / mean σ²_train), the means taken over channels.
        """
        moved = (self.test_mean - self.train_mean).square().mean()
        return float((moved / self.train_variance.mean()).sqrt())


@dataclass(frozen=True, eq=False)
class Shift:
    """A whole measurement.

    Attributes:
        norms: every norm that has a number, in the order in which the data reaches them.
        gaps: norm name → why it has none.
        statistics: what the norms normalised by in test mode.
        batches: batches measured, over all ranks.
        samples: samples in them, over all ranks.
        device: where the model ran.
        world: number of processes.
        alone: dropout name → norm name → Δ with that dropout switched off (only with `per_dropout`).
        baseline: norm name → Δ with all dropouts on, under the same statistics as `alone`.
        notes: things to say aloud.
        inputs: the shapes of the first batch as forward got it, one text for each argument.
    """

    norms: tuple[NormMeasurement, ...]
    gaps: Mapping[str, str]
    statistics: Statistics
    batches: int
    samples: int
    device: str
    world: int = 1
    alone: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    baseline: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> NormMeasurement:
        """The measurement of the norm called `name`.

        Raises:
            KeyError: no such norm, or it has no number; the message says why.
        """
        for norm in self.norms:
            if norm.name == name:
                return norm
        raise KeyError(f"{name}: {self.gaps.get(name, 'no such norm')}")

    @property
    def delta(self) -> dict[str, float]:
        """Δ of every norm by name."""
        return {norm.name: norm.delta for norm in self.norms}

    @property
    def shift_ratio(self) -> dict[str, float]:
        """max(Δ, 1/Δ) of every norm by name."""
        return {norm.name: norm.shift_ratio for norm in self.norms}

    @property
    def mean_shift(self) -> dict[str, float]:
        """How far the mean of every norm's input moves, in train standard deviations, by name."""
        return {norm.name: norm.mean_shift for norm in self.norms}

    @property
    def interval(self) -> dict[str, tuple[float, float] | None]:
        """95 % confidence interval of every Δ by name."""
        return {norm.name: norm.interval for norm in self.norms}

    @property
    def channel_delta(self) -> dict[str, Tensor]:
        """Δ per channel of every norm by name."""
        return {norm.name: norm.channel_delta for norm in self.norms}

    @property
    def worst(self) -> NormMeasurement:
        """The norm with the largest shift ratio."""
        return max(self.norms, key=lambda norm: norm.shift_ratio)

    @property
    def shares(self) -> dict[str, dict[str, float]]:
        """Norm → dropout → the part of 1 − Δ that goes when this dropout alone is switched off.

        Empty without `per_dropout`. Norms with a Δ within 0.01 of 1 are left out: a share of nothing is
        noise. Shares of dropouts that share a path need not add up to exactly 1.
        """
        shares: dict[str, dict[str, float]] = {}
        for norm, delta in self.baseline.items():
            if abs(1 - delta) < 0.01:
                continue
            gained = {drop: off[norm] - delta for drop, off in self.alone.items() if norm in off}
            shares[norm] = {drop: gain / (1 - delta) for drop, gain in gained.items()}
        return shares

    def plot(
        self,
        path: str | Path,
        *,
        after: Shift | None = None,
        predicted: Prediction | Mapping[str, float] | None = None,
        title: str | None = None,
    ) -> None:
        """Shift ratio by norm index, as Li et al. 2019 Fig. 4, written to `path` (.png, .svg or .pdf).

        Args:
            path: the file; its suffix chooses the format.
            after: the measurement after the fix, drawn as a second line.
            predicted: Δ by norm name, or a `Prediction`, drawn as a dashed line.
            title: the heading.

        Raises:
            MeasureError: matplotlib is missing, or the file cannot be written.
        """
        plot(self, Path(path), after=after, predicted=predicted, title=title)

    def sparkline(self, width: int = 72, *, ascii_only: bool = False) -> str:
        """Shift ratio by norm index as one line of bars, from 1 up to the worst, at most `width` wide.

        Raises:
            UsageError: `width` is no whole number of at least 1.
        """
        check_whole("width", width, least=1)
        return sparkline([norm.shift_ratio for norm in self.norms], width, ascii_only=ascii_only)
