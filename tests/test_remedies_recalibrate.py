"""recalibrate: every norm's statistics as test mode sees them, where the usual tools get them wrong."""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

import dropout_lint as dl
from dropout_lint.errors import DropoutLintError, MeasureError, UsageError
from dropout_lint.remedies.recalibrate import recalibrate


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


class AlwaysOn(nn.Module):
    """Functional dropout of every kind, on whatever the mode says, before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(x, 0.5)
        x = torch.dropout(x, 0.5, True)
        x = F.alpha_dropout(x, 0.5, training=True)
        x = nn.Dropout(0.5)(x)
        x = F.dropout1d(x[:, :, None], 0.5, True)[:, :, 0]
        return self.norm(torch.ops.aten.dropout.default(x, 0.5, True))


class Deep(nn.Module):
    """Residual blocks with dropout before the norms."""

    def __init__(self, blocks: int = 4, width: int = 12) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Conv2d(width, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(blocks)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def test_dropout_is_off_where_update_bn_leaves_it_on():
    model = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(4))
    batches = list((noise(40_000, 4) * 2**0.5).split(1000))
    update_bn(batches, model)
    assert model[2].running_var.mean().item() == pytest.approx(1.68, abs=0.04)
    result = recalibrate(model, batches)
    assert model[2].running_var.mean().item() == pytest.approx(0.68, abs=0.02)
    # the ratio of the two is Kim's Eq. 29
    assert result.moved[0].variance_ratio == pytest.approx((torch.pi - 1) / (torch.pi / 0.5 - 1), abs=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_functional_dropout_that_never_stops_is_off_too(training):
    model = AlwaysOn().train(training)
    x = noise(500, 8)
    recalibrate(model, x.split(50))
    torch.testing.assert_close(model.norm.running_var, x.var(0))
    torch.testing.assert_close(model.norm.running_mean, x.mean(0))
    assert model.norm.training is training


def test_dropout_inside_attention_is_off():
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, _ = self.attention(x, x, x)
            y = y + F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
            y = y + F.scaled_dot_product_attention(x, x, x, None, 0.5)
            return self.norm(y.mean(1))

    model = Attend().train()
    first = copy.deepcopy(model)
    batches = noise(60, 5, 8).split(20)
    recalibrate(model, batches)
    recalibrate(first, batches)
    assert torch.equal(model.norm.running_var, first.norm.running_var)  # nothing random is left


def test_population_variance_where_update_bn_averages_batch_variances():
    batches = [noise(50, 3, seed=i) + (2 if i % 2 else -2) for i in range(40)]
    everything = torch.cat(batches)
    model = nn.Sequential(nn.BatchNorm1d(3))
    update_bn(batches, model)
    assert model[0].running_var.mean().item() == pytest.approx(0.98, abs=0.05)
    recalibrate(model, batches)
    assert model[0].running_var.mean().item() == pytest.approx(4.99, abs=0.05)
    torch.testing.assert_close(model[0].running_var, everything.var(0))


def test_a_small_batch_weighs_by_its_rows():
    batches = [noise(1000, 3), noise(2, 3, seed=1) + 50]
    everything = torch.cat(batches)
    model = nn.Sequential(nn.BatchNorm1d(3))
    update_bn(batches, model)
    assert model[0].running_mean.mean().item() > 20
    recalibrate(model, batches)
    torch.testing.assert_close(model[0].running_mean, everything.mean(0))
    torch.testing.assert_close(model[0].running_var, everything.var(0))


@torch.no_grad()
def fvcore_update(model: nn.Module, batches: list[torch.Tensor]) -> None:
    """What fvcore's `update_bn_stats` comes to: E[x²] − E[x]² in float32, of norms in train mode alone."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d) and m.training]
    sums = [(torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)) for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    for batch in batches:
        called = {id(norm): int(norm.num_batches_tracked) for norm in norms}
        model(batch)
        for norm, (mean, square) in zip(norms, sums, strict=True):
            if int(norm.num_batches_tracked) > called[id(norm)]:
                mean.add_(norm.running_mean / len(batches))
                square.add_((norm.running_var + norm.running_mean**2) / len(batches))
    for norm, (mean, square) in zip(norms, sums, strict=True):
        norm.running_mean, norm.running_var, norm.momentum = mean, square - mean**2, 0.1


def test_a_large_mean_does_not_cancel():
    batches = list((noise(2000, 3) + 3000).split(100))
    model = nn.Sequential(nn.BatchNorm1d(3))
    fvcore_update(model, batches)
    assert (model[0].running_var - 1).abs().max() > 0.3
    recalibrate(model, batches)
    torch.testing.assert_close(
        model[0].running_var, torch.cat(batches).double().var(0).float(), rtol=1e-4, atol=0
    )


