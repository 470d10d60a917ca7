"""Inputs that are objects: taken, copied, told in the report, and guessed where their class tells how."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple, TypedDict

import pytest
import torch
from torch import Tensor, nn

import dropout_lint as dl
from dropout_lint.errors import InputError


@dataclass
class Plain:
    x: Tensor
    more: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    x: Tensor
    more: list[Tensor]


class Pair(NamedTuple):
    x: Tensor
    more: list[Tensor]


class Slots:
    __slots__ = ("more", "unset", "x")

    def __init__(self, x: Tensor, more: list[Tensor]) -> None:
        self.x, self.more = x, more


class Store(MutableMapping[str, Any]):
    """What a graph keeps behind its attributes: it knows the graph that it belongs to."""

    def __init__(self, graph: Graph, **held: Any) -> None:
        self._graph, self._mapping = weakref.ref(graph), held

    def __getitem__(self, key: str) -> Any:
        return self._mapping[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._mapping[key] = value

    def __delitem__(self, key: str) -> None:
        del self._mapping[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)


class Graph:
    """A graph as graph libraries write it: attributes through a store, iterable and callable."""

    def __init__(self, **held: Any) -> None:
        self.__dict__["_store"] = Store(self, **held)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.__dict__.get("_store", ()):
            raise AttributeError(name)
        return self._store[name]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._store.items())

    def __call__(self, *keys: str) -> Iterator[Any]:
        return ((key, self._store[key]) for key in keys)

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        return Graph(**copy.deepcopy(self._store._mapping, memo))

    @property
    def nodes(self) -> int:
        own = self._store._graph()  # the copy's store has to know the copy
        assert own is self
        return int(own.x.shape[0])


class Net(nn.Module):
    """Linear → dropout → linear → batch norm, on what `take` finds in the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 32)
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(32)

    def run(self, x: Tensor, more: list[Tensor]) -> Tensor:
        y: Tensor = self.norm(self.second(self.drop(self.first(x)))) + more[0]
        return y


class Reads(Net):
    def forward(self, batch: Any) -> Tensor:
        return self.run(batch.x, batch.more)


class ReadsGraph(Net):
    def forward(self, batch: Any) -> Tensor:
        return self.run(batch.x.view(batch.nodes, 8), batch.more)


class ReadsKeys(Net):
    def forward(self, batch: Any) -> Tensor:
        return self.run(batch["parts"][0]["x"], batch["more"])


class ReadsTensor(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, [x.new_zeros(32)])


X, MORE = torch.randn(64, 8), [torch.zeros(64, 32)]
GIVEN = {
    "dataclass": (Reads, Plain(X, MORE), "Plain(x=64x8, more=[64x32])"),
    "frozen dataclass": (Reads, Frozen(X, MORE), "Frozen(x=64x8, more=[64x32])"),
    "namespace": (Reads, SimpleNamespace(x=X, more=MORE, name="a"), "SimpleNamespace(x=64x8, more=[64x32])"),
    "slots": (Reads, Slots(X, MORE), "Slots(more=[64x32], x=64x8)"),
    "named tuple": (Reads, (Pair(X, MORE),), "[64x8, [64x32]]"),
    "graph": (ReadsGraph, Graph(x=X, more=MORE), "Graph(x=64x8, more=[64x32])"),
    "dict of lists": (
        ReadsKeys,
        {"parts": [{"x": X}], "more": MORE},
        "{parts: [{x: 64x8}], more: [64x32]}",
    ),
}


def shown(model: nn.Module, inputs: Any) -> list[tuple[str, float | None, tuple[str, ...]]]:
    report = dl.lint(model, inputs)
    codes = tuple(finding.code for finding in report.findings)
    return [(entry.norm, entry.delta, codes) for entry in report.predictions]


@pytest.mark.parametrize("kind", GIVEN)
def test_an_object_is_followed_as_its_tensors_are(kind: str) -> None:
    network, given, text = GIVEN[kind]
    model = network()
    plain = ReadsTensor()
    plain.load_state_dict(model.state_dict())
    assert shown(model, given) == shown(plain, X)
    assert dl.lint(model, given).target.inputs == [text]
    assert shown(model, given)[0][2] == ("DL102",)


