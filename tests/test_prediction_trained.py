"""What weights and norms do to masks on their way, trained ones above all, against networks that are run."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import pytest
import torch
from brute_force import deltas, measured, predicted, smooth
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.prediction.correlation import whitened
from fixtures.noise import DropPath


def trained_alike(model: nn.Module, x: Tensor, passes: int = 8) -> nn.Module:
    """The model with the running statistics of train-mode passes, as a checkpoint holds them."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        model.train()
        for _ in range(passes):
            model(x)
    return model


class Paths(nn.Module):
    """Residual blocks that drop whole samples: of everything, skip and branch, or of the branch alone. The
    weights add up what channels have in common, as trained ones do, and the branches have means.
    """

    def __init__(self, p: float, everything: bool, blocks: int = 4, width: int = 32) -> None:
        super().__init__()
        self.everything = everything
        self.stem = nn.Linear(8, width)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(blocks + 1))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.drops = nn.ModuleList(DropPath(p) for _ in range(blocks))
        for layer in self.layers:
            layer.weight.data.add_(torch.randn(width, 1) @ torch.randn(1, width) / width)
            nn.init.normal_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer, drop in zip(self.norms, self.layers, self.drops, strict=False):
            x = drop(x) if self.everything else x
            branch = layer(norm(x).relu())
            x = x + (branch if self.everything else drop(branch))
        return self.norms[-1](x)


@pytest.mark.parametrize("everything", [True, False], ids=["everything", "branch"])
@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("p", [0.1, 0.3])
def test_dropping_whole_samples_in_a_trained_network(p: float, seed: int, everything: bool) -> None:
    torch.manual_seed(seed)
    x = torch.randn(4096, 8)
    model = trained_alike(Paths(p, everything), x)
    truth, found = measured(model, x, passes=8), deltas(model, x[:4], basis="checkpoint")
    assert found == pytest.approx(truth, abs=0.03)


class Dense(nn.Module):
    """Bottlenecks of a DenseNet: dropped features are put side by side, and each block reads all of them."""

    def __init__(
        self, drop: Callable[[float], nn.Module], p: float, blocks: int = 4, growth: int = 16
    ) -> None:
        super().__init__()
        widths = [growth * (i + 1) for i in range(blocks)]
        self.stem = nn.Conv2d(3, growth, 1)
        self.first = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.squeeze = nn.ModuleList(nn.Conv2d(width, 2 * growth, 1) for width in widths)
        self.second = nn.ModuleList(nn.BatchNorm2d(2 * growth) for _ in widths)
        self.layers = nn.ModuleList(nn.Conv2d(2 * growth, growth, 1) for _ in widths)
        self.drops = nn.ModuleList(drop(p) for _ in widths)
        for layer in self.layers:
            nn.init.normal_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first, squeeze, second, layer, drop in zip(
            self.first, self.squeeze, self.second, self.layers, self.drops, strict=True
        ):
            x = torch.cat([x, drop(layer(second(squeeze(first(x).relu())).relu()))], 1)
        return x


@pytest.mark.parametrize("drop", [nn.Dropout, nn.Dropout2d, DropPath])
@pytest.mark.parametrize("basis", ["weights", "checkpoint"])
@pytest.mark.parametrize("seed", [0, 1])
def test_masks_of_several_dropouts_side_by_side(drop: type[nn.Module], basis: str, seed: int) -> None:
    """What ReLU makes of a channel depends on the mask that is pending there, not on those beside it."""
    torch.manual_seed(seed)
    x = smooth(512, 3, 4, 4)
    model = trained_alike(Dense(drop, 0.3), x)
    truth, found = measured(model, x, passes=8), deltas(model, x[:4], basis=basis)
    assert found == pytest.approx(truth, abs=0.05)
    assert statistics.fmean(found.values()) == pytest.approx(statistics.fmean(truth.values()), abs=0.015)


class AddedTo(nn.Module):
    """A dropped and a clean part side by side, and a skip that is added to both."""

    def __init__(self) -> None:
        super().__init__()
        self.clean, self.dropped, self.skip = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(3, 16, 1)
        self.drop, self.out, self.norm = nn.Dropout(0.3), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.clean(x)
        y = torch.cat([y, self.drop(self.dropped(y))], 1)
        return self.norm(self.out((y + self.skip(x)).relu()))


