"""Monte-Carlo averaging: dropout on, norms in test mode, one large pass instead of many."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dropout_lint.errors import DropoutLintError, MeasureError, UsageError
from dropout_lint.remedies.monte_carlo import dropout_on, monte_carlo
from dropout_lint.remedies.uout import Uout


class Functional(nn.Module):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.norm(x), self.p, self.training)


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_on_norms_are_in_test_mode_and_modes_come_back(training):
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), Functional(), Uout(0.5)).train(training)
    model[0].train(not training)
    before = modes(model)
    statistics = model[0].running_mean.clone()
    x = torch.randn(40, 6)
    with dropout_on(model) as switch:
        first, second = model(x), model(x)
        assert not model[0].training
        assert not model[2].norm.training
    assert not torch.equal(first, second)
    assert switch.draws == 6
    assert torch.equal(model[0].running_mean, statistics)
    assert modes(model) == before
    with pytest.raises(RuntimeError), dropout_on(model):
        model(torch.randn(4, 7))
    assert modes(model) == before
    assert torch.equal(model.eval()(x), model(x))


def test_mean_and_spread_are_those_of_dropout():
    torch.manual_seed(0)
    model = Functional(p=0.25).eval()
    x = torch.rand(5, 6) + 1
    result = monte_carlo(model, x, 20_000)
    out = model(x)
    assert result.samples == 20_000
    assert result.mean.shape == result.std.shape == (5, 6)
    torch.testing.assert_close(result.mean, out, rtol=0.03, atol=0)
    torch.testing.assert_close(result.std, out * (0.25 / 0.75) ** 0.5, rtol=0.03, atol=0)


def test_one_pass_over_a_batch_that_many_times_larger():
    seen = []

    class Watch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return F.dropout(x, 0.5, self.training)

    model = Watch()
    monte_carlo(model, torch.randn(4, 3), 50)
    # the first two, in test mode, look whether samples are independent; the next three for all noise
    assert seen == [4, 8, 4, 4, 8, 200]
    seen.clear()
    monte_carlo(model, torch.randn(4, 3), 50, chunk=20)
    assert seen == [80, 80, 40]  # what was found is remembered


def test_chunks_give_the_same_moments():
    torch.manual_seed(1)
    x = torch.randn(3, 6) + 5
    whole = monte_carlo(Functional(), x, 4000)
    cut = monte_carlo(Functional(), x, 4000, chunk=7)
    torch.testing.assert_close(cut.mean, whole.mean, rtol=0.1, atol=0)
    torch.testing.assert_close(cut.std, whole.std, rtol=0.1, atol=0)


def test_a_mask_for_the_whole_batch_gets_one_pass_each():
    class StochasticDepth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p, self.mode = 0.5, "batch"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.empty(1).bernoulli_(0.5) / 0.5 if self.training else x

    torch.manual_seed(2)
    result = monte_carlo(nn.Sequential(StochasticDepth()), torch.ones(3, 2), 200)
    assert 0.7 < result.mean[0, 0] < 1.3
    assert result.std.min() > 0.9


def test_transform_nested_outputs_and_shared_arguments():
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> dict[str, object]:
            y = F.dropout(x, 0.5, self.training)
            return {"logits": y * scale, "pair": (y, "name")}

    torch.manual_seed(3)
    x = torch.randn(4, 3)
    result = monte_carlo(Two(), (x, torch.tensor(2.0), "a label"), 3000)
    torch.testing.assert_close(result.mean["logits"], 2 * x, rtol=0.2, atol=0.15)
    assert result.mean["pair"][1] == "name"
    probabilities = monte_carlo(
        Two(), {"x": x, "scale": torch.tensor(1.0)}, 50, transform=lambda out: out["logits"].softmax(-1)
    )
    torch.testing.assert_close(probabilities.mean.sum(-1), torch.ones(4))


def test_attention_and_recurrent_dropout_draw_too():
    torch.manual_seed(4)
    for model in (
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True),
        nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True),
    ):
        result = monte_carlo(
            model, torch.randn(3, 5, 8), 8, transform=lambda out: out[0] if isinstance(out, tuple) else out
        )
        assert result.std.max() > 1e-3


class Guarded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Module()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = F.dropout(x, 0.5, self.training)
        return self.norm(x)


def test_nothing_that_draws_is_an_error_with_a_way_out():
    x = torch.randn(4, 3)
    for silent in (nn.Linear(3, 3), nn.Dropout(0.0), Functional(0.0).train()):
        with pytest.raises(MeasureError, match="drew") as caught:
            monte_carlo(silent, torch.randn(4, 6) if isinstance(silent, Functional) else x, 3)
        assert "also" in caught.value.hint
    for also in ([""], []):  # a call behind the mode is found without it, too
        assert monte_carlo(Guarded(), x, 30, also=also).std.max() > 0.1


def test_bad_usage():
    x = torch.randn(4, 6)
    for call, kind in (
        (lambda: monte_carlo(Functional(), x, 3, also=["nowhere"]), UsageError),
        (lambda: monte_carlo(Functional(), x, 3, also=["norm"]), UsageError),
        (lambda: monte_carlo(Functional(), "text", 3), MeasureError),
        (lambda: monte_carlo(Functional(), x, 3, transform=torch.sum), MeasureError),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert isinstance(caught.value, DropoutLintError)
        assert caught.value.hint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_averaged_in_float32(dtype):
    x = torch.randn(4, 6)
    result = monte_carlo(Functional().to(dtype), x.to(dtype), 50)
    assert result.mean.dtype == result.std.dtype == torch.float32
    with torch.autocast("cpu", dtype=dtype):
        result = monte_carlo(nn.Sequential(Functional(), nn.Linear(6, 2)), x, 50, chunk=20)
    assert result.mean.dtype == torch.float32
    assert result.std.min() > 0


def test_a_compiled_model_draws_too():
    model = Functional().eval()
    compiled = torch.compile(model, backend="eager")
    compiled(torch.randn(4, 6))
    assert monte_carlo(compiled, torch.randn(4, 6), 20).std.max() > 0.1


def test_a_single_sample_has_no_spread():
    result = monte_carlo(Functional(), torch.randn(4, 6), 1)
    assert (result.std == 0).all()
