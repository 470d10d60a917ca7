"""`measure` against brute force: all values of every norm's input, their variance in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.shapes import materialise
from dropout_lint.layers import STANDARD
from dropout_lint.loading.compat import declare_missing_schemas
from dropout_lint.loading.resolving import resolve
from dropout_lint.measurement import Batches, measure
from dropout_lint.measurement.confidence import t_quantile
from dropout_lint.measurement.moments import Block, BlockList, Layout, channel_moments, merge_all
from fixtures.truths import TRUTHS

SEED = 1234


def norms_of(model: nn.Module) -> dict[str, nn.Module]:
    found = {}
    for name, module in model.named_modules():
        spec = STANDARD.norm(module)
        if spec is not None and spec.shifts:
            found[name] = module
    return found


def values_by_channel(x: Tensor) -> np.ndarray:
    """(C, everything else) in float64."""
    return x.detach().double().transpose(0, 1).reshape(x.shape[1], -1).numpy()


def heard(model: nn.Module, data: list[Inputs], *, train: bool) -> dict[str, np.ndarray]:
    """Every value that reaches every norm, caught where torch normalises it, in a plain loop."""
    names = {id(module.running_var): name for name, module in norms_of(model).items()}
    seen: dict[str, list[np.ndarray]] = {}
    normalise = F.batch_norm

    def listening(x: Tensor, mean: Tensor, variance: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if id(variance) in names:
            seen.setdefault(names[id(variance)], []).append(values_by_channel(x))
        return normalise(x, mean, variance, *args, **kwargs)

    F.batch_norm = listening
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.train(train)
    try:
        for index, inputs in enumerate(data):
            torch.manual_seed(SEED + index)
            with torch.no_grad():
                model(*(arg.clone() for arg in inputs.args))
            model.load_state_dict(state)
    finally:
        F.batch_norm = normalise
    return {name: np.concatenate(parts, axis=1) for name, parts in seen.items()}


def brute_force(model: nn.Module, data: list[Inputs], *, stored: bool) -> dict[str, float]:
    """Δ of every norm that both modes reach, straight from the definition."""
    norms = norms_of(model)
    before = {name: module.training for name, module in model.named_modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    train = heard(model, data, train=True)
    if not stored:
        for name, values in train.items():
            if norms[name].training:
                norms[name].running_mean.copy_(torch.from_numpy(values.mean(axis=1)))
                norms[name].running_var.copy_(torch.from_numpy(values.var(axis=1)))
    test = heard(model, data, train=False)
    model.load_state_dict(state)
    for name, module in model.named_modules():
        module.training = before[name]
    return {
        name: test[name].var(axis=1).mean() / train[name].var(axis=1).mean() for name in train if name in test
    }


def resnet18(p: float) -> nn.Module:
    """torchvision's, dropout before the second weight layer of every block (Dropout-(b) of Li et al.)."""
    declare_missing_schemas()
    from torchvision.models import resnet18 as build

    model: nn.Module = build(weights=None, num_classes=10)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            block.conv2 = nn.Sequential(nn.Dropout(p), block.conv2)
    return model


MEASURABLE = [
    truth.target
    for truth in TRUTHS
    if not any(
        part in truth.target
        for part in (
            *("transformer", "tacotron", "always_on", "follows_mode", "flags:FloatRate", "FineTuned"),
            *(
                '"lazy"',
                '"instance"',
                '"tracking-instance"',
                '"instance-tracked"',
                '"stateless-batch"',
                '"layer"',
                '"group"',
                '"rms"',
            ),
            '"frozen"',
        )
    )
    and not (
        truth.target.startswith("fixtures.defects:")
        and truth.target != "fixtures.defects:ActiveInEvalBeforeNorm"
    )
]


@pytest.mark.parametrize("target", MEASURABLE)
def test_every_fixture_agrees_with_brute_force(target: str) -> None:
    (built,) = resolve(target, prefer_meta=False)
    assert built.inputs is not None
    data = [materialise(built.inputs, seed=seed) for seed in range(3)]
    shift = measure(built.model, data, tolerance=None, statistics="measured", seed=SEED, device="cpu")
    reference = brute_force(built.model, data, stored=False)
    assert shift.delta.keys() | shift.gaps.keys() == norms_of(built.model).keys()
    assert shift.delta
    for name, delta in shift.delta.items():
        assert delta == pytest.approx(reference[name], rel=1e-5), name


