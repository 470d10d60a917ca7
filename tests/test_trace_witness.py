"""The witness: which random draws reach which norm, however they get there."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from random import random as chance
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dropout_lint.inputs.example import Inputs
from dropout_lint.trace import Trace, trace

VECTOR = torch.randn(8, 8)
CASES: dict[str, tuple[type[nn.Module], dict[str, set[str]]]] = {}


def case(**reached: set[str]) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a module with the draws that reach its norms; `*` marks those with no dropout on some way."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        CASES[cls.__name__] = (cls, reached)
        return cls

    return register


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.fc2, self.drop = nn.Linear(8, 8), nn.Linear(8, 8), nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(8)

    def noisy(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.fc(x))


@case(bn={"Dropout"})
class IndexAdded(Base):
    def forward(self, x):
        h = self.noisy(x)
        return self.bn(h.new_zeros(h.shape).index_add_(0, torch.arange(8), h))


@case(bn={"Dropout"})
class Scattered(Base):
    def forward(self, x):
        h = self.noisy(x)
        return self.bn(torch.zeros_like(h).scatter_add(0, torch.arange(8)[:, None].expand(8, 8), h))


@case(bn={"Dropout"})
class RowByRow(Base):
    def forward(self, x):
        h = self.noisy(x)
        z = torch.zeros_like(h)
        for i in range(8):
            z[i] = h[i]
        return self.bn(z)


@case(bn={"Dropout"})
class ThroughAView(Base):
    def forward(self, x):
        h = self.noisy(x)
        z = torch.zeros_like(h)
        z[2:].copy_(h[2:])
        return self.bn(z)


@case()
class ShapeAlone(Base):
    def forward(self, x):
        h = self.noisy(x)
        return self.bn(self.fc2(x) + torch.zeros_like(h) + h.new_ones(h.shape)), h


@case()
class Overwritten(Base):
    def forward(self, x):
        h = self.noisy(x).clone()
        h.copy_(self.fc2(x))
        return self.bn(h)


@case(bn={"torch.rand"})
class ShakeShake(Base):
    def forward(self, x):
        a = torch.rand(x.shape[0], 1) if self.training else 0.5
        return self.bn(a * self.fc(x) + (1 - a) * self.fc2(x))


@case(bn={"torch.randn_like"})
class Speckle(Base):
    def forward(self, x):
        h = self.fc(x)
        return self.bn(h * (1 + 0.5 * torch.randn_like(h)) if self.training else h)


@case(bn={"*torch.rand", "Dropout"})
class BesideAProduct(Base):
    def forward(self, x):
        h = self.noisy(x)
        if self.training:
            mask = (torch.rand(8, 8) > 0.5).float()
            h = h * mask * 2 + 0.1 * mask
        return self.bn(h)


@case()
class InEitherMode(Base):
    def forward(self, x):
        return self.bn(self.fc(x) + torch.randn(8, 8))


class Mask(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * torch.empty_like(x).bernoulli_(0.5) / 0.5

    @staticmethod
    def backward(ctx, grad):
        return grad


@case(bn={"Tensor.bernoulli_"})
class InAFunctionOfItsOwn(Base):
    def forward(self, x):
        h = self.fc(x)
        return self.bn(Mask.apply(h) if self.training else h)


@case(bn={"numpy.random.binomial"})
class NumpyMask(Base):
    def forward(self, x):
        h = self.fc(x)
        if self.training:
            h = h * torch.from_numpy(np.random.binomial(1, 0.5, (8, 8))).float()
        return self.bn(h)


@case(bn={"*numpy.Generator.random"})
class OwnGenerator(Base):
    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng()

    def forward(self, x):
        h = self.fc(x)
        return self.bn(h * float(self.rng.random()) if self.training else h)


@case(bn={"Dropout"})
class ByChance(Base):
    def forward(self, x):
        if self.training and random.random() < 0.3:
            return x
        return self.bn(self.noisy(x))


@case(bn={"random.random"})
class ImportedByName(Base):
    def forward(self, x):
        h = self.fc(x)
        return self.bn(-h if self.training and chance() < 0.3 else h)


@case(bn={"*random.random"})
class OneOfTwoWays(Base):
    def forward(self, x):
        h = self.fc(x)
        return self.bn(h.tanh() if self.training and chance() < 0.3 else h * 2)


@case(bn={"torch.bernoulli"})
class ValueInPython(Base):
    def forward(self, x):
        h = self.fc(x)
        return self.bn(h * float(torch.bernoulli(torch.tensor(0.5))) if self.training else h)


class Gate(nn.Module):
    def forward(self):
        return self.training and random.random() < 0.5


@case(bn={"*random.random"})
class InAGate(Base):
    def __init__(self):
        super().__init__()
        self.gate, self.clean = Gate(), nn.BatchNorm1d(8)

    def forward(self, x):
        x = self.clean(x)
        return self.bn(self.fc(x) if self.gate() else self.fc2(x))


@case(bn={"*torch.native_dropout"})
class Native(Base):
    def forward(self, x):
        h = self.fc(x)
        return self.bn(torch.native_dropout(h, 0.5, True)[0] if self.training else h)


@case(bn={"LSTM"})
class Recurrent(Base):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.bn(self.lstm(x[:, None])[0][:, -1])


@case()
class AttentionThatDropsNothing(Base):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        mask = torch.zeros(len(x), 1, dtype=torch.bool)
        h, _ = self.attention(*[self.fc(x)[:, None]] * 3, key_padding_mask=mask, need_weights=False)
        return self.bn(h[:, 0])


class AlwaysDrops(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, self.p, True)


@case()
class MonteCarlo(Base):
    def __init__(self):
        super().__init__()
        self.drop = AlwaysDrops(0.5)

    def forward(self, x):
        return self.bn(self.noisy(x))


def traced(name: str) -> Trace:
    return trace(CASES[name][0](), Inputs((VECTOR,)))


@case(bn={"*torch.bernoulli"})
class RowByRowOfVmap(Base):
    def forward(self, x):
        return self.bn(self.fc2(torch.vmap(self.drop, randomness="different")(self.fc(x))))


@case(bn={"*torch.bernoulli"})
class FunctionOfVmap(Base):
    def forward(self, x):
        def row(value):
            return F.dropout(value, 0.5, self.training)

        return self.bn(torch.func.vmap(row, randomness="different")(self.fc(x)))


@case(bn={"*torch.bernoulli"})
class SlopeOfFunc(Base):
    def forward(self, x):
        return self.bn(torch.func.grad(lambda value: self.noisy(value).tanh().sum())(x))


@case(bn={"F.dropout"})
class DroppedRecurrentWeights(Base):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.raw = self.rnn._parameters.pop("weight_hh_l0")

    def forward(self, x):
        self.rnn.weight_hh_l0 = F.dropout(self.raw, 0.5, self.training)
        return self.bn(self.rnn(x[:, None])[0][:, 0])


@pytest.mark.parametrize("name", CASES)
def test_draws_reach_the_norms_that_they_really_reach(name: str) -> None:
    found = traced(name)
    seen = {
        site.name: {
            ("*" if arrival.beside else "") + arrival.draw.split()[1] for arrival in found.draws[site.node]
        }
        for site in found.norms
        if site.node in found.draws
    }
    assert seen == CASES[name][1]


@pytest.mark.parametrize(
    "name", ["IndexAdded", "Speckle", "RowByRow", "BesideAProduct", "AttentionThatDropsNothing"]
)
def test_it_sees_the_same_on_real_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dropout_lint.trace import chain

    monkeypatch.setattr(chain, "Materials", chain.Real)
    found = traced(name)
    seen = {
        ("*" if arrival.beside else "") + arrival.draw.split()[1]
        for arrivals in found.draws.values()
        for arrival in arrivals
    }
    assert seen == CASES[name][1].get("bn", set())


def test_a_draw_names_its_line() -> None:
    (arrivals,) = traced("Speckle").draws.values()
    lines = Path(__file__).read_text().splitlines()
    file, line = arrivals[0].draw.split()[0].split(":")
    assert file == "test_trace_witness.py" and "randn_like" in lines[int(line) - 1]


def test_what_chance_decides_is_noted() -> None:
    (note,) = traced("OneOfTwoWays").notes
    assert "random.random" in note and "one outcome" in note
    (note,) = traced("ByChance").notes
    assert "random.random leaves 1 layer out (p = 0.3)" in note


@pytest.mark.parametrize(
    "name", ["ByChance", "ImportedByName", "OneOfTwoWays", "OwnGenerator", "InAGate", "NumpyMask"]
)
def test_a_recording_is_the_same_each_time_and_leaves_chance_alone(name: str) -> None:
    model = CASES[name][0]()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    graphs = []
    for _ in range(6):
        found = trace(model, Inputs((VECTOR,)))
        graphs.append((str(found.graph), found.notes))
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        assert after == before
        random.random(), np.random.rand(), torch.rand(1)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert len(set(graphs)) == 1
    assert chance.__self__ is random._inst, "the functions are put back"


@functools.lru_cache
def halves(size: int) -> tuple[int, int]:
    return size // 2, size - size // 2


class CachedSizes(Base):
    def forward(self, x):
        low, high = halves(x.shape[1])
        return self.bn(self.drop(torch.cat([x[:, :low], x[:, -high:]], 1)).view(-1, low + high))


def test_a_size_that_another_recording_left_in_a_cache_is_none_of_this_one() -> None:
    graphs = []
    for batch in (8, 8, 6):
        found: Any = trace(CachedSizes(), Inputs((torch.randn(batch, 8),)))
        found.graph.lint()
        assert [len(arrivals) for arrivals in found.draws.values()] == [1]
        graphs.append(str(found.graph))
    assert graphs == [graphs[0]] * 3 and "size" in graphs[0]


class AlwaysBatch(nn.BatchNorm1d):
    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


class NeverBatch(nn.BatchNorm1d):
    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False)


@pytest.mark.parametrize(
    ("norm", "shifts"), [(nn.BatchNorm1d, True), (AlwaysBatch, False), (NeverBatch, False)]
)
def test_a_norm_with_a_rule_of_its_own_shifts_by_that_rule(norm: type[nn.Module], shifts: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), norm(8))
    (site,) = trace(model, Inputs((VECTOR,))).norms
    assert site.spec.shifts is shifts


def test_a_norm_that_test_mode_never_calls_shifts_nothing() -> None:
    class TrainingOnly(Base):
        def __init__(self):
            super().__init__()
            self.always = nn.BatchNorm1d(8)

        def forward(self, x):
            x = self.always(self.noisy(x))
            return (x, self.bn(self.noisy(x))) if self.training else x

    sites = trace(TrainingOnly(), Inputs((VECTOR,))).norms
    assert {site.name: site.spec.shifts for site in sites} == {"always": True, "bn": False}


@pytest.mark.parametrize(
    ("name", "in_test"),
    [("ShakeShake", [False, False]), ("MonteCarlo", [True]), ("IndexAdded", [False])],
)
def test_a_dropout_is_active_in_test_mode_where_it_really_draws(name: str, in_test: list[bool]) -> None:
    assert [site.active_in_eval for site in traced(name).dropouts] == in_test
