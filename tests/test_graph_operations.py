"""One table says what an operation is, and the survey and the fixer read the same graph from it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dropout_lint as dl
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.graph.flow import Flow
from dropout_lint.graph.operations import OPERATIONS, Kind
from dropout_lint.prediction import ops
from dropout_lint.prediction.ops import base
from dropout_lint.survey.branches import Branches
from dropout_lint.trace import trace


def test_every_transfer_function_has_an_entry() -> None:
    for room in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"{ops.__name__}.{room.name}")
    assert not sorted(set(base._FUNCTIONS) - set(OPERATIONS)), "add them to a row of graph/operations.py"


JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda x, y: x + y,
    "function": torch.add,
    "in place": lambda x, y: y.add_(x),
    "subtract": lambda x, y: x - y,
    "sub": torch.sub,
    "reversed": lambda x, y: torch.rsub(y, x),
    "lerp": lambda x, y: torch.lerp(x, y, 0.5),
}


class Block(nn.Module):
    """One residual branch whose dropout stands before the branch's last norm (P4)."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.join = join
        self.stem = nn.Conv2d(3, 8, 3)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn3, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.drop(self.conv1(self.bn1(x).relu()))
        y = self.conv2(self.bn2(y).relu())
        return self.fc(self.bn3(self.join(x, y)).relu().mean((2, 3)))


@pytest.mark.parametrize("way", list(JOINS))
def test_survey_and_fixer_see_the_same_joins(way: str) -> None:
    traced = trace(Block(JOINS[way]), None)
    flow = Flow(traced)
    (branch,) = Branches(traced, flow).all
    ancestry = Ancestry(traced)
    assert flow.nodes[branch.join] in ancestry.joins
    assert Kind.ADD in ancestry.kind(flow.nodes[branch.join])


@pytest.mark.parametrize("way", ["add", "subtract"])
def test_a_difference_is_fixed_in_its_branch(way: str) -> None:
    fixed = dl.fix(Block(JOINS[way]), torch.randn(4, 3, 8, 8))
    assert [(item.action, item.place) for item in fixed.applied] == [("move", "P6")]