def test_a_model_in_test_mode_is_estimated_where_fvcore_does_nothing():
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    x = noise(200, 3) * 5
    fvcore_update(model, list(x.split(50)))
    assert (model[0].running_var == 1).all()
    recalibrate(model, x.split(50))
    torch.testing.assert_close(model[0].running_var, x.var(0))
    assert not model[0].training


class FrozenBatchNorm2d(nn.Module):
    """As detectron2's: no `_NormBase`, but it calls the same function."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = channels
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, training=False)


def test_frozen_norms_are_untouched_where_update_bn_resets_them():
    model = nn.Sequential(
        FrozenBatchNorm2d(3),
        nn.BatchNorm2d(3, momentum=0.0),
        nn.BatchNorm2d(3),
        nn.Sequential(nn.BatchNorm2d(3)),
        nn.BatchNorm2d(3),
    )
    model[2].eval()
    for norm in (model[0], model[1], model[2], model[3][0]):
        norm.running_var.fill_(7.0)
    other = copy.deepcopy(model)
    update_bn([noise(8, 3, 4, 4)], other)
    assert other[2].running_var.mean() < 2
    result = recalibrate(model, [noise(8, 3, 4, 4)], skip=["3"])
    for norm in (model[0], model[1], model[2], model[3][0]):
        assert (norm.running_var == 7.0).all()
    assert [move.name for move in result.moved] == ["4"]
    assert set(result.untouched) == {"0", "1", "2", "3.0"}
    assert model[2].training is False
    assert model[3].training is True


class Failing:
    """A loader that breaks after two batches."""

    def __iter__(self):
        yield noise(8, 12, 4, 4)
        yield noise(8, 12, 4, 4)
        raise OSError("disk gone")


@pytest.mark.parametrize("method", ["pooled", "batch", "stages"])
def test_a_failing_or_empty_loader_changes_nothing(method):
    model = Deep().train()
    model(noise(8, 12, 4, 4))
    model.blocks[0].eval()
    before, modes = snapshot(model), [module.training for module in model.modules()]
    with pytest.raises(OSError, match="disk gone"):
        recalibrate(model, Failing(), method=method)
    with pytest.raises(MeasureError, match="no batch"):
        recalibrate(model, [], method=method)
    assert same(model, before)
    assert [module.training for module in model.modules()] == modes
    update_bn([], model)  # torch's resets everything, silently
    assert not same(model, before)
    model.eval()
    with pytest.raises(OSError, match="disk gone"):
        update_bn(Failing(), model)  # and leaves modes and momentum as they are half way
    assert model.training
    assert model.blocks[0][0].momentum is None


def test_a_failing_forward_and_nan_change_nothing():
    model = Deep()
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        recalibrate(model, [noise(8, 12, 4, 4), noise(8, 5, 4, 4)])
    with pytest.raises(MeasureError, match="not finite"):
        recalibrate(model, [noise(8, 12, 4, 4), torch.full((8, 12, 4, 4), torch.nan)])
    assert same(model, before)


def test_one_value_has_no_variance():
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(MeasureError, match="single value"):
        recalibrate(model, [noise(1, 3)])
    x = noise(6, 3)
    recalibrate(model, x.split(1))  # batches of one row, which train mode refuses
    torch.testing.assert_close(model[0].running_var, x.var(0))


def test_unused_norms_stay_and_reused_ones_see_every_call():
    class Reuse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.spare = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
            self.spare.running_var.fill_(5.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x) + self.norm(3 * x + 1)

    model = Reuse()
    x = noise(200, 3)
    other = copy.deepcopy(model)
    fvcore_update(other, list(x.split(40)))
    assert (other.spare.running_var == 0).all()
    result = recalibrate(model, x.split(40))
    torch.testing.assert_close(model.norm.running_var, torch.cat([x, 3 * x + 1]).var(0))
    assert (model.spare.running_var == 5.0).all()
    assert result.untouched == {"spare": "never called"}
    assert result.moved[0].count == 400
    recalibrate(model, x.split(40), method="stages")
    torch.testing.assert_close(model.norm.running_var, torch.cat([x, 3 * x + 1]).var(0))


def test_one_norm_under_two_names_counts_once():
    norm = nn.BatchNorm1d(3)
    model = nn.Sequential(norm, nn.Linear(3, 3))
    model.alias = norm
    model.forward = lambda x: model[1](model[0](x))
    x = noise(50, 3)
    assert len(recalibrate(model, [x]).moved) == 1
    torch.testing.assert_close(norm.running_var, x.var(0))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(4, affine=False), (30, 4)),
        (nn.BatchNorm1d(4), (30, 4, 5)),
        (nn.BatchNorm2d(4, affine=False), (30, 4, 5, 3)),
        (nn.BatchNorm3d(4), (30, 4, 2, 3, 3)),
        (nn.SyncBatchNorm(4), (30, 4, 5, 3)),
        (nn.BatchNorm2d(4, momentum=None), (30, 4, 5, 3)),
        (nn.BatchNorm1d(4).double(), (30, 4)),
        (nn.BatchNorm2d(4).bfloat16(), (30, 4, 5, 3)),
    ],
    ids=str,
)
def test_every_kind_of_batch_norm(norm, shape):
    x = (noise(*shape) * 3 + 1).to(norm.running_var.dtype)
    recalibrate(norm, x.split(7))
    dims = [0, *range(2, x.dim())]
    torch.testing.assert_close(norm.running_var, x.double().var(dims).to(x.dtype))
    torch.testing.assert_close(norm.running_mean, x.double().mean(dims).to(x.dtype))
    assert norm.num_batches_tracked == 0


def test_instance_norm_stores_the_mean_of_each_samples_variance():
    norm = nn.InstanceNorm2d(3, track_running_stats=True)
    x = noise(12, 3, 5, 5) * torch.arange(1, 13)[:, None, None, None]
    recalibrate(norm, x.split(5))
    torch.testing.assert_close(norm.running_var, x.var((2, 3)).mean(0))
    torch.testing.assert_close(norm.running_mean, x.mean((2, 3)).mean(0))


def test_a_subclass_that_does_more_than_normalise():
    class NormAct(nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias))

    model = nn.Sequential(NormAct(3), nn.BatchNorm2d(3))
    x = noise(40, 3, 4, 4) * 5
    recalibrate(model, [x])
    torch.testing.assert_close(model[0].running_var, x.var((0, 2, 3)))
    model.eval()
    # a single batch is divided by n, the stored variance by n - 1
    torch.testing.assert_close(model[1].running_var, model[0](x).var((0, 2, 3)), rtol=2 / 640, atol=0)


def inputs_of_norms(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return seen


def drift(model: nn.Module, x: torch.Tensor) -> float:
    """Largest relative error of a stored variance against test mode on all data."""
    modules = dict(model.named_modules())
    return max(
        (modules[name].running_var / value.var((0, 2, 3)) - 1).abs().max().item()
        for name, value in inputs_of_norms(model, x).items()
    )


def test_norms_downstream_see_the_new_statistics_upstream():
    torch.manual_seed(0)
    model = Deep()
    x = noise(256, 12, 6, 6) * 2 + 0.5
    for batch in x.split(32):
        model.train()(batch)
    before = drift(model, x)
    errors = {}
    for method in ("pooled", "batch", "stages"):
        copied = copy.deepcopy(model)
        recalibrate(copied, x.split(32), method=method)
        errors[method] = drift(copied, x)
    assert before > 0.5
    assert errors["pooled"] < 0.1
    assert errors["batch"] < 0.1
    assert errors["stages"] < 1e-4


def test_a_sorted_loader_is_said_and_a_tiny_last_batch_does_no_harm():
    torch.manual_seed(3)
    model = Deep()
    bright = noise(256, 12, 6, 6) + noise(256, 1, 1, 1, seed=1)
    bright = bright[bright.mean((1, 2, 3)).argsort()]
    sorted_ = recalibrate(copy.deepcopy(model), bright.split(32))
    assert "within batches" in sorted_.notes[0]
    assert "stages" in sorted_.notes[0]
    shuffled = bright[torch.randperm(256, generator=torch.Generator().manual_seed(2))]
    assert recalibrate(copy.deepcopy(model), shuffled.split(32)).notes == ()
    exact = recalibrate(model, bright.split(32), method="stages")
    assert exact.notes == ()
    assert drift(model, bright) < 1e-4

    flat = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4))
    x = noise(402, 4)
    recalibrate(flat, x.split(100))  # 100, 100, 100, 100 and 2 rows
    flat.eval()
    torch.testing.assert_close(flat[3].running_var, flat[:3](x).var(0), rtol=0.03, atol=0)


def test_the_order_of_stages_is_that_of_the_data():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x) ** 2)

    model = Backwards()
    x = noise(64, 3, 5, 5) * 4
    recalibrate(model, x.split(8), method="stages")
    assert drift(model, x) < 1e-4


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_however_the_data_is_cut(sizes, seed):
    x = noise(sum(sizes) + 2, 3, seed=seed) * 2 - 1
    model = nn.Sequential(nn.Dropout(0.4), nn.BatchNorm1d(3, momentum=1.0))
    recalibrate(model, x.split([*sizes, 2]))
    # what one train-mode pass over everything at once stores
    whole = nn.BatchNorm1d(3, momentum=1.0)
    whole(x)
    torch.testing.assert_close(model[1].running_var, whole.running_var, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[1].running_mean, whole.running_mean, rtol=1e-4, atol=1e-5)


def test_variance_only_keeps_the_means():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].running_mean.fill_(0.25)
    means = [model[0].running_mean.clone(), model[2].running_mean.clone()]
    x = noise(300, 3) * 2
    result = recalibrate(model, x.split(50), variance_only=True, method="stages")
    assert torch.equal(model[0].running_mean, means[0])
    assert torch.equal(model[2].running_mean, means[1])
    torch.testing.assert_close(model[0].running_var, x.var(0))
    model.eval()
    torch.testing.assert_close(model[2].running_var, model[1](model[0](x)).var(0))
    assert all(move.mean_move == 0 for move in result.moved)


def test_only_the_statistics_change_and_undo_brings_them_back():
    torch.manual_seed(1)
    model = Deep()
    before = snapshot(model)
    result = recalibrate(model, [noise(16, 12, 5, 5) * 3])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.endswith(("running_mean", "running_var")) for name in changed)
    assert len(result.moved) == 8
    text = str(result)
    assert "blocks.0.0" in text
    assert "variance new/old" in text
    result.undo()
    assert same(model, before)
    result = recalibrate(model, [noise(16, 12, 5, 5) * 3])
    model.double()  # new buffers, as after a move to another device
    result.undo()
    torch.testing.assert_close(model.blocks[0][0].running_var, before["blocks.0.0.running_var"].double())


def test_metric_before_and_after_in_test_mode_and_its_failure():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    x = noise(100, 3) * 4

    def spread(module: nn.Module) -> float:
        assert not any(part.training for part in module.modules())
        return module(x).var().item()

    result = recalibrate(model, [x], metric=spread)
    assert result.metric_before == pytest.approx(16, rel=0.2)
    assert result.metric_after == pytest.approx(1, rel=0.05)
    assert "metric" in str(result)
    assert model.training

    before = snapshot(model)
    calls = []

    def breaks(module: nn.Module) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("no")
        return 0.0

    with pytest.raises(ValueError, match="no"):
        recalibrate(model, [x * 2], metric=breaks)
    assert same(model, before)


def test_batches_of_a_loader_with_labels_dicts_and_a_generator():
    x, labels = noise(60, 3), torch.zeros(60, dtype=torch.int64)
    wanted = x.var(0)
    model = nn.Sequential(nn.BatchNorm1d(3))
    for batches in (
        DataLoader(TensorDataset(x, labels), batch_size=16),
        [{"input": x, "labels": labels}],
        (part for part in x.split(10)),
        [(x, labels)],
        x,
        {"input": x},
    ):
        model[0].reset_running_stats()
        recalibrate(model, batches)
        torch.testing.assert_close(model[0].running_var, wanted)
    with pytest.raises(UsageError, match="only once"):
        recalibrate(model, (part for part in x.split(10)), method="stages")


def test_a_compiled_model_is_seen_as_well():
    inner = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    model = torch.compile(inner, backend="eager")
    x = noise(64, 3)
    model(x)
    recalibrate(model, [x])
    torch.testing.assert_close(inner[1].running_var, x.var(0))


@pytest.mark.parametrize(
    "how", ["bfloat16", "float16", "autocast bfloat16", "autocast float16", "norms float32"]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_and_autocast_find_what_float32_finds(how, layout):
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(8, 4, 3),
        nn.BatchNorm2d(4),
    )
    x = noise(64, 3, 8, 8).to(memory_format=layout)
    exact = copy.deepcopy(model)
    recalibrate(exact, x.split(16))
    dtype = torch.float16 if "float16" in how and "bfloat16" not in how else torch.bfloat16
    if "autocast" not in how:
        model, x = model.to(dtype), x.to(dtype)
    if how == "norms float32":
        model[1].float(), model[5].float()
    with torch.autocast("cpu", dtype=dtype, enabled="autocast" in how):
        recalibrate(model, x.split(16))
    for norm in (1, 5):
        assert model[norm].running_var.dtype == (dtype if how in ("bfloat16", "float16") else torch.float32)
        torch.testing.assert_close(
            model[norm].running_var.float(), exact[norm].running_var, rtol=0.02, atol=0
        )


def test_interrupted_while_it_writes_leaves_the_model_as_it_was(monkeypatch):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    before = snapshot(model)
    copy_, calls = torch.Tensor.copy_, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return copy_(self, *args)

    monkeypatch.setattr(torch.Tensor, "copy_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recalibrate(model, [noise(40, 3) * 3])
    monkeypatch.undo()
    assert len(calls) > 3  # it had begun, and went back
    assert same(model, before)


def test_a_data_parallel_model_runs_unwrapped_under_the_names_inside():
    model = nn.DataParallel(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)))
    x = noise(64, 3)
    assert [move.name for move in recalibrate(model, [x]).moved] == ["1"]
    torch.testing.assert_close(model.module[1].running_var, x.var(0))
    model.module.eval()  # which the wrapper does not notice
    around = torch.compile(model, backend="eager")  # and with a wrapper around the wrapper
    recalibrate(around, [2 * x])
    torch.testing.assert_close(model.module[1].running_var, (2 * x).var(0))
    for name in ("1", "module.1"):  # as reports call it, and as the wrapper does
        with pytest.raises(MeasureError, match="skipped"):
            recalibrate(model, [x], skip=[name])


def test_bad_usage_says_what_to_do():
    for call in (
        lambda: recalibrate(nn.Linear(2, 2), [noise(4, 2)]),
        lambda: recalibrate(Deep(), 5),
        lambda: recalibrate(Deep(), [], skip=["nowhere"]),
        lambda: recalibrate(nn.LazyBatchNorm1d(), [noise(4, 2)]),
        lambda: recalibrate(nn.BatchNorm1d(2, track_running_stats=False), [noise(4, 2)]),
        lambda: recalibrate(Deep().to("meta"), [noise(4, 12, 4, 4)]),
        lambda: recalibrate(Deep(), [noise(4, 12, 4, 4)], device="meta"),
        lambda: recalibrate(Deep(), [noise(4, 12, 4, 4)], device="toaster"),
        lambda: recalibrate(Deep(), [noise(4, 12, 4, 4)], metric=lambda model: None),
        lambda: recalibrate(Deep(), [noise(4, 12, 4, 4)], metric=lambda model: noise(2)),
    ):
        with pytest.raises(DropoutLintError) as caught:
            call()
        assert caught.value.hint


def _rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(folder, "store").as_uri(), rank=rank, world_size=world)
    try:
        torch.manual_seed(0)
        model = Deep(blocks=2)
        x = noise(60, 12, 5, 5) * 2 + 100
        # uneven: one rank reads four batches, the other one
        part = (x[:40].split(10), [x[40:]])[rank]
        recalibrate(model, part, method="stages")
        assert drift(model, x) < 1e-3
        # DDP would wait for the other rank at every batch, and their numbers differ
        around = torch.compile(nn.parallel.DistributedDataParallel(model), backend="eager")
        recalibrate(around, part, method="stages")
        assert drift(model, x) < 1e-3
        before = snapshot(model)
        with pytest.raises((OSError, MeasureError)):
            recalibrate(model, Failing() if rank == 1 else [x])
        assert same(model, before)
        Path(folder, f"passed-{rank}").touch()
        # the wrapper holds the process group, whose threads must end before the process does
        del around
        torch.compiler.reset()
        gc.collect()
        dist.barrier()
    finally:
        dist.destroy_process_group()


def test_ranks_are_merged_and_fail_together(tmp_path):
    multiprocessing.spawn(_rank, args=(2, str(tmp_path)), nprocs=2)
    assert len(list(tmp_path.glob("passed-*"))) == 2


def test_a_lint_knows_statistics_that_were_taken_with_dropout_off() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 3))
    batches = [torch.randn(64, 8) for _ in range(8)]
    for x in batches:
        net.train()(x)
    codes = [finding.code for finding in dl.lint(net, batches[0]).findings]
    assert {"DL101", "DL501"} <= set(codes)
    report = dl.recalibrate(net, batches)
    after = dl.lint(net, batches[0])
    assert [shift.delta for shift in after.predictions] == [1.0]
    assert not {"DL101", "DL501"} & {finding.code for finding in after.findings}
    assert list(net.state_dict()) == list(nn.Sequential(*copy.deepcopy(list(net))).state_dict())
    net.train()(batches[0])  # other statistics again
    assert {"DL101", "DL501"} <= {finding.code for finding in dl.lint(net, batches[0]).findings}
    report.undo()
    assert {"DL101", "DL501"} <= {finding.code for finding in dl.lint(net, batches[0]).findings}
