"""What goes wrong in a measurement is said, and never comes out as a number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.errors import DropoutLintError, MeasureError
from dropout_lint.measurement import measure


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))


def failure(model: nn.Module, batches: Any, **options: Any) -> DropoutLintError:
    with pytest.raises(MeasureError) as caught:
        measure(model, batches, device="cpu", **options)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("batches", [[], iter([]), (x for x in ())])
def test_an_empty_loader(batches: Any) -> None:
    assert "no batch" in failure(net(), batches).message


def test_a_thing_that_is_no_loader() -> None:
    assert "int" in failure(net(), 3).message


def test_a_loader_that_raises_names_the_batch_and_keeps_the_cause() -> None:
    def failing() -> Iterator[Tensor]:
        yield torch.randn(4, 8)
        yield torch.randn(4, 8)
        raise OSError("disk gone")

    error = failure(net(), failing())
    assert "batch 2" in error.message
    assert "OSError: disk gone" in error.message
    assert isinstance(error.__cause__, OSError)
    assert error.details is not None


def test_a_loader_that_cannot_even_begin() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Tensor]:
            raise FileNotFoundError("no such folder")

    assert "no such folder" in failure(net(), Broken()).message


def test_wrong_shapes_name_the_batch_its_shape_and_the_mode() -> None:
    error = failure(net(), [torch.randn(4, 8), torch.randn(4, 9)])
    assert "batch 1" in error.message
    assert "4x9" in error.message
    assert "train mode" in error.message
    assert "4x8" in str(error.hint)


def test_a_batch_with_too_few_parts_says_what_forward_wants() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(8)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            out: Tensor = self.bn(left + right)
            return out

    assert "left, right" in failure(Two(), [(torch.randn(4, 8),)]).message
    assert "right" in failure(Two(), [{"left": torch.randn(4, 8)}]).message
    assert "'a'" in failure(Two(), [{"a": torch.randn(4, 8)}]).message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_in_the_data(value: float) -> None:
    bad = torch.randn(4, 8)
    bad[2, 3] = value
    error = failure(net(), [torch.randn(4, 8), bad, torch.randn(4, 8)])
    assert "NaN or infinity" in error.message
    assert "batch 1 in train mode" in error.message


def test_nan_at_one_norm_is_a_gap_and_the_others_have_numbers() -> None:
    class LogOfNegative(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.log()

    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(8), LogOfNegative(), nn.BatchNorm1d(8))
    shift = measure(model, [torch.randn(64, 8) for _ in range(3)], device="cpu")
    assert list(shift.delta) == ["1"]
    assert math.isfinite(shift.delta["1"])
    assert "NaN or infinity, first in batch 0" in shift.gaps["3"]
    with pytest.raises(KeyError, match="NaN or infinity"):
        shift["3"]


def test_nan_in_test_mode_only() -> None:
    class OnlyInTest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if self.training else x / 0

    shift = measure(
        nn.Sequential(nn.BatchNorm1d(8), OnlyInTest(), nn.BatchNorm1d(8)), [torch.randn(16, 8)], device="cpu"
    )
    assert "in test mode" in shift.gaps["2"]
    assert list(shift.delta) == ["0"]


def test_a_norm_that_is_never_reached() -> None:
    model = net()
    model.extra = nn.BatchNorm1d(4)
    model.forward = lambda x: model[2](model[1](model[0](x)))  # type: ignore[method-assign]
    shift = measure(model, [torch.randn(16, 8)], device="cpu")
    assert "never reached" in shift.gaps["extra"]
    assert "extra" not in shift.delta

    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return x

    assert "never reached" in failure(Nothing(), [torch.randn(4, 4)]).message


def test_a_norm_reached_in_one_mode_only() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.extra = nn.BatchNorm1d(8), nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.main(x)
            return self.extra(x) if self.training else x

    shift = measure(Auxiliary(), [torch.randn(16, 8)], device="cpu")
    assert shift.gaps == {"extra": "was reached in train mode only"}


def test_batches_of_one_sample() -> None:
    error = failure(net(), [torch.randn(1, 8)] * 3)
    assert "single sample" in error.message
    assert "at least 2" in str(error.hint)


@pytest.mark.parametrize("statistics", ["stored", "measured"])
def test_a_last_batch_of_one_sample_is_left_out_and_that_is_said(statistics: str) -> None:
    data = [torch.randn(32, 8), torch.randn(32, 8)]
    with_rest = measure(net(), [*data, torch.randn(1, 8)], statistics=statistics, seed=1, device="cpu")
    assert with_rest.batches == 2
    assert any("single sample" in note for note in with_rest.notes)
    # maps of one sample are no problem: there are many values of each channel
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(3))
    assert measure(model, [torch.randn(1, 3, 8, 8)], device="cpu").samples == 1


@pytest.mark.parametrize("statistics", ["stored", "measured"])
def test_batches_without_a_sample_are_left_out_and_that_is_said(statistics: str) -> None:
    data = [torch.randn(32, 8), torch.randn(32, 8)]
    plain = measure(net(), data, statistics=statistics, seed=1, device="cpu")
    with_empty = measure(
        net(), [*data, torch.randn(0, 8)], statistics=statistics, seed=1, tolerance=None, device="cpu"
    )
    assert (with_empty.batches, with_empty.samples) == (plain.batches, plain.samples) == (2, 64)
    assert "batches without any sample were left out: 1" in with_empty.notes
    assert "data set is not empty" in str(failure(net(), [torch.randn(0, 8)], statistics=statistics).hint)


def test_one_batch_has_no_interval() -> None:
    shift = measure(net(), [torch.randn(32, 8)], device="cpu")
    assert shift.interval == {"2": None}
    assert math.isfinite(shift.delta["2"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_device_memory_says_what_to_lower(error: Exception) -> None:
    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            raise error

    said = failure(Hungry(), [torch.randn(64, 8)])
    assert "out of memory" in said.message
    assert "64x8" in said.message
    assert "32 samples" in str(said.hint)
    assert "--amp" in str(said.hint)


def test_inputs_that_do_not_vary() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x)

    assert (
        "does not vary" in failure(nn.Sequential(Constant(), nn.BatchNorm1d(8)), [torch.randn(8, 8)]).message
    )

    class ConstantInTest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if self.training else torch.ones_like(x)

    model = nn.Sequential(nn.BatchNorm1d(8), ConstantInTest(), nn.BatchNorm1d(8))
    shift = measure(model, [torch.randn(8, 8)], device="cpu")
    assert shift.gaps == {"2": "its input does not vary in test mode"}


def test_a_dead_channel_does_not_spoil_the_others() -> None:
    class Dead(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x[:, :4], torch.zeros_like(x[:, 4:])], 1)

    shift = measure(
        nn.Sequential(Dead(), nn.Dropout(0.5), nn.BatchNorm1d(8)), [torch.randn(512, 8)], device="cpu"
    )
    assert shift.delta["2"] == pytest.approx(0.5, abs=0.05)
    assert shift["2"].channel_delta[4:].isnan().all()
    assert shift["2"].channel_delta[:4].isfinite().all()


def test_models_without_anything_to_measure() -> None:
    assert "no norm" in failure(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), [torch.randn(4, 8)]).message

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(8))
            self.register_buffer("variance", torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(F.dropout(x), self.mean, self.variance, training=self.training)

    error = failure(Functional(), [torch.randn(4, 8)])
    assert "only modules are measured" in error.message
    assert "F.batch_norm" in str(error.hint)
    lazy = nn.Sequential(nn.LazyBatchNorm1d())
    assert "lazy" in failure(lazy, [torch.randn(4, 8)]).message
    with torch.device("meta"):
        hollow = net()
    assert "meta" in failure(hollow, [torch.randn(4, 8)]).message

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(8)

        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.bn.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(x)
            return out

    assert "stays in test mode" in failure(Frozen(), [torch.randn(4, 8)]).message


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_devices_that_are_not_there() -> None:
    with pytest.raises(MeasureError, match="no CUDA device"):
        measure(net(), [torch.randn(4, 8)], device="cuda")
    with pytest.raises(MeasureError, match="gpu"):
        measure(net(), [torch.randn(4, 8)], device="gpu")


@pytest.mark.parametrize(("device", "words"), [("meta", "no values"), ("hpu", "cannot use the device hpu")])
def test_devices_that_hold_nothing_here(device: str, words: str) -> None:
    with pytest.raises(MeasureError, match=words):
        measure(net(), [torch.randn(4, 8)], device=device)
