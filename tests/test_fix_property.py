"""Whatever the model looks like: a fix keeps eval mode and state_dict, is idempotent, and never raises."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fix_models import sources
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.analysis import analyse, analyse_trace
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.steps import Applied
from dropout_lint.fixes.source.engine import fix_source
from dropout_lint.inputs.example import Built
from dropout_lint.loading.resolving import resolve
from dropout_lint.remedies.uout import Uout
from dropout_lint.trace import trace

# the random models also meet what torch warns about (Dropout2d on vectors)
pytestmark = pytest.mark.filterwarnings("ignore:dropout2d")

NUMBERS = itertools.count()


def built_from(text: str, folder: Path) -> Built:
    file = folder / f"net_{next(NUMBERS)}.py"
    file.write_text(text)
    (built,) = resolve(f"{file}:Net", prefer_meta=False)
    return built


def masks_of(model: nn.Module) -> Counter[tuple[float, bytes]]:
    """Ratio and input of every dropout that runs in train mode, each of them replaced by its input.

    Torch's own functions are exchanged; nothing of ours is asked. Without any noise the inputs are the same
    bits in two models as long as the same is computed from the same.
    """
    seen: Counter[tuple[float, bytes]] = Counter()
    plain = F.dropout, F.dropout2d

    def watched(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and p:
            seen[round(p, 6), hashlib.sha256(input.detach().contiguous().numpy().tobytes()).digest()] += 1
        return input.clone()

    F.dropout = F.dropout2d = watched
    model.train()
    for module in model.modules():
        if isinstance(module, Uout):
            module.eval()
    try:
        model(torch.arange(3 * 3 * 64.0).reshape(3, 3, 8, 8).sin())
    finally:
        F.dropout, F.dropout2d = plain
    return seen


def check_training(before: nn.Module, after: nn.Module, applied: Sequence[Applied]) -> None:
    """What a fix does not name drops the same input by the same ratio; the count changes by what is said."""
    old, new = masks_of(copy.deepcopy(before)), masks_of(copy.deepcopy(after))
    gone = sum(item.action in ("merge", "remove", "uout") for item in applied)
    assert sum(new.values()) == sum(old.values()) - gone
    assert sum((old - new).values()) <= len(applied)
    assert sum((new - old).values()) <= len(applied) - gone
    assert uouts_of(after) == uouts_of(before) + sum(item.action == "uout" for item in applied)


def uouts_of(model: nn.Module) -> int:
    """How many calls of a Uout run in train mode."""
    model, seen = copy.deepcopy(model).train(), []
    for module in model.modules():
        if isinstance(module, Uout):
            module.register_forward_hook(lambda *_: seen.append(1))
    model(torch.ones(3, 3, 8, 8))
    return len(seen)


def check_graph(text: str, folder: Path) -> None:
    built = built_from(text, folder)
    before = trace(built.model, built.inputs, constructed=built.constructed)
    fixed = fix_graph(analyse_trace(before))
    assert list(fixed.model.state_dict()) == list(built.model.state_dict())
    fixed.model.load_state_dict(built.model.state_dict(), strict=True)
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(built.model.eval()(x), fixed.model.eval()(x))
    check_training(built.model, fixed.model, fixed.applied)
    again = fix_graph(analyse(fixed.model, before.inputs))
    assert not again.applied, [item.title for item in again.applied]


def check_source(text: str, folder: Path) -> None:
    built = built_from(text, folder)
    before = trace(built.model, built.inputs, constructed=built.constructed)
    result = fix_source(built, analyse_trace(before))
    if not result.changes:
        assert not result.applied
        return
    (change,) = result.changes
    edited = built_from(change.after, folder)
    edited.model.load_state_dict(built.model.state_dict(), strict=True)
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(built.model.eval()(x), edited.model.eval()(x))
    check_training(built.model, edited.model, result.applied)
    traced = trace(edited.model, edited.inputs, constructed=edited.constructed)
    again = fix_source(edited, analyse_trace(traced))
    assert not again.changes, again.diff


@settings(max_examples=15)
@given(sources())
def test_graph(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    check_graph(text, tmp_path_factory.mktemp("graph"))


@settings(max_examples=4)
@given(sources())
def test_source(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    check_source(text, tmp_path_factory.mktemp("source"))


@pytest.mark.slow
@settings(max_examples=300)
@given(sources())
def test_graph_and_source_on_three_hundred_models(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("both")
    check_graph(text, folder)
    check_source(text, folder)
