"""`conf/model.yaml:key`: the model that a Hydra configuration describes; needs hydra-core for most of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dropout_lint.cli import run
from dropout_lint.errors import TargetError
from dropout_lint.loading.resolving import resolve

NETS = """
from torch import nn

class Body(nn.Sequential):
    def __init__(self, width, act):
        super().__init__(nn.Linear(8, width), act, nn.Dropout(0.5), nn.BatchNorm1d(width))

class Net(nn.Module):
    def __init__(self, body, drop=0.1, optimizer=None):
        super().__init__()
        self.body, self.drop, self.head = body, nn.Dropout(drop), nn.LazyLinear(2)

    def forward(self, x):
        return self.head(self.drop(self.body(x)))

def breaks(**_):
    raise ValueError("no such width")
"""
MODEL = """
_target_: nets.Net
drop: 0.3
body:
  _target_: nets.Body
  width: ${..drop_width}
  act: {_target_: torch.nn.ReLU}
drop_width: 6
"""
CONFIG = """
seed: 1
width: 12
model:
  net:
    _target_: nets.Net
    body:
      _target_: nets.Body
      width: ${width}
      act: {_target_: torch.nn.Tanh}
    optimizer: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}
later: {_target_: nets.Body, _partial_: true, width: 4, act: {_target_: torch.nn.ReLU}}
broken: {_target_: nets.breaks, width: 3}
missing: {_target_: nets.Gone}
unset: ???
"""
COMPOSED = """
defaults:
  - model: small
  - _self_
width: 10
"""


@pytest.fixture
def project(here: Path) -> Path:
    (here / "nets.py").write_text(NETS)
    (here / "conf" / "model").mkdir(parents=True)
    # a key beside the arguments would be an argument: the width is written out
    text = MODEL.replace("${..drop_width}", "6").replace("drop_width: 6\n", "")
    (here / "conf" / "model.yaml").write_text(text)
    (here / "conf" / "config.yaml").write_text(CONFIG)
    (here / "conf" / "composed.yaml").write_text(COMPOSED)
    (here / "conf" / "model" / "small.yaml").write_text(text.replace("width: 6", "width: ${width}"))
    (here / "conf" / "plain.yml").write_text("lr: 0.1\n")
    (here / "conf" / "bad.yaml").write_text("a: [1\n")
    return here


def widths(target: str) -> list[int]:
    (built,) = resolve(target)
    return [norm.num_features for norm in built.model.modules() if hasattr(norm, "num_features")]


@pytest.mark.parametrize(
    ("target", "width"),
    [
        ("conf/model.yaml", 6),
        ("conf/model.yaml:body", 6),
        ("conf/config.yaml:model.net", 12),
        ("conf/config.yaml:model.net(drop=0.2)", 12),
        ("conf/config.yaml:model.net.body", 12),
        ("conf/config.yaml:later", 4),
        ("conf/composed.yaml:model", 10),
    ],
)
def test_what_a_configuration_describes_is_built(project: Path, target: str, width: int) -> None:
    pytest.importorskip("hydra")
    assert widths(target) == [width]


def test_it_is_linted_like_any_other(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra")
    assert run(["conf/model.yaml", "--input", "4x8", "--output-format", "json"]) == 1
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert target["target"] == "conf/model.yaml"
    assert target["findings"][0]["dropout"]["location"]["file"] == "nets.py"


def test_changes_behind_the_key_reach_the_model(project: Path) -> None:
    pytest.importorskip("hydra")
    (built,) = resolve("conf/config.yaml:model.net(drop=0.7)")
    assert built.model.drop.p == 0.7


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("conf/config.yaml", "has no `_target_` of its own", "`conf/config.yaml:model.net`"),
        ("conf/config.yaml:model", "has no `_target_` at `model`", "`conf/config.yaml:later`"),
        ("conf/config.yaml:nowhere", "has no `_target_` at `nowhere`", "model.net"),
        ("conf/plain.yml", "has no `_target_`", "name a file"),
        ("conf/bad.yaml", "reading conf/bad.yaml raised ParserError", None),
        ("conf/config.yaml:broken", "raised ValueError: no such width", None),
        ("conf/config.yaml:missing", "nets", None),
        ("conf/model.yaml:body(3)", "arguments without names", "name=value"),
        ("conf/mdel.yaml", "there is no file", "did you mean `conf/model.yaml`?"),
    ],
)
def test_errors_name_the_cause(project: Path, target: str, message: str, hint: str | None) -> None:
    pytest.importorskip("hydra")
    with pytest.raises(TargetError) as caught:
        resolve(target)
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_without_hydra_it_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hydra", "omegaconf"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TargetError, match="hydra-core is not installed") as caught:
        resolve("conf/model.yaml")
    assert "dropout-lint[hydra]" in (caught.value.hint or "")


def test_a_circle_of_exceptions_is_no_endless_loop(here: Path) -> None:
    (here / "circle.py").write_text(
        "def build():\n"
        "    inner, outer = ValueError('inner'), RuntimeError('outer')\n"
        "    inner.__cause__, outer.__cause__ = outer, inner\n"
        "    raise outer\n"
    )
    with pytest.raises(TargetError, match="raised RuntimeError: outer"):
        resolve("circle:build")
