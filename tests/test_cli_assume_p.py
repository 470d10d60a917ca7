"""Scheduled rates, 0 when the model is built: noted, and linted at another on demand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_project import table

from dropout_lint.cli import run

NETS = """
from torch import nn
from torch.nn.functional import dropout


class Scheduled(nn.Module):
    def __init__(self, p=0.0):
        super().__init__()
        self.line = nn.Linear(4, 64)
        self.drop = nn.Dropout(p)
        self.bn = nn.BatchNorm1d(64)

    def forward(self, x):
        x = self.line(x)
        if self.drop.p:
            x = self.drop(x)
        return self.bn(x)


built = Scheduled()


class ByCall(nn.Module):
    def __init__(self, p=0.0, training=None):
        super().__init__()
        self.line, self.bn = nn.Linear(4, 64), nn.BatchNorm1d(64)
        self.p, self.acts = p, training

    def forward(self, x):
        return self.bn(dropout(self.line(x), self.p, self.training if self.acts is None else self.acts))


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.Dropout(0.0), nn.LayerNorm(8))
"""


@pytest.fixture(autouse=True)
def nets(here: Path) -> None:
    (here / "nets.py").write_text(NETS)


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    run([*arguments, "--output-format", "json"])
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert isinstance(target, dict)
    return target


def test_a_ratio_of_0_is_noted_where_a_norm_could_be_shifted(capsys: pytest.CaptureFixture[str]) -> None:
    target = found(capsys, "nets:built")
    assert target["findings"] == []
    assert target["notes"] == ["1 dropout has ratio 0 (drop): `--assume-p 0.2` lints as if it were another"]
    assert found(capsys, "nets:Plain")["notes"] == []
    assert found(capsys, "nets:Scheduled(p=0.1)")["notes"] == []


def test_it_is_linted_at_another_and_is_0_again_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    at = found(capsys, "nets:built", "--assume-p", "0.2", "--no-cache")
    (finding,) = at["findings"]  # type: ignore[misc]
    assert finding["code"] == "DL101" and finding["dropout"]["p"] == 0.2
    assert "1 dropout has ratio 0 (drop): linted as if it were 0.2 (--assume-p)" in at["notes"]  # type: ignore[operator]
    (same,) = found(capsys, "nets:Scheduled(p=0.2)")["findings"]  # type: ignore[misc]
    assert (same["delta"], same["path"]) == (finding["delta"], finding["path"])
    assert found(capsys, "nets:built", "--no-cache")["findings"] == []
    unchanged = found(capsys, "nets:Scheduled(p=0.1)", "--assume-p", "0.2")["notes"]
    assert unchanged == ["no dropout has ratio 0, so that --assume-p changes nothing"]


def test_a_call_of_a_function_may_have_such_a_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    name = "1 dropout has ratio 0 (@nets.py:30)"
    target = found(capsys, "nets:ByCall")
    assert target["findings"] == []
    assert f"{name}: `--assume-p 0.2` lints as if it were another" in target["notes"]  # type: ignore[operator]
    at = found(capsys, "nets:ByCall", "--assume-p", "0.2")
    assert f"{name}: linted as if it were 0.2 (--assume-p)" in at["notes"]  # type: ignore[operator]
    (finding,) = at["findings"]  # type: ignore[misc]
    (same,) = found(capsys, "nets:ByCall(p=0.2)")["findings"]  # type: ignore[misc]
    assert (same["delta"], same["dropout"]) == (finding["delta"], finding["dropout"])
    never = found(capsys, "nets:ByCall(training=False)")["notes"]
    assert not [note for note in never if "ratio 0" in note]  # type: ignore[attr-defined]


def test_a_targets_own_table_may_say_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here, 'targets = [{target = "nets:built", assume-p = 0.5}]')
    assert run(["--output-format", "concise"]) == 1
    assert "Dropout (p = 0.5)" in capsys.readouterr().out


@pytest.mark.parametrize("ratio", ["0", "1", "-0.5", "half"])
def test_what_is_no_ratio_is_refused(here: Path, capsys: pytest.CaptureFixture[str], ratio: str) -> None:
    assert run(["nets:built", "--assume-p", ratio]) == 2
    assert "--assume-p" in capsys.readouterr().err
    table(here, f'assume-p = "{ratio}"')
    assert run(["nets:built"]) == 2
    assert "`assume-p`" in capsys.readouterr().err