@pytest.mark.parametrize("kind", GIVEN)
def test_fixed_and_measured_on_an_object(kind: str) -> None:
    network, given, _ = GIVEN[kind]
    model = network()
    fixed = dl.fix(model, given)
    assert len(fixed.applied) == 1
    call = given if isinstance(given, tuple) else (given,)
    with torch.no_grad():
        assert torch.equal(fixed.model.eval()(*call), model.eval()(*call))
    assert dl.measure(model, [given] * 3).delta["norm"] < 0.8


class Writes(Net):
    """Changes what it was handed."""

    def forward(self, batch: Any) -> Tensor:
        batch.x = batch.x.mul_(2.0)
        batch.extra = batch.x
        return self.run(batch.x, batch.more)


def test_the_users_object_is_not_touched() -> None:
    given = Plain(X.clone(), MORE)
    dl.lint(Writes(), given)
    dl.measure(Writes(), [given] * 2)
    assert torch.equal(given.x, X)
    assert not hasattr(given, "extra")


class Held:
    """Holds a tensor, and what no copy can be made of."""

    def __init__(self) -> None:
        self.x, self.more, self.rows = X, MORE, (row for row in X)


def test_an_object_without_a_copy_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="the input of class Held cannot be copied") as caught:
        dl.lint(Reads(), Held())
    assert "__deepcopy__" in str(caught.value.hint)


def test_an_object_without_tensors_is_no_input() -> None:
    with pytest.raises(InputError, match="holds no tensor"):
        dl.lint(Reads(), SimpleNamespace(name="a"))


@dataclass
class Sample:
    x: Tensor
    training_step: int = 0


class Named(NamedTuple):
    x: Tensor
    scale: float


class Keys(TypedDict):
    x: Tensor
    mask: Tensor


class Built:
    """A class whose constructor takes anything by its name, as a graph's does."""

    def __init__(self, x: Tensor | None = None, edge_index: Tensor | None = None, **more: Any) -> None:
        self.x, self.edge_index = x, edge_index
        self.__dict__.update(more)


class Guessed(Net):
    def both(self, x: Tensor) -> Tensor:
        return self.run(x, [x.new_zeros(32)])


class OfSample(Guessed):
    def forward(self, sample: Sample) -> Tensor:
        return self.both(sample.x)


class OfNamed(Guessed):
    def forward(self, sample: Named) -> Tensor:
        return self.both(sample.x * sample.scale)


class OfKeys(Guessed):
    def forward(self, batch: Keys) -> Tensor:
        return self.both(batch["x"])


class OfGraph(Guessed):
    def forward(self, data: Built) -> Tensor:
        x = self.both(data.x)
        return x.new_zeros(x.shape).index_add(0, data.edge_index[1], x[data.edge_index[0]])


class OfReads(Guessed):
    def forward(self, data):  # type: ignore[no-untyped-def]
        x, edges = data.x, data.edge_index
        return self.both(x).index_select(0, edges[0])


class OfConstantKeys(Guessed):
    def forward(self, batch):  # type: ignore[no-untyped-def]
        return self.both(batch["features"])


@pytest.mark.parametrize(
    ("network", "text", "origin"),
    [
        (OfSample, "Sample(x=2x8)", "in a Sample"),
        (OfNamed, "[2x8, 0.5]", "in a Named"),
        (OfKeys, "{x: 2x8, mask: ", "in a Keys"),
        (OfGraph, "Built(x=16x8, edge_index=2x32:int64)", "in a Built"),
        (OfReads, "SimpleNamespace(x=16x8, edge_index=2x32:int64)", "in an object"),
        (OfConstantKeys, "{features: 2x8}", "in a dict"),
    ],
)
def test_an_object_is_guessed_where_its_class_or_the_code_tells_how(
    network: type[nn.Module], text: str, origin: str
) -> None:
    report = dl.lint(network())
    assert report.target.inputs[0].startswith(text)
    assert report.target.inputs_guessed
    assert origin in str(report.target.inputs_origin)
    assert [finding.code for finding in report.findings] == ["DL102"]