@pytest.mark.parametrize("stored", [False, True])
def test_resnet18_of_torchvision_agrees_with_brute_force(stored: bool) -> None:
    model = resnet18(0.3)
    data = [Inputs((torch.randn(4, 3, 64, 64),)) for _ in range(2)]
    if stored:  # a few steps of "training" with a fast momentum, so that stored statistics mean something
        for inputs in data * 3:
            model.train()(*inputs.args)
    shift = measure(model, data, tolerance=None, seed=SEED, device="cpu")
    assert shift.statistics == ("stored" if stored else "measured")
    reference = brute_force(model, data, stored=stored)
    assert len(shift.norms) == 20
    for name, delta in shift.delta.items():
        assert delta == pytest.approx(reference[name], rel=1e-5), name


def test_a_norm_right_after_dropout_shifts_as_the_paper_says() -> None:
    """Li Eq. 6 with Kim's half-normal moments: Δ = (π-1)/(π/k-1) for dropout on a ReLU of N(0, 1)."""
    model = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(64))
    data = [torch.randn(512, 64) for _ in range(20)]
    shift = measure(model, data, device="cpu", tolerance=None)
    expected = (math.pi - 1) / (math.pi / 0.5 - 1)
    assert shift.delta["2"] == pytest.approx(expected, rel=0.01)
    assert shift.shift_ratio["2"] == pytest.approx(1 / expected, rel=0.01)
    assert shift["2"].channel_delta.shape == (64,)
    assert shift["2"].mean_shift < 0.02


def test_mean_shift_is_in_train_standard_deviations() -> None:
    class Offset(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 2.0 if self.training else x

    shift = measure(
        nn.Sequential(Offset(), nn.BatchNorm1d(8)), [torch.randn(256, 8) * 4], tolerance=None, device="cpu"
    )
    assert shift.delta["1"] == pytest.approx(1, rel=1e-5)
    assert shift.mean_shift["1"] == pytest.approx(0.5, rel=0.1)


def test_double_precision_stays_double() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.BatchNorm1d(8)).double()
    data = [Inputs((torch.randn(32, 6, dtype=torch.float64) + 1e6,)) for _ in range(3)]
    shift = measure(model, data, tolerance=None, seed=SEED, device="cpu")
    assert shift.delta["2"] == pytest.approx(brute_force(model, data, stored=False)["2"], rel=1e-9)


def test_an_instance_norm_remembers_the_variance_within_a_sample() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.InstanceNorm1d(4, track_running_stats=True, momentum=1.0))
    # samples differ in their mean, which an instance norm does not remember as variance
    batch = torch.randn(16, 4, 50) + 10 * torch.randn(16, 4, 1)
    shift = measure(model, [batch], statistics="measured", seed=SEED, device="cpu")
    torch.manual_seed(SEED)
    model.train()(batch)
    remembered = model[1].running_var.double() * 49 / 50  # it stores the unbiased variance
    assert torch.allclose(shift["1"].train_variance, remembered, rtol=1e-5)
    assert float(shift["1"].test_variance.mean()) == pytest.approx(1, rel=0.1)


def test_a_norm_called_twice_has_one_entry_over_both_inputs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(x) + self.bn(3 * x)
            return out

    x = torch.randn(64, 4)
    shift = measure(Twice(), [x], tolerance=None, device="cpu")
    both = torch.cat([x, 3 * x]).double().var(0, correction=0)
    assert torch.allclose(shift["bn"].train_variance, both, rtol=1e-5)


def test_a_norm_whose_forward_is_called_directly_is_heard() -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn.forward(input=x)

    assert measure(Direct(), [torch.randn(16, 4)], device="cpu").delta == {"bn": pytest.approx(1)}


def test_dropout_that_ignores_the_mode_stays_on_in_test_mode() -> None:
    class AlwaysOn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm1d(32)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn(torch.nn.functional.dropout(x, 0.5))
            return out

    assert measure(AlwaysOn(), [torch.randn(512, 32)], device="cpu").delta["bn"] == pytest.approx(1, abs=0.02)


def test_norms_come_in_the_order_of_the_data() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.BatchNorm1d(4)
            self.first = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.first(x))
            return out

    shift = measure(Backwards(), [torch.randn(16, 4)], device="cpu")
    assert [norm.name for norm in shift.norms] == ["first", "last"]