@pytest.mark.parametrize("basis", ["weights", "checkpoint"])
def test_masks_of_some_channels_at_an_add(basis: str) -> None:
    torch.manual_seed(0)
    x = smooth(512, 3, 4, 4)
    model = trained_alike(AddedTo(), x)
    found = predicted(model, x[:4], basis=basis)
    assert not found.fallbacks
    assert found.norms[0].delta == pytest.approx(measured(model, x, passes=8)["norm"], abs=0.03)


@pytest.mark.parametrize("basis", ["weights", "checkpoint"])
def test_channel_masks_ahead_of_filters_that_smooth(basis: str) -> None:
    """Neighbouring positions lose a channel together, and such a filter adds them up before it is squared."""
    torch.manual_seed(0)
    filters = nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular")
    filters.weight.data.add_(3 * filters.weight.data.mean((2, 3), keepdim=True))
    features = (nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32))
    x = smooth(512, 3, 16, 16)
    model = trained_alike(nn.Sequential(*features, nn.Dropout2d(0.5), filters, nn.BatchNorm2d(32)), x)
    truth, found = measured(model, x, passes=8), deltas(model, x[:4], basis=basis)
    assert found["4"] == pytest.approx(truth["4"], abs=0.06)


def test_average_pooling_behind_norms_that_whiten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A norm makes filters that tell neighbours apart as loud as the others, so less of what is pooled is the
    same at all positions. Through three layers it matters that these inputs are equally loud everywhere.
    """
    monkeypatch.setattr("dropout_lint.prediction.ledger.INPUT_ENERGY_VARIANCE", 0.0)
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width in (3, 16, 16, 16):
        layers += [nn.Conv2d(width, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    pooled = (nn.Dropout(0.5), nn.AvgPool2d(4), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
    model, x = nn.Sequential(*layers, *pooled), smooth(512, 3, 16, 16)
    assert deltas(model, x[:4], basis="weights")["15"] == pytest.approx(measured(model, x, 8)["15"], abs=0.05)


@pytest.mark.parametrize("channels", [3, 16])
def test_correlation_behind_a_norm(channels: int) -> None:
    """Against filters of random weights, each output divided by its own deviation."""
    torch.manual_seed(0)
    y = F.conv2d(smooth(256, channels, 16, 16), torch.randn(256, channels, 3, 3))
    y = y - y.mean((0, 2, 3), keepdim=True)
    variance = y.square().mean((0, 2, 3))
    before = np.exp(-5 * 2.0 ** np.arange(8) / 16)
    after = whitened(before, (3, 3), float(variance.var() / variance.mean() ** 2))
    for place, step in enumerate((1, 2, 4)):
        found = ((y[..., step:] * y[..., :-step]).mean((0, 2, 3)) / variance).mean()
        assert after[place] == pytest.approx(float(found), abs=0.02)


@pytest.mark.parametrize("drop", [nn.AlphaDropout, nn.Dropout], ids=["alpha", "plain"])
@pytest.mark.parametrize("loud", [1.0, 3.0])
def test_masks_that_pass_on_less_than_the_mean(drop: type[nn.Module], loud: float) -> None:
    """Alpha dropout multiplies what it keeps by a < 1 and never by 1/keep, so test mode is larger."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(30, 64)]
    for _ in range(2):
        layers += [nn.SELU(), drop(0.3), nn.Linear(64, 64), nn.BatchNorm1d(64)]
    model, x = nn.Sequential(*layers, nn.SELU(), nn.Linear(64, 2)), torch.randn(1024, 30)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.weight.data.mul_(loud)
    label, optimizer = ((x[:, :2] ** 2).sum(1) > 2).long(), torch.optim.Adam(model.parameters(), 1e-3)
    for batch in torch.randint(0, 1024, (200, 128)):
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), label[batch]).backward()
        optimizer.step()
    true = measured(trained_alike(model, x, 16), x)
    assert deltas(model, x) == pytest.approx(true, abs=0.06)
