"""Monte-Carlo averaging where one large pass cannot stand for many, and outputs of every shape."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dropout_lint.errors import UsageError
from dropout_lint.remedies.monte_carlo import monte_carlo


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.layer = nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        h = self.layer(self.drop(x))
        return h.index_add(0, edge[1], h[edge[0]])


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool = False) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 8, 2, dropout=0.5, batch_first=batch_first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cells(x)[0]


class Centred(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(x, 0.5, self.training)
        return x - x.mean(0)


class Similar(nn.Module):
    """Every row against every row of another tensor, which is as long by accident."""

    def forward(self, x: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5, self.training) @ others.T


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5, self.training) + self.weight


def attention(batch_first: bool = False) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])
DEPENDENT = {
    "graph": (Graph, (torch.randn(6, 8), EDGES)),
    "sequence first, recurrent": (Recurrent, torch.randn(5, 3, 8)),
    "sequence of one, recurrent": (Recurrent, torch.randn(1, 3, 8)),
    "sequence first, attention": (attention, torch.randn(5, 3, 8)),
    "sequence of one, attention": (attention, torch.randn(1, 3, 8)),
    "centred over the batch": (Centred, torch.randn(6, 8)),
    "centred over many": (Centred, torch.randn(5000, 8)),
    "a single sample, centred": (Centred, torch.randn(1, 8)),
    "as long by accident": (Similar, (torch.randn(10, 8), torch.randn(10, 8))),
    "fails on more": (Fixed, torch.randn(6, 8)),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_samples_that_see_each_other_run_one_pass_at_a_time(name):
    torch.manual_seed(0)
    build, batch = DEPENDENT[name]
    model = build()
    with pytest.warns(UserWarning, match="one pass at a time.*chunk=1") as caught:
        torch.manual_seed(1)
        found = monte_carlo(model, batch, 6)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once, and never where it is asked for
        torch.manual_seed(1)
        again = monte_carlo(model, batch, 6)
        torch.manual_seed(1)
        asked = monte_carlo(copy.deepcopy(model), batch, 6, chunk=1)
    assert torch.equal(found.mean, again.mean)
    assert torch.equal(found.mean, asked.mean)
    assert torch.equal(found.std, asked.std)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(
    "model",
    [
        Recurrent(batch_first=True),
        attention(batch_first=True),
        nn.Sequential(nn.Conv1d(5, 6, 3), nn.BatchNorm1d(6), nn.Dropout1d(), nn.Flatten(), nn.Linear(36, 2)),
        nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True), nn.Linear(8, 8)),
    ],
    ids=["recurrent", "attention", "convolution", "in place"],
)
def test_the_look_at_independent_samples_is_silent_and_leaves_no_trace(model, rows):
    model.train()
    seen = []
    hook = model.register_forward_hook(lambda *_: seen.append(model.training))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(rows, 5, 8)
    kept, state = x.clone(), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = monte_carlo(model, x, 3)
        torch.set_rng_state(state)
        second = monte_carlo(model, x, 3)
    hook.remove()
    assert torch.equal(first.mean, second.mean)
    assert len(seen) == 2 + 3 + 1 + 1  # two to look at samples and three at noise, once
    assert model.training
    assert torch.equal(x, kept)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_lazy_model_gets_its_sizes():
    model = nn.Sequential(nn.LazyLinear(4), nn.Dropout())
    assert monte_carlo(model, torch.randn(5, 3), 3).mean.shape == (5, 4)
    assert model[0].weight.shape == (4, 3)


def test_half_precision_is_no_reason_to_run_pass_by_pass():
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Dropout()) for _ in range(6)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monte_carlo(model.bfloat16(), torch.randn(9, 64).bfloat16(), 3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            monte_carlo(model.float(), torch.randn(9, 64), 3)


@dataclasses.dataclass(frozen=True)
class Part:
    value: torch.Tensor
    label: str = "part"
    total: int = dataclasses.field(init=False, default=3)


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    parts: list[Part]

    def __post_init__(self) -> None:
        assert self.logits.dim() == 2


class Structured(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, Output]:
        y = F.dropout(x, 0.5, self.training)
        return {"out": Output(y, [Part(y + 1)])}


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_dataclass_outputs_are_averaged(chunk):
    x = torch.rand(6, 4) + 1
    result = monte_carlo(Structured(), x, 2000, chunk=chunk)
    mean, std = result.mean["out"], result.std["out"]
    assert isinstance(mean, Output)
    assert isinstance(std.parts[0], Part)
    assert mean.parts[0].label == "part"
    torch.testing.assert_close(mean.logits, x, rtol=0.15, atol=0)
    torch.testing.assert_close(mean.parts[0].value, mean.logits + 1)
    torch.testing.assert_close(std.logits, x, rtol=0.15, atol=0)
    torch.testing.assert_close(std.parts[0].value, std.logits)


def test_an_output_without_a_tensor_is_an_error():
    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> object:
            F.dropout(x, 0.5, self.training)
            return object()

    with pytest.raises(UsageError, match="holds no tensor") as caught:
        monte_carlo(Wrapped(), torch.randn(4, 3), 3)
    assert "transform" in caught.value.hint


def test_a_model_without_values_is_refused():
    with pytest.raises(UsageError, match="meta"):
        monte_carlo(nn.Sequential(nn.Linear(3, 3), nn.Dropout()).to("meta"), torch.randn(4, 3), 3)
