"""Each dropout switched off alone; validation side by side; plots and sparklines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from brute_force import Averaged
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.errors import MeasureError
from dropout_lint.measurement import Shift, measure, validate
from dropout_lint.prediction.shifts import NormShift, Prediction
from dropout_lint.report.measured import measurement_infos
from dropout_lint.trace import trace
from dropout_lint.words import sparkline


class Net(nn.Module):
    """A module dropout before one norm, a functional one before the next, and one that reaches none."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.drop = nn.Dropout(p)
        self.bn1, self.bn2 = nn.BatchNorm1d(32), nn.BatchNorm1d(32)
        self.fc = nn.Linear(32, 32)
        self.last = nn.Dropout(0.5)
        self.off = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.drop(x)))
        x = F.dropout(x, 0.3, training=self.training)
        return self.last(self.off(self.bn2(self.fc(x))))


def data(count: int = 6) -> list[Tensor]:
    return [torch.randn(256, 32) for _ in range(count)]


def test_each_dropout_has_its_own_share() -> None:
    batches = data()
    shift = measure(Net(), batches, per_dropout=True, tolerance=None, device="cpu")
    functional = [name for name in shift.alone if "@" in name]
    assert len(functional) == 1
    assert set(shift.alone) == {"drop", "last", *functional}
    assert functional[0].startswith("@test_measure_shares.py:")
    # bn1 sees only `drop`, and without it nothing shifts
    assert shift.baseline["bn1"] == pytest.approx(0.5, abs=0.02)
    assert shift.alone["drop"]["bn1"] == pytest.approx(1, abs=1e-5)
    assert shift.shares["bn1"] == pytest.approx({"drop": 1, "last": 0, functional[0]: 0}, abs=1e-4)
    # bn2 sees the functional one, and what `drop` left behind at bn1
    assert shift.alone[functional[0]]["bn2"] > shift.baseline["bn2"] + 0.05
    assert shift.alone["drop"]["bn2"] > shift.baseline["bn2"] + 0.05
    assert shift.shares["bn2"]["last"] == pytest.approx(0, abs=1e-4)


def test_a_shift_above_1_has_shares_as_well() -> None:
    shift = measure(nn.Sequential(Averaged(32), nn.Dropout(0.5)), data(), per_dropout=True, device="cpu")
    assert shift.baseline["0.bn"] > 1.3
    assert shift.shares["0.bn"] == pytest.approx({"0.drop": 1, "1": 0}, abs=1e-3)


def test_functional_dropouts_have_the_names_of_the_trace() -> None:
    model = Net()
    batches = data(1)
    named = {site.name for site in trace(model, None if not batches else _inputs(batches[0])).dropouts}
    shift = measure(model, batches, per_dropout=True, device="cpu")
    assert set(shift.alone) <= named


def _inputs(x: Tensor) -> object:
    from dropout_lint.inputs.example import Inputs

    return Inputs((x,))


def test_switching_one_off_leaves_the_masks_of_the_others() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Dropout(0.5), nn.Dropout(0.5)
            self.bn_a, self.bn_b = nn.BatchNorm1d(8), nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn_a(self.a(x)) + self.bn_b(self.b(x))
            return out

    shift = measure(Apart(), [torch.randn(32, 8)], per_dropout=True, device="cpu")
    assert shift.alone["a"]["bn_b"] == shift.baseline["bn_b"]
    assert shift.alone["b"]["bn_a"] == shift.baseline["bn_a"]


def test_dropout_inside_attention_and_lstm_can_be_switched_off() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
            self.lstm = nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True)
            self.bn = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.attention(x, x, x, need_weights=True)[0]
            out: Tensor = self.bn(self.lstm(x)[0].transpose(1, 2))
            return out

    model = Inside()
    shift = measure(model, [torch.randn(64, 5, 8)], per_dropout=True, device="cpu")
    assert set(shift.alone) == {"attention", "lstm"}
    assert shift.alone["lstm"]["bn"] > shift.baseline["bn"]
    assert (model.attention.dropout, model.lstm.dropout) == (0.5, 0.5)


