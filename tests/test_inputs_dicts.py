"""Dicts from the command line, and what is said where no guess fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dropout_lint.cli import run

MODELS = """
import warnings

import torch
from torch import nn


class Dicts(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.line = nn.Linear(5, 8)
        self.drop = nn.Dropout(0.3)
        self.bn = nn.BatchNorm1d(8)

    def forward(self, batch, scale=1.0):
        x = self.embed(batch["tokens"]).mean(1) + self.line(batch["extra"]["feats"])
        return self.bn(self.drop(x)) * scale


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 4)

    def forward(self, image):
        assert image.shape[2] == 39, "odd size"
        return self.head(self.drop(self.conv(image)).mean((2, 3)))


class Warns(nn.Sequential):
    def forward(self, x):
        warnings.warn("the model warns")
        return super().forward(x)


warns = Warns(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
"""


@pytest.fixture(autouse=True)
def models(here: Path) -> None:
    (here / "dicts.py").write_text(MODELS)


def test_dotted_names_make_dicts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--input", "batch.tokens=6x7:int64", "--input", "batch.extra.feats=6x5", "--input", "scale=6x1"]
    assert run(["dicts:Dicts", *given, "--output-format", "json"]) == 1
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert target["status"] == "ok" and target["findings"][0]["delta"] is not None
    assert "6x7:int64" in str(target["inputs"]) and "6x5" in str(target["inputs"])
    assert run(["measure", "dicts:Dicts", *given]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["batch.tokens=2x3", "batch.tokens=2x3"], "`--input batch.tokens=` is given twice"),
        (["batch=2x3", "batch.tokens=2x3"], "`--input batch.tokens=` puts a tensor into `batch`"),
        (["batch.tokens=2x3", "batch=2x3"], "`--input batch=` is given twice"),
        (["batch..tokens=2x3"], "`batch..tokens` in `--input batch..tokens=2x3` is no argument name"),
        ([".tokens=2x3"], "is no argument name"),
        (["btch.tokens=2x3"], "has no input `btch`"),
    ],
)
def test_what_is_no_dict_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert run(["dicts:Dicts", *(word for text in given for word in ("--input", text))]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_no_guess_fits_says_what_was_tried(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dicts:Odd"]) == 2
    _, err = capsys.readouterr()
    assert "Odd could not be run on 2x3x224x224: AssertionError: odd size" in err
    assert "tried 2x3x224x224, 2x3x256x256, " in err and "give inputs that fit it with --input" in err
    assert run(["dicts:Dicts"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "Note: no input was found that fits (tried " in text and "dict.key=AxB" not in text


def test_warnings_of_a_forward_that_is_tried_out_are_not_the_readers(
    here: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    assert run(["dicts:warns"]) == 1
    assert capsys.readouterr().err == ""
    assert not [item for item in recwarn if "the model warns" in str(item.message)]
