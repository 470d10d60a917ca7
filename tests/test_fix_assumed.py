"""Fixed graphs hold one way through a model: where it would take another, they fail or are not made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dropout_lint as dl
from dropout_lint.fixes.plan.steps import Fixed


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.drop = nn.Dropout(0.4)
        self.bn = nn.BatchNorm1d(16)
        self.last = nn.Linear(16, 3)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("average", torch.zeros(16))

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.drop(self.first(x))).relu()
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.body(x))
        return out


class ByValue(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        out: Tensor = self.last(h)
        return out * 10 if h.mean() > 0.5 else out


class BySize(Net):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out * 10 if x.shape[0] > 32 else out


class ByLength(Net):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out * 10 if len(x) > 32 else out


class Counting(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        return super().forward(x)


class Averaging(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        if self.training:
            self.average = 0.9 * self.average + 0.1 * h.detach().mean(0)
        out: Tensor = self.last(h)
        return out


class Scaled(Net):
    def forward(self, x: Tensor, scale: float = 1.0, mode: str = "plain") -> Tensor:
        out = super().forward(x) * scale
        return out if mode == "plain" else -out


def fixed(net: nn.Module, *inputs: object) -> Fixed:
    found = dl.fix(net, inputs if len(inputs) > 1 else inputs[0])
    assert found.applied
    net.eval()
    found.model.eval()
    return found


@pytest.mark.parametrize("kind", [ByValue, BySize, ByLength])
def test_another_way_through_the_model_is_taken_or_refused(kind: type[Net]) -> None:
    net, x = kind(), torch.randn(4, 8)
    result = fixed(net, x)
    for other in (x * 1000, torch.randn(40, 8), torch.randn(1, 8)):
        try:
            out = result.model(other)
        except AssertionError as error:
            assert kind is BySize and len(other) == 40
            assert "recorded with a size of 4 not > 32" in str(error)
        else:
            assert torch.equal(out, net(other))


@pytest.mark.parametrize("kind", [Counting, Averaging])
def test_buffers_change_as_in_the_model(kind: type[Net]) -> None:
    net, x = kind(), torch.randn(4, 8)
    result = fixed(net, x)
    result.model(x)
    assert result.model.count == 0 and not result.model.average.any()
    result.model.train()
    result.model(x)
    assert bool(result.model.count) == (kind is Counting)
    assert bool(result.model.average.any()) == (kind is Averaging)


def test_arguments_that_are_no_tensors_are_not_taken_in_silence() -> None:
    x = torch.randn(4, 8)
    model = fixed(Scaled(), x, 2.0).model
    assert torch.equal(model(x, 2.0), model(x, scale=2.0))
    with pytest.raises(AssertionError, match=r"recorded with scale = 2\.0"):
        model(x, 5.0)
    with pytest.raises(AssertionError, match=r"recorded with scale = 2\.0"):
        model(x)


def test_assertions_of_the_model_itself_stay_what_they_were() -> None:
    class Asserting(Net):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1] == 8 and x.shape[0] >= 1
            return super().forward(x)

    net = Asserting()
    model = fixed(net, torch.randn(4, 8)).model
    other = torch.randn(7, 8)
    assert torch.equal(model(other), net(other))
    assert sum(node.target is torch._assert for node in model.graph.nodes) == 2