def test_dropout_on_the_same_input_twice_in_place() -> None:
    model = nn.Sequential(nn.Dropout(0.5, inplace=True), nn.BatchNorm1d(8))
    shift = measure(model, [torch.randn(512, 8)], per_dropout=True, device="cpu")
    assert shift.alone["0"]["1"] == pytest.approx(1, abs=1e-6)


def test_validation_puts_prediction_and_measurement_side_by_side_worst_first() -> None:
    batches = data()
    predicted = Prediction(
        "checkpoint", (NormShift("bn1", "bn1", 0.5, "checkpoint"), NormShift("bn2", "bn2", 0.7, "checkpoint"))
    )
    result = validate(
        Net(0.5),
        iter(batches),
        predicted=predicted,
        fixed=Net(0.1),
        predicted_after={"bn1": 0.9, "bn2": 0.75},
        device="cpu",
        tolerance=None,
    )
    assert result.rows[0].norm == "bn2"
    assert [row.shift_ratio for row in result.rows] == sorted(
        (r.shift_ratio for r in result.rows), reverse=True
    )
    row = next(row for row in result.rows if row.norm == "bn1")
    assert (row.predicted, row.predicted_after) == (0.5, 0.9)
    assert row.before == pytest.approx(0.5, abs=0.02)
    assert row.after == pytest.approx(0.9, abs=0.02)
    assert row.error == pytest.approx(0, abs=0.02)
    assert result.after is not None
    assert result.after.batches == result.before.batches == 6
    assert result.mean_absolute_error is not None
    infos = measurement_infos(result)
    assert [info.norm for info in infos] == [row.norm for row in result.rows]
    assert infos[0].after_fix == result.rows[0].after


def test_validation_without_a_fix() -> None:
    result = validate(Net(), data(1), predicted={"bn1": 0.5, "elsewhere": 0.1}, device="cpu")
    assert {row.norm for row in result.rows} == {"bn1", "bn2"}
    assert all(row.after is None for row in result.rows)
    assert validate(Net(), data(1), device="cpu").mean_absolute_error is None


@pytest.fixture(scope="module")
def shift() -> Shift:
    torch.manual_seed(0)
    return measure(Net(), data(), tolerance=None, device="cpu")


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_plot_is_written_in_the_format_of_its_suffix(
    shift: Shift, tmp_path: Path, suffix: str, start: bytes
) -> None:
    path = tmp_path / f"shift.{suffix}"
    after = measure(Net(0.1), data(), tolerance=None, device="cpu")
    shift.plot(path, after=after, predicted={"bn1": 0.5, "bn2": 0.6}, title="before and after")
    assert path.read_bytes().startswith(start)


def test_the_plot_shows_every_line(shift: Shift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    shift.plot(tmp_path / "a.png", after=shift, predicted=shift.delta)
    (figure,) = figures
    axes = figure.axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert set(labels) == {"measured", "95 % interval", "measured after the fix", "predicted"}
    ratios = [norm.shift_ratio for norm in shift.norms]
    for line in axes.get_lines()[:3]:
        assert list(line.get_xdata()) == [1, 2]
        assert list(line.get_ydata()) == pytest.approx(ratios)


def test_a_plot_that_cannot_be_written_says_so(shift: Shift, tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "folder.png", tmp_path / "shift.docx"):
        with pytest.raises(MeasureError, match="cannot be written"):
            shift.plot(path)


def test_sparklines() -> None:
    assert sparkline([1, 1.5, 2]) == "▁▅█"
    assert sparkline([1, 1.5, 2], ascii_only=True) == "_=#"
    assert sparkline([1.0001, 1.0, 1.002]) == "▁▁▁"  # noise is flat
    assert len(sparkline([1 + i / 100 for i in range(500)], width=40)) == 40
    assert sparkline([1.0] * 100 + [3.0] + [1.0] * 100, width=20).count("█") == 1  # a single peak survives
    assert sparkline([]) == ""


def test_sparkline_of_a_shift(shift: Shift) -> None:
    assert len(shift.sparkline()) == len(shift.norms)
    assert shift.worst.name == "bn2"