def test_stored_or_measured_is_decided_for_each_norm() -> None:
    trained, fresh = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    trained(torch.randn(8, 4))
    shift = measure(nn.Sequential(trained, nn.Dropout(0.5), fresh), [torch.randn(64, 4)], device="cpu")
    assert [norm.statistics for norm in shift.norms] == ["stored", "measured"]
    assert shift.statistics == "mixed"
    # old checkpoints count no batches
    trained.num_batches_tracked.zero_()
    assert measure(trained, [torch.randn(64, 4)], device="cpu").statistics == "stored"


def test_stale_stored_statistics_are_said_aloud() -> None:
    norm = nn.BatchNorm1d(4)
    norm(torch.randn(8, 4))
    shift = measure(norm, [torch.randn(64, 4) * 100], device="cpu")
    assert any("factor 2" in note for note in shift.notes)


# --- moments ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["vectors", "maps", "channels last", "volumes"])
def test_a_large_mean_does_not_cancel(layout: str, dtype: torch.dtype) -> None:
    """Mean 3000, standard deviation 1: E[x²] - E[x]² in float32 gives anything from -4 up."""
    shapes = {
        "vectors": (4096, 8),
        "maps": (64, 8, 16, 16),
        "channels last": (64, 8, 16, 16),
        "volumes": (8, 8, 9, 9, 9),
    }
    x = (torch.randn(shapes[layout], dtype=torch.float64) + 3000).to(dtype)
    if layout == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    variance, mean, count = channel_moments(x)
    values = values_by_channel(x)
    assert count == values.shape[1]
    assert np.allclose(variance.numpy(), values.var(axis=1), rtol=2e-6, atol=0)
    assert np.allclose(mean.numpy(), values.mean(axis=1), rtol=1e-7, atol=0)
    model = nn.BatchNorm1d(8) if x.dim() == 2 else nn.BatchNorm2d(8) if x.dim() == 4 else nn.BatchNorm3d(8)
    shift = measure(model.to(dtype), [x], device="cpu")
    assert float(next(iter(shift.norms)).train_variance.mean()) == pytest.approx(1, abs=0.02)


def test_a_misleading_first_sample_does_not_cancel_either() -> None:
    x = torch.randn(512, 4) + 3000
    x[0] = 0
    x = torch.cat([x, torch.zeros(1, 4)])  # keeps the spread honest: most of it comes from the zeros
    variance, _, _ = channel_moments(x[1:-1])
    padded = torch.cat([torch.zeros(1, 4), x[1:-1]])
    assert np.allclose(variance.numpy(), values_by_channel(x[1:-1]).var(axis=1), rtol=2e-6)
    assert np.allclose(channel_moments(padded)[0].numpy(), values_by_channel(padded).var(axis=1), rtol=1e-5)


def test_half_precision_is_accumulated_in_float32() -> None:
    x = (torch.randn(256, 8, 7, 7) + 20).bfloat16()
    variance, _, _ = channel_moments(x)
    assert variance.dtype in (torch.float32, torch.float64)
    assert np.allclose(variance.numpy(), values_by_channel(x).var(axis=1), rtol=1e-5)


def sizes() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(sizes(), st.integers(1, 6), st.floats(-1e4, 1e4), st.integers(0, 2**32 - 1))
def test_merging_any_split_gives_the_variance_of_the_whole(
    parts: list[int], limit: int, mean: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(sum(parts), 3, generator=generator, dtype=torch.float64) * 2 + mean
    layout = Layout(("a",), (3,), (True,))
    blocks = BlockList(layout, limit=2 * limit)
    for part in whole.split(parts):
        variance, centre, count = channel_moments(part)
        blocks.add(Block(torch.tensor([count], dtype=torch.float64), centre, variance * count))
    assert len(blocks.blocks) <= 2 * limit
    merged = merge_all(blocks.blocks, layout)
    assert merged.batches == len(parts)
    assert int(merged.count) == len(whole)
    assert np.allclose(
        (merged.m2 / merged.count).numpy(), values_by_channel(whole).var(axis=1), rtol=1e-9, atol=1e-9
    )
    assert np.allclose(merged.mean.numpy(), values_by_channel(whole).mean(axis=1))


# --- confidence ------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "exact"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (63, 1.9983)]
)
def test_t_quantiles_are_those_of_the_tables(degrees: int, exact: float) -> None:
    assert t_quantile(0.95, degrees) == pytest.approx(exact, rel=5e-4)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4))
    runs = 120
    hits = 0
    for run in range(runs):
        generator = torch.Generator().manual_seed(run)
        data = [torch.randn(64, 4, generator=generator) for _ in range(8)]
        interval = measure(model, data, tolerance=None, seed=1000 * run, device="cpu")["1"].interval
        assert interval is not None
        hits += interval[0] <= 0.5 <= interval[1]
    assert 0.88 * runs <= hits <= runs


