"""Norms that forget, at once by their momentum (DL503) or twice a step in a checkpointed block (DL504), and
norms whose stored variance is off (DL501).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from brute_force import Averaged
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import dropout_lint as dl

X = torch.randn(8, 4)


def found(model: nn.Module, x: torch.Tensor = X) -> list[tuple[str, str]]:
    return [
        (finding.code, finding.norm.name)
        for finding in dl.lint(model, x).findings
        if finding.norm and finding.code in ("DL503", "DL504")
    ]


class Checkpointed(nn.Module):
    """A stem, and a block that is checkpointed in the way that is asked for."""

    def __init__(self, how: Callable[..., torch.Tensor], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.outside = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.block = nn.Sequential(nn.Linear(4, 4), norm or nn.BatchNorm1d(4), nn.ReLU())
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outside(self.how(self.block, self.stem(x)))


WAYS: dict[str, Callable[..., torch.Tensor]] = {
    "reentrant": lambda block, x: checkpoint(block, x, use_reentrant=True),
    "non-reentrant": lambda block, x: checkpoint(block, x, use_reentrant=False),
    "sequential": lambda block, x: checkpoint_sequential(block, 1, x, use_reentrant=False),
    "plain": lambda block, x: block(x),
    "on forward": lambda block, x: checkpoint(block.forward, x, use_reentrant=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_training_updates_twice_is_what_is_found(way: str) -> None:
    model = Checkpointed(WAYS[way])
    names = [name for code, name in found(model) if code == "DL504"]
    model(X).sum().backward()  # type: ignore[no-untyped-call]
    norms = {name: part for name, part in model.named_modules() if isinstance(part, nn.BatchNorm1d)}
    assert names == [name for name, norm in norms.items() if norm.num_batches_tracked == 2]
    assert len(names) == (way not in ("plain", "sequential"))  # the last segment runs once


class Careful(Checkpointed):
    """It checkpoints where there is something to learn, as torchvision's DenseNet does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if self.training and any(item.requires_grad for item in [x]):
            return self.outside(checkpoint(self.block, x, use_reentrant=False))
        return self.outside(self.block(x))


@pytest.mark.parametrize("learns", [True, False])
def test_a_checkpoint_that_waits_for_gradients_is_found_where_there_are_any(learns: bool) -> None:
    model = Careful(lambda block, x: x)
    model.stem.requires_grad_(learns)
    assert found(model) == [("DL504", "block.1")] * learns
    model(X).sum().backward()  # type: ignore[no-untyped-call]
    assert [norm.num_batches_tracked for norm in (model.block[1], model.outside)] == [1 + learns, 1]


class Asks(Checkpointed):
    """It does with gradients what a recording, which has none, cannot do, or need not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient)
            x.retain_grad()
            if self.how is torch.autograd.grad:
                torch.autograd.grad(x.sum(), self.stem.weight, create_graph=True)
        return self.outside(self.block(x))


@pytest.mark.parametrize("how", [torch.autograd.grad, torch.relu])
def test_what_a_model_does_with_gradients_does_not_hide_it(how: Callable[..., torch.Tensor]) -> None:
    report = dl.lint(Asks(how), X)
    assert report.target.status == "ok"
    assert {item.norm for item in report.predictions} == {"block.1", "outside"}


@pytest.mark.parametrize("momentum", [0.0, None])
def test_norms_that_count_all_batches_alike_or_none_lose_nothing(momentum: float | None) -> None:
    assert not found(Checkpointed(WAYS["reentrant"], nn.BatchNorm1d(4, momentum=momentum)))


@pytest.mark.parametrize(
    ("norm", "forgets"),
    [
        (nn.BatchNorm1d(4, momentum=0.9997), True),
        (nn.BatchNorm1d(4, momentum=0.9), True),
        (nn.SyncBatchNorm(4, momentum=0.99), True),
        (nn.BatchNorm1d(4, momentum=0.1), False),
        (nn.BatchNorm1d(4, momentum=None), False),
        (nn.BatchNorm1d(4, momentum=0.99, track_running_stats=False), False),
        (nn.LayerNorm(4), False),
    ],
)
def test_a_momentum_that_replaces_the_statistics(norm: nn.Module, forgets: bool) -> None:
    assert found(nn.Sequential(nn.Linear(4, 4), norm)) == [("DL503", "1")] * forgets


def test_a_functional_norm_has_a_momentum_too() -> None:
    class Net(nn.Module):
        def __init__(self, momentum: float) -> None:
            super().__init__()
            self.momentum = momentum
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("variance", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.batch_norm(x, self.mean, self.variance, training=self.training, momentum=self.momentum)

    assert [code for code, _ in found(Net(0.99))] == ["DL503"]
    assert not found(Net(0.1))


def test_a_frozen_norm_forgets_nothing() -> None:
    class Net(nn.Sequential):
        def train(self, mode: bool = True) -> Net:
            super().train(mode)
            self[1].eval()
            return self

    assert not found(Net(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=0.9997)))


def test_they_are_information_and_fail_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), *(nn.BatchNorm1d(4, momentum=0.9997) for _ in range(3)))
    report = dl.lint(model, X)
    assert report.ok
    text = report.to_text()
    assert text.count("info[DL503]") == 1
    assert "momentum 0.9997" in text
    assert "norms  3 of this model: 1, 2, 3" in text
    assert "Δ" not in text  # it is not what is wrong


def test_a_stored_variance_that_is_too_small_is_off_as_well() -> None:
    model = Averaged(16)
    for batch in torch.randn(100, 64, 16):
        model(batch)
    stale = next(
        finding for finding in dl.lint(model, torch.randn(8, 16)).findings if finding.code == "DL501"
    )
    with torch.no_grad():
        tokens = model.ln(model.fc(torch.randn(4096, 16))[:, None].expand(-1, 16, -1)).mean(1)
    true = (tokens.var(0).mean() / model.bn.running_var.mean()).item()
    assert true > 1.5
    assert stale.delta == pytest.approx(true, abs=0.15)
