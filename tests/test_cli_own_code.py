"""Findings in installed packages: one line in continuous integration, and left out on demand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_project import MODEL, table

from dropout_lint.cli import run

OWN = """
from torch import nn

from packaged.nets import Bad


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Bad()
        self.drop = nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(10)

    def forward(self, x):
        return self.bn(self.drop(self.body(x)))


def wide():
    return Mine()
"""
GIVEN = ["own:Mine", "own:wide", "--input", "2x3x8x8"]


@pytest.fixture(autouse=True)
def files(here: Path) -> None:
    place = here / "lib" / "site-packages" / "packaged"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("")
    (place / "nets.py").write_text(MODEL)
    (here / "own.py").write_text(OWN)
    table(here, 'pythonpath = ["lib/site-packages"]')


def test_concise_tells_a_line_once_and_packages_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([*GIVEN, "--output-format", "concise"]) == 1
    own, packaged = capsys.readouterr().out.splitlines()
    assert own.startswith("own.py:15:24: error DL101 Dropout (p = 0.5) feeds BatchNorm1d bn ")
    assert own.endswith("(drop of own:Mine, own:wide)")
    assert packaged.startswith("packaged/nets.py:13:35: error DL101 ")
    assert "(2 modules of own:Mine, own:wide)" in packaged


def test_github_puts_no_annotation_on_a_file_that_is_not_in_the_repository(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*GIVEN, "--output-format", "github", "--output-format", "json=all.json"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (own,) = [line for line in lines if "file=own.py,line=15" in line]
    assert "::error: Dropout (p = 0.5)" in own and "%0Ain drop of own:Mine, own:wide%0A" in own
    (packaged,) = [line for line in lines if "packaged/nets.py" in line]
    assert packaged.startswith("::error title=DL101") and "%0Aat packaged/nets.py:13:35" in packaged
    found = [
        finding
        for item in json.loads((here / "all.json").read_text())["targets"]
        for finding in item["findings"]
    ]
    assert len(found) > len(lines) == 2


@pytest.mark.parametrize("how", ["option", "setting"])
def test_own_code_leaves_packages_out(here: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    option = ["--own-code"] if how == "option" else []
    if how == "setting":
        table(here, 'pythonpath = ["lib/site-packages"]\nown-code = true')
    assert run([*GIVEN, *option, "--output-format", "json"]) == 1
    for item in json.loads(capsys.readouterr().out)["targets"]:
        assert [finding["dropout"]["name"] for finding in item["findings"]] == ["drop"]
        assert item["notes"][-1] == "2 findings in installed packages left out (--own-code)"
    assert run(["packaged.nets:Bad", "--input", "2x3x8x8", *option]) == 0
