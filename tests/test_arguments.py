"""Wrong arguments of the Python functions: one UsageError at once, with name, value and what is allowed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dropout_lint as dl
from dropout_lint.errors import MeasureError, RuleError, UsageError
from dropout_lint.guard.arguments import as_names, check_number, check_whole
from dropout_lint.measurement import validate

X = torch.randn(8, 4)


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))


def build() -> nn.Module:
    return Net()


FUNCTIONS: dict[str, Any] = {
    "lint": lambda model: dl.lint(model, X),
    "fix": lambda model: dl.fix(model, X),
    "measure": lambda model: dl.measure(model, [X]),
    "validate": lambda model: validate(model, [X]),
    "recalibrate": lambda model: dl.recalibrate(model, [X]),
    "monte_carlo": lambda model: dl.monte_carlo(model, X),
    "dropout_on": lambda model: dl.dropout_on(model).__enter__(),
    "correct_init_": lambda model: dl.correct_init_(model, X),
}
NO_MODELS = {
    "None: give an instance of": None,
    "the class Net: give an instance: Net\\(\\)": Net,
    "the function build: ": build,
    "Tensor: ": X,
    "OrderedDict: load the weights": Net().state_dict(),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("words", NO_MODELS)
def test_what_is_no_model_is_named(function: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"must be a torch.nn.Module, not {words}"):
        FUNCTIONS[function](NO_MODELS[words])


OPTIONS: list[tuple[Any, str, Any]] = [
    (lambda **o: dl.lint(Net(), X, **o), "threshold", ["a", math.nan, -1, 0, 1.5, True, None]),
    (lambda **o: dl.lint(Net(), X, **o), "fail_on", ["eror", None, []]),
    (lambda **o: dl.lint(Net(), X, **o), "select", [3, [3], None]),
    (lambda **o: dl.lint(Net(), X, **o), "rules", [3]),
    (lambda **o: dl.lint(Net(), X).to_text(**o), "width", [0, 19, "a"]),
    (lambda **o: dl.measure(Net(), [X]).sparkline(**o), "width", [0, -1, "a"]),
    (lambda **o: dl.fix(Net(), X, **o), "threshold", ["a", math.nan]),
    (lambda **o: dl.fix(Net(), X, **o), "beta", ["a", 0, 2, math.nan]),
    (lambda **o: dl.fix(Net(), X, **o), "strategy", ["moev", None]),
    (lambda **o: dl.measure(Net(), [X], **o), "statistics", ["nonsense", None]),
    (lambda **o: dl.measure(Net(), [X], **o), "tolerance", ["abc", math.nan, -1]),
    (lambda **o: dl.measure(Net(), [X], **o), "max_batches", ["a", 0, 1.5]),
    (lambda **o: validate(Net(), [X], **o), "max_batches", [0]),
    (lambda **o: dl.measure(Net(), [X], **o), "seed", ["a", 1.5]),
    (lambda **o: dl.measure(Net(), [X], **o), "autocast", ["bfloat16"]),
    (lambda **o: dl.recalibrate(Net(), [X], **o), "method", ["batches", None]),
    (lambda **o: dl.recalibrate(Net(), [X], **o), "skip", [3]),
    (lambda **o: dl.monte_carlo(Net(), X, **o), "samples", [0, 1.5, "a", True]),
    (lambda **o: dl.monte_carlo(Net(), X, **o), "chunk", [0, 1.5]),
    (lambda **o: dl.monte_carlo(Net(), X, **o), "also", [3]),
    (lambda **o: dl.correct_init_(Net(), X, **o), "weights", ["sphericla"]),
]


@pytest.mark.parametrize(
    ("call", "name", "value"), [(call, name, value) for call, name, values in OPTIONS for value in values]
)
def test_an_option_that_is_not_allowed_is_named_with_its_value(call: Any, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name}=.*is not allowed: it must be .+") as caught:
        call(**{name: value})
    assert repr(value) in caught.value.message


def test_a_plot_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(MeasureError, match="there is no folder"):
        dl.measure(Net(), [X]).plot(tmp_path / "none" / "p.png")


def test_numbers_of_other_libraries_are_numbers() -> None:
    check_number("p", np.float32(0.5), "below 1", lambda number: number < 1)
    check_whole("n", np.int64(3), least=3)


def test_a_single_name_is_a_list_of_one() -> None:
    assert as_names("select", "DL101") == as_names("select", ["DL101"]) == ["DL101"]
    assert as_names("select", ()) == []
    assert {finding.code for finding in dl.lint(Net(), X, select="DL101").findings} == {"DL101"}
    assert "DL101" not in {finding.code for finding in dl.lint(Net(), X, ignore="DL101").findings}
    assert not dl.fix(Net(), X, ignore="DL").applied
    with pytest.raises(RuleError, match="/nope"):
        dl.lint(Net(), X, rules="/nope")
    two = nn.Sequential(Net(), Net())
    assert set(dl.recalibrate(two, [X], skip="1").untouched) == {"1.2"}
    with pytest.raises(UsageError, match=r"norm: 0\.2"):
        dl.monte_carlo(two, X, also="0.2")
    with dl.dropout_on(two, also="0.0"):
        assert two[0][0].training