def test_it_stops_when_the_intervals_are_tight() -> None:
    model = nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(0.5), nn.BatchNorm1d(16))
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            module(torch.randn(64, 16))
    read = []

    def endless() -> Iterator[Tensor]:
        while True:
            read.append(1)
            yield torch.randn(256, 16)

    shift = measure(model, endless(), tolerance=0.02, device="cpu")
    assert shift.batches == len(read) < 200
    assert all(norm.half_width is not None and norm.half_width <= 0.02 for norm in shift.norms)


# --- batches ------------------------------------------------------------


class TwoInputs(nn.Module):
    """forward(left, right, scale=1.0)."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(4)

    def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        out: Tensor = self.bn((left + right) * scale)
        return out


LEFT, RIGHT, LABELS = torch.arange(32.0).reshape(8, 4), torch.ones(8, 4), torch.zeros(8, dtype=torch.long)


@pytest.mark.parametrize(
    "batch",
    [
        (LEFT, RIGHT),
        [LEFT, RIGHT, LABELS],
        {"left": LEFT, "right": RIGHT, "label": LABELS},
        {"image": LEFT, "other": RIGHT, "label": LABELS},
        Inputs((LEFT,), {"right": RIGHT}),
    ],
)
def test_batches_of_every_form_reach_forward(batch: Any) -> None:
    shift = measure(TwoInputs(), [batch], tolerance=None, device="cpu")
    assert torch.allclose(shift["bn"].train_variance, (LEFT + RIGHT).double().var(0, correction=0), rtol=1e-5)
    assert shift.samples == 8


def test_labels_are_left_out_and_that_is_said() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    shift = measure(model, [(LEFT, LABELS)], device="cpu")
    assert any("first 1" in note for note in shift.notes)
    # a tensor by itself is one batch, not an iterable of rows
    assert measure(model, LEFT, device="cpu").samples == 8


@pytest.mark.parametrize("form", ["list", "generator", "loader", "shuffled loader"])
def test_every_kind_of_source_gives_the_same_batches_to_both_modes(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout and with one norm, Δ is exactly 1 only if both modes see the same data."""
    rows = torch.randn(64, 4) * torch.logspace(0, 3, 64).unsqueeze(1)
    data = torch.utils.data.TensorDataset(rows)
    makers: dict[str, Callable[[], Any]] = {
        "list": lambda: list(rows.split(8)),
        "generator": lambda: (part for part in rows.split(8)),
        "loader": lambda: torch.utils.data.DataLoader(data, 8),
        "shuffled loader": lambda: torch.utils.data.DataLoader(data, 8, shuffle=True),
    }
    model = nn.BatchNorm1d(4)
    for keep_limit in (2**30, 0):
        if form == "generator" and keep_limit == 0:
            continue
        monkeypatch.setattr("dropout_lint.measurement.batches.KEEP_LIMIT", keep_limit)
        shift = measure(model, makers[form](), max_batches=5, tolerance=None, device="cpu")
        assert shift.batches == 5
        assert shift.delta[""] == pytest.approx(1, abs=1e-9)


def test_an_iterator_too_large_to_keep_stops_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropout_lint.measurement.batches.KEEP_LIMIT", 1000)
    shift = measure(nn.BatchNorm1d(4), (torch.randn(16, 4) for _ in range(100)), tolerance=None, device="cpu")
    assert shift.batches == 4
    assert any("read only once" in note for note in shift.notes)


def test_the_loader_draws_from_the_callers_random_state() -> None:
    torch.manual_seed(3)
    expected = [torch.randn(8, 4) for _ in range(3)]
    torch.manual_seed(3)
    batches = Batches(torch.randn(8, 4) for _ in range(3))
    for (_, got), want in zip(batches.read(), expected, strict=True):
        torch.manual_seed(99)  # what a forward pass would do
        assert torch.equal(got, want)


def test_the_public_name_is_callable_whatever_was_imported_before() -> None:
    import dropout_lint as dl
    import dropout_lint.measurement

    shift = dl.measure(nn.BatchNorm1d(4), [torch.randn(16, 4)], device="cpu")
    assert isinstance(shift, dropout_lint.measurement.Shift)
