"""Kinds of networks in which a place was once taken for another one: what is found, through `dl.lint`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropout_lint as dl

Found = list[tuple[str, str | None, str | None]]


def found(model: nn.Module, x: Tensor) -> Found:
    """Code, dropout and position of each finding."""
    return [
        (finding.code, finding.dropout and finding.dropout.name, finding.position)
        for finding in dl.lint(model, x).findings
    ]


class Gated(nn.Module):
    """x → operation with a dropout → linear → norm → classifier."""

    def __init__(self, operation: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.operation, self.drop = operation, nn.Dropout(0.5)
        self.layer, self.norm, self.head = nn.Linear(16, 64), nn.BatchNorm1d(64), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.layer(self.operation(x, self.drop)))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, drop: drop(torch.ones_like(x)) * x,
        lambda x, drop: drop((x > 0).float()),
        lambda x, drop: drop(torch.full_like(x, 2.0)) * x,
    ],
    ids=["ones", "signs", "constant map"],
)
def test_dropout_of_what_an_input_only_decides_has_its_finding(
    operation: Callable[[Tensor, nn.Module], Tensor],
) -> None:
    assert ("DL102", "drop") in [
        (code, name) for code, name, _ in found(Gated(operation), torch.randn(4, 16))
    ]


def deep(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in (width, 64):
        layers += [nn.Linear(size, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(64, 1))


class WideAndDeep(nn.Module):
    def __init__(self, interactions: bool) -> None:
        super().__init__()
        self.table, self.wide, self.deep = nn.Embedding(50, 8), nn.Embedding(50, 1), deep(40)
        self.interactions = interactions

    def forward(self, x: Tensor) -> Tensor:
        e = self.table(x)
        y = self.deep(e.flatten(1)) + self.wide(x).sum(1)
        if self.interactions:
            y = y + 0.5 * (e.sum(1) ** 2 - (e**2).sum(1)).sum(1, keepdim=True)
        return torch.sigmoid(y)


@pytest.mark.parametrize("interactions", [False, True], ids=["wide and deep", "factorisation machine"])
def test_a_sum_of_logits_is_no_residual_block(interactions: bool) -> None:
    inside = found(WideAndDeep(interactions), torch.randint(0, 50, (4, 5)))
    assert inside == [("DL102", "deep.3", "H1")]


def test_a_block_alone_is_still_a_residual_block() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5))
            self.last = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.last(self.body(x))  # type: ignore[no-any-return]  # a module's call is Any

    inside = {name: position for _, name, position in found(Block(), torch.randn(4, 16))}
    assert inside == {"body.3": "P6", "last.1": "P7"}


class Postnet(nn.Module):
    """A dense predictor: conv → norm → dropout at the output, perhaps as a correction of its input."""

    def __init__(self, corrects: bool, width: int = 20) -> None:
        super().__init__()
        self.corrects = corrects
        self.first = nn.Sequential(nn.Conv1d(20, 64, 5, padding=2), nn.BatchNorm1d(64), nn.Tanh())
        self.last = nn.Sequential(nn.Conv1d(64, width, 5, padding=2), nn.BatchNorm1d(width), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x))
        return x + y if self.corrects else y


@pytest.mark.parametrize("corrects", [False, True])
def test_dropout_on_a_dense_prediction_is_on_the_predictions(corrects: bool) -> None:
    assert found(Postnet(corrects), torch.randn(4, 20, 30)) == [("DL302", "last.2", "H6")]


def test_features_of_an_encoder_are_no_predictions() -> None:
    assert found(Postnet(False, width=64), torch.randn(4, 20, 30)) == []


class Pooled(nn.Module):
    def __init__(self, pool: Callable[[Tensor], Tensor], drop: nn.Module, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
        self.pool, self.drop, self.head = pool, drop, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.pool(self.stem(x))).flatten(1))  # type: ignore[no-any-return]


POOLS: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module, int]] = {
    "a channel's mask": (lambda x: F.adaptive_avg_pool2d(x, 1), nn.Dropout2d(0.5), 32),
    "mean + max": (lambda x: x.mean((2, 3)) + x.amax((2, 3)), nn.Dropout(0.5), 32),
    "mean beside max": (lambda x: torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1), nn.Dropout(0.5), 64),
}


@pytest.mark.parametrize("name", POOLS)
def test_global_pooling_in_other_writings_is_global_pooling(name: str) -> None:
    pool, drop, width = POOLS[name]
    model, x = Pooled(pool, drop, width), torch.randn(2, 3, 12, 12)
    assert found(model, x) == [("DL301", "drop", "H5")]
    fixed = dl.fix(model, x)
    torch.testing.assert_close(fixed.model.eval()(x), model.eval()(x))


class DenseBlock(nn.Module):
    """Each layer adds eight channels, dropped, to 256 that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 256, 3), nn.Sequential(nn.BatchNorm2d(288), nn.ReLU())
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(256 + 8 * i),
                nn.ReLU(),
                nn.Conv2d(256 + 8 * i, 8, 3, padding=1),
                nn.Dropout(0.2),
            )
            for i in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x)  # type: ignore[no-any-return]  # a module's call is Any


def test_a_small_part_of_a_concat_is_judged_by_its_own_channels() -> None:
    report = dl.lint(DenseBlock(), torch.randn(2, 3, 10, 10))
    assert all(shift.delta is not None and shift.delta > 0.95 for shift in report.predictions)
    places = [(finding.code, finding.dropout and finding.dropout.name) for finding in report.findings]
    assert places == [("DL101", f"layers.{i}.3") for i in range(4)]
    assert all("on the channels that it feeds" in finding.message for finding in report.findings)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_mask_whose_mean_is_another_one_in_test_mode_has_a_finding(scaled: bool) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(x)
            if self.training:
                x = x * (torch.rand_like(x) < 0.8) / (0.8 if scaled else 1.0)
            return self.head(x)  # type: ignore[no-any-return]  # a module's call is Any

    assert [code for code, *_ in found(Masked(), torch.randn(4, 16))] == ([] if scaled else ["DL407"])
