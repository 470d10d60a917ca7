"""What a fix does to training: dropouts that it does not name act as before, or nothing is written."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.analysis import analyse
from dropout_lint.errors import FixError
from dropout_lint.fixes.plan.steps import Step
from dropout_lint.fixes.proof import prove
from dropout_lint.fixes.source.engine import SourceFix, fix_source
from dropout_lint.fixes.training import Named, named_by
from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.resolving import resolve
from dropout_lint.trace import trace

NUMBERS = itertools.count()
INPUTS = Inputs((torch.randn(4, 3, 8, 8),))
FILE = """\
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)

{helper}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.bn1, self.bn2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.hidden, self.fc = nn.Linear(6, 16), nn.Linear(16, 2)
        {init}
{method}
    def forward(self, x):
        x = {wrong}
        x = self.bn2(self.conv2(F.relu(self.bn1(x))))
        x = F.relu(x).mean((2, 3))
        x = F.relu(self.hidden(x))
        x = {right}
        return self.fc(x)
"""
# one dropout before a norm, where it is wrong, and one before the classifier, where it is right
SHARED: dict[str, dict[str, str]] = {
    "helper method": {
        "method": "\n    def drop(self, x):\n        return F.dropout(x, 0.4, self.training)\n",
        "wrong": "self.drop(self.conv1(x))",
        "right": "self.drop(x)",
    },
    "free function": {
        "helper": "\ndef drop(x, training):\n    return F.dropout(x, 0.4, training)\n",
        "wrong": "drop(self.conv1(x), self.training)",
        "right": "drop(x, self.training)",
    },
    "wrapper module": {
        "helper": (
            "\nclass Drop(nn.Module):\n    def __init__(self, p):\n        super().__init__()\n"
            "        self.p = p\n\n    def forward(self, x):\n"
            "        return F.dropout(x, self.p, self.training)\n"
        ),
        "init": "self.a, self.b = Drop(0.3), Drop(0.5)",
        "wrong": "self.a(self.conv1(x))",
        "right": "self.b(x)",
    },
    "wrapper of a module": {
        "helper": (
            "\nclass Drop(nn.Module):\n    def __init__(self, p):\n        super().__init__()\n"
            "        self.inner = nn.Dropout(p)\n\n    def forward(self, x):\n        return self.inner(x)\n"
        ),
        "init": "self.a, self.b = Drop(0.3), Drop(0.5)",
        "wrong": "self.a(self.conv1(x))",
        "right": "self.b(x)",
    },
    "shared module": {
        "init": "self.drop = nn.Dropout(0.4)",
        "wrong": "self.drop(self.conv1(x))",
        "right": "self.drop(x)",
    },
    "subclass": {
        "helper": "\nclass Drop(nn.Dropout):\n    pass\n",
        "init": "self.drop = Drop(0.4)",
        "wrong": "self.drop(self.conv1(x))",
        "right": "self.drop(x)",
    },
    "loop": {
        "init": "self.drops = nn.ModuleList(nn.Dropout(0.4) for _ in range(2))",
        "wrong": "self.drops[0](self.conv1(x))",
        "right": "self.drops[1](x)",
    },
    "conditional": {
        "method": (
            "\n    def drop(self, x):\n        if self.training:\n"
            "            x = F.dropout(x, 0.4, self.training)\n        return x\n"
        ),
        "wrong": "self.drop(self.conv1(x))",
        "right": "self.drop(x)",
    },
    "functional": {
        "wrong": "F.dropout(self.conv1(x), 0.4, self.training)",
        "right": "F.dropout(x, 0.4, self.training)",
    },
}


def written(parts: dict[str, str], folder: Path) -> Path:
    file = folder / f"net_{next(NUMBERS)}.py"
    blank = {"helper": "", "init": "pass", "method": ""}
    file.write_text(FILE.format(**{**blank, **parts}))
    return file


def source_fix(file: Path, **options: Any) -> SourceFix:
    (built,) = resolve(f"{file}:Net")
    return fix_source(built, analyse(built.model, built.inputs, constructed=built.constructed), **options)


def calls_of(file: Path) -> list[tuple[int, ...]]:
    """The shapes of what torch drops in one pass in train mode: by brute force, not by our own words."""
    (built,) = resolve(f"{file}:Net", prefer_meta=False)
    seen: list[tuple[int, ...]] = []
    plain = F.dropout

    def counting(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = plain(input, *args, **kwargs)
        if out is not input and not torch.equal(out, input):
            seen.append(tuple(input.shape))
        return out

    F.dropout = counting
    try:
        built.model.train()(torch.randn(4, 3, 8, 8))
    finally:
        F.dropout = plain
    return seen


@pytest.mark.parametrize("way", list(SHARED))
def test_a_dropout_that_is_right_is_still_there_after_the_fix(way: str, tmp_path: Path) -> None:
    file = written(SHARED[way], tmp_path)
    before = calls_of(file)
    assert before == [(4, 6, 6, 6), (4, 16)]
    result = source_fix(file)
    if result.changes:
        result.write()
        after = calls_of(file)
        assert (4, 16) in after, "the right one is gone"
        assert len(after) == 2 - sum(item.action in ("merge", "remove") for item in result.applied)
    else:
        assert result.skipped and all(item.reason and item.advice for item in result.skipped)


class Small(nn.Module):
    """A wrong dropout and a right one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 2)
        self.wrong, self.right = nn.Dropout(0.3), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.right(self.bn(self.wrong(self.conv(x))).relu().mean((2, 3))))


class NoRight(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


class Elsewhere(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.right(self.fc(self.bn(self.conv(x)).relu().mean((2, 3))))


class OtherRatio(Small):
    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.right(self.bn(self.conv(x)).relu().mean((2, 3))))


class BothStay(Small):
    pass


class NoGradient(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.right(self.bn(self.conv(x).detach()).relu().mean((2, 3))))


class Sound(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.right(self.bn(self.conv(x)).relu().mean((2, 3))))


def named_one() -> tuple[nn.Module, Named]:
    model = Small()
    traced = trace(model, INPUTS)
    return model, named_by(traced, [Step(traced.dropouts[0], "remove")])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NoRight, "does not name"),
        (Elsewhere, "does not name"),
        (OtherRatio, "does not name"),
        (BothStay, "were planned"),
        (NoGradient, "trains no more"),
    ],
)
def test_a_fix_that_changes_another_dropout_is_refused(kind: type[Small], words: str) -> None:
    model, named = named_one()
    fixed = kind()
    fixed.load_state_dict(model.state_dict())
    with pytest.raises(FixError, match=words):
        prove(model, fixed, INPUTS, named=named)


def test_a_fix_that_keeps_the_others_is_proven() -> None:
    model, named = named_one()
    fixed = Sound()
    fixed.load_state_dict(model.state_dict())
    assert any(
        "act as before" in check or "acts as before" in check
        for check in prove(model, fixed, INPUTS, named=named)
    )


def test_what_cannot_be_trained_is_not_proven() -> None:
    class NoTraining(Small):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("targets are missing")
            return super().forward(x)

    with pytest.raises(FixError, match="targets are missing"):
        prove(model := NoTraining(), model, INPUTS)
