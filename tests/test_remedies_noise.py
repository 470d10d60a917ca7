"""Monte-Carlo averaging makes all the noise of train mode, however it is written, with norms in test mode."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropout_lint as dl

X = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) + 0.5
TOKENS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


class Behind(nn.Module):
    """A call behind the mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.4) if self.training else x


class BehindModule(nn.Module):
    """A module that only train mode calls."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x) if self.training else x


class Handed(nn.Module):
    """The mode of the holder decides, and is handed down."""

    class Inner(nn.Module):
        def forward(self, x: torch.Tensor, training: bool) -> torch.Tensor:
            return F.dropout(x, 0.4) if training else x

    def __init__(self) -> None:
        super().__init__()
        self.inner = Handed.Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, self.training)


class Mask(nn.Module):
    """A mask by hand."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand_like(x) > 0.4) / 0.6 if self.training else x


class Added(nn.Module):
    """Noise that is added."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.3 * torch.randn_like(x) if self.training else x


class Connect(nn.Module):
    """Weights that are dropped: the same for all samples of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, F.dropout(self.weight, 0.4, self.training))


class Chance(nn.Module):
    """Python decides, for all samples of a batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if self.training and random.random() < 0.5 else x


class Ratio(nn.Module):
    """Attention whose ratio is 0 in test mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.4 if self.training else 0.0)


class BesideNorm(nn.Module):
    """A functional norm in the module whose mode decides."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((6,), 0.7))
        self.register_buffer("variance", torch.full((6,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.batch_norm(x, self.mean, self.variance, training=self.training)
        return x + torch.randn_like(x) if self.training else x


class Attention(nn.Module):
    """nn.MultiheadAttention with nothing else that drops."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


@contextmanager
def all_but_norms(model: nn.Module) -> Iterator[None]:
    """Everything in train mode, the running statistics of norms in use and as they were."""
    model.train()
    kept, norm = F.batch_norm, lambda x, mean, variance, *_, **__: kept(x, mean, variance)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    try:
        F.batch_norm = norm
        yield
    finally:
        F.batch_norm = kept


def true_spread(model: nn.Module, x: torch.Tensor, passes: int) -> torch.Tensor:
    with torch.no_grad(), all_but_norms(model):
        return torch.stack([model(x) for _ in range(passes)]).std(0)


MODELS = {
    "behind": (lambda: nn.Sequential(Behind(), nn.BatchNorm1d(6), nn.Linear(6, 3)), X),
    "behind a module": (lambda: nn.Sequential(BehindModule(), nn.BatchNorm1d(6), nn.Linear(6, 3)), X),
    "handed": (lambda: nn.Sequential(nn.Dropout(0.1), Handed(), nn.Linear(6, 3)), X),
    "mask": (lambda: nn.Sequential(nn.Linear(6, 6), Mask()), X),
    "added": (lambda: nn.Sequential(nn.Dropout(0.1), Added()), X),
    "connect": (lambda: nn.Sequential(Connect(), nn.ReLU()), X),
    "chance": (lambda: nn.Sequential(nn.Dropout(0.1), Chance()), X),
    "ratio": (lambda: nn.Sequential(nn.Linear(8, 8), Ratio()), TOKENS),
    "beside a norm": (lambda: nn.Sequential(BesideNorm(), nn.Linear(6, 3)), X),
    "attention": (Attention, TOKENS),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True), TOKENS),
    "recurrent": (
        lambda: nn.Sequential(nn.Dropout(0.1), nn.Flatten(), nn.Unflatten(1, (5, 8)), Mask()),
        TOKENS,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_spread_is_that_of_train_mode(name: str) -> None:
    build, x = MODELS[name]
    torch.manual_seed(1)
    random.seed(1)
    model = build().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    truth = true_spread(model, x, 2000)
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = dl.monte_carlo(model, x, 2000)
    assert not result.left
    assert float(truth.mean()) > 0.01
    assert float(result.std.mean() / truth.mean()) == pytest.approx(1, abs=0.05)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "chance"])
def test_dropout_on_finds_the_same_at_the_first_call(name: str) -> None:
    build, x = MODELS[name]
    torch.manual_seed(1)
    model = build().eval()
    truth = true_spread(model, x, 1000)
    model.eval()
    with torch.no_grad(), dl.dropout_on(model):
        spread = torch.stack([model(x) for _ in range(1000)]).std(0)
    assert float(spread.mean() / truth.mean()) == pytest.approx(1, abs=0.07)
    assert not any(module.training for module in model.modules())
    assert not model._forward_pre_hooks
    assert torch.equal(model(x), model(x))


class Flagged(nn.Module):
    """Noise that hangs on a flag of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.noisy = nn.Dropout(0.1), False

    def train(self, mode: bool = True) -> Flagged:
        self.noisy = mode
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(x)
        return x + torch.randn_like(x) if self.noisy else x


def test_noise_that_cannot_be_switched_on_is_named() -> None:
    model = nn.Sequential(Flagged()).eval()
    with pytest.warns(UserWarning, match=r"could not be switched on: .*randn_like in `0`.*`also`"):
        result = dl.monte_carlo(model, X, 5)
    (left,) = result.left
    assert left.startswith("test_remedies_noise.py:")
    assert not model[0].noisy
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert dl.monte_carlo(model, X, 5).left == result.left
    other = nn.Sequential(Flagged()).eval()
    with pytest.warns(UserWarning, match="dropout_on: noise of"), dl.dropout_on(other):
        other(X)


def test_a_train_mode_that_cannot_be_run_is_said() -> None:
    class NeedsTargets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.4)

        def forward(self, x: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
            if self.training and target is None:
                raise ValueError("targets, please")
            return self.drop(x)

    model = NeedsTargets().eval()
    with pytest.warns(UserWarning, match=r"train mode of NeedsTargets could not be run.*targets, please"):
        result = dl.monte_carlo(model, X, 200)
    assert result.std.mean() > 0.3


def test_a_rate_that_is_changed_between_two_calls_is_seen() -> None:
    model = nn.Sequential(nn.Dropout(0.3), BehindModule()).eval()
    model[1].drop.p = 0.0
    first = dl.monte_carlo(model, X, 500).std.mean()
    model[1].drop.p = 0.5
    assert dl.monte_carlo(model, X, 500).std.mean() > 1.2 * first


def test_the_random_state_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(0.5)).eval()
    results = []
    for _ in range(2):  # the first looks, the second does not
        torch.manual_seed(3)
        results.append(dl.monte_carlo(model, X, 4).mean)
    assert torch.equal(*results)
