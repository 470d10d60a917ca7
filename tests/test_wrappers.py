"""Wrappers around a model: every report has the names inside, and fixes are made of what is inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import fx, nn

import dropout_lint as dl
from dropout_lint.inputs.shapes import as_inputs
from dropout_lint.trace import trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.drop(self.first(x))))


X = torch.randn(16, 8)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


WRAPPERS = {
    "torch.compile": compiled,
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "torch.compile and DataParallel": lambda model: compiled(nn.DataParallel(model)),
}


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_are_those_inside_and_the_fix_is_a_plain_model(wrapper: str) -> None:
    wrap: Callable[[nn.Module], nn.Module] = WRAPPERS[wrapper]
    plain = Net()
    wrapped = wrap(plain)
    report, expected = dl.lint(wrapped, X), dl.lint(plain, X)
    assert [(item.code, item.dropout, item.norm) for item in report.findings] == [
        (item.code, item.dropout, item.norm) for item in expected.findings
    ]
    assert report.target.model == "Net"
    assert [item.norm for item in report.predictions] == ["norm"] == list(dl.measure(wrapped, [X, X]).delta)
    fixed = dl.fix(wrapped, X)
    assert [item.dropout for item in fixed.applied] == ["drop"]
    assert list(fixed.model.state_dict()) == list(plain.state_dict())
    assert wrapper in str(fixed)
    assert dl.lint(wrap(fixed.model), X).ok
    assert dl.fix(plain, X).notes == ()


def test_a_compiled_part_has_no_name_of_its_own() -> None:
    model = nn.Sequential(compiled(Net()), nn.Dropout(0.1))
    model[0].register_module("spare", nn.Dropout(0.1))
    found = trace(model, as_inputs(X, model, "given"))
    assert [site.name for site in (*found.dropouts, *found.norms)] == ["0.drop", "1", "0.norm"]
    assert [site.name for site in found.unused] == ["0.spare"]
    assert [item.norm for item in dl.lint(model, X).predictions] == list(dl.measure(model, [X, X]).delta)


def test_a_fix_compiles_nothing_for_the_sizes_that_its_proof_tries() -> None:
    compilations: list[int] = []

    def backend(graph: fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        compilations.append(1)
        return graph.forward

    model = nn.Sequential(torch.compile(Net(), backend=backend))
    model(X)
    compilations.clear()
    assert [item.dropout for item in dl.fix(model, X).applied] == ["0.drop"]
    assert not compilations
