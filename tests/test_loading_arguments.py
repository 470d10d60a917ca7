"""Arguments of a target: literals, and calls of other names of the module."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropout_lint.cli import run

CONFIGURED = """
import os
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Head:
    classes: int = 10


@dataclass
class Config:
    drop: float = 0.3
    head: Head = field(default_factory=Head)

    @classmethod
    def small(cls, drop=0.1):
        return cls(drop)


class Net(nn.Sequential):
    def __init__(self, config, blocks=()):
        super().__init__(
            nn.Linear(4, 8), nn.Dropout(config.drop), nn.BatchNorm1d(8),
            *blocks, nn.Linear(8, config.head.classes),
        )


class Block(nn.Linear):
    def __init__(self, width):
        super().__init__(width, width)


def noted(config, where):
    open("called", "w").close()
    return Net(config)


def batches(config, amount=4):
    return [torch.randn(16, 4) for _ in range(amount)]


number = 3
"""


@pytest.fixture(autouse=True)
def configured(here: Path) -> None:
    (here / "conf.py").write_text(CONFIGURED)


@pytest.mark.parametrize(
    ("target", "p", "traced"),
    [
        ("conf:Net(Config(drop=0.5))", "0.5", 6),
        ("conf.py:Net(config=Config())", "0.3", 6),
        ("conf:Net(Config.small())", "0.1", 6),
        ("conf:Net(Config(0.4, Head(classes=3)), blocks=[Block(8), Block(width=8)])", "0.4", 8),
    ],
)
def test_calls_of_the_modules_names_are_arguments(
    here: Path, capsys: pytest.CaptureFixture[str], target: str, p: str, traced: int
) -> None:
    assert run([target, "--input", "8x4"]) == 1
    out, err = capsys.readouterr()
    assert f"Dropout (p = {p})" in out and f"{traced} operations traced" in out and err == ""


def test_a_loader_takes_them_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "conf:Net(Config())", "--data", "conf:batches(Config(), amount=3)", "-q"]) == 0
    assert "3 batches, 48 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("conf:Net(Confg())", "`conf` has no attribute `Confg`", "did you mean `Config`?"),
        ("conf:Net(Config(dorp=1))", "`Config` takes no argument `dorp`", "did you mean `drop`?"),
        ("conf:Net()", "`Net` needs the argument `config`", "calls such as `Config(drop=0.5)`"),
        ("conf:Net(number())", "the argument `number()`", "is of type int"),
        ("conf:Net(Config)", "the argument `Config` in `conf:Net(Config)` is not a literal", "only literals"),
        ("conf:Net(Config().head)", "the argument `Config().head`", "only literals"),
        ("conf:Net(Config() or 3)", "is not a literal", "only literals"),
        ("conf:Net([Config() for _ in 'ab'])", "is not a literal", "only literals"),
        ("conf:Net((lambda: 3)())", "`lambda: 3` in", "a target is"),
        ("conf:Net(**Config())", "unpacks its arguments with **", "write each argument out"),
        ("conf:Net(__builtins__.open('x', 'w'))", "calls `__builtins__`", "only literals"),
        ("conf:noted(Config(), Config(drop=1, drp=2))", "`Config` takes no argument `drp`", "`drop`"),
    ],
)
def test_nothing_else_is_and_nothing_is_called_before_all_fits(
    here: Path, capsys: pytest.CaptureFixture[str], target: str, message: str, hint: str
) -> None:
    assert run([target]) == 2
    _, err = capsys.readouterr()
    assert message in err and hint in err, err
    assert not (here / "called").exists() and not (here / "x").exists()
