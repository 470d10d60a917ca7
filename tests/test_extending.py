"""What CONTRIBUTING promises: a noise kind, an operation, a rule and a format are each added in one place.

Each is added to a copy of the package, as CONTRIBUTING says, and all of them are seen to work in one run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_project import ROOT

from dropout_lint.prediction.ops import find_function
from dropout_lint.report import FORMATS
from dropout_lint.terms import Noise

KIND = '    TRIANGULAR = "triangular", Mask(variance=lambda width: width**2 / 6)\n'
ROW = '    (Kind.LAYOUT, "deg2rad"),\n'
TRANSFER = '''

@function("deg2rad")
def degrees_to_radians(call: Call) -> State:
    """x·π/180: every moment is that of x, times the factor or its square."""
    return call.x.scaled(math.pi / 180)
'''
FORMAT = '''"""How many findings there are of each code."""

from collections import Counter

from dropout_lint.report.context import Context
from dropout_lint.report.schema import Report


def render(report: Report, context: Context) -> str:
    """One line a code."""
    found = Counter(finding.code for target in report.targets for finding in target.findings)
    return "".join(f"{code} {count}\\n" for code, count in sorted(found.items()))
'''
RULE = """+++
code = "DL107"
name = "noise-that-is-spread-around-one"
severity = "info"
report = "always"
source = "a test"
message = "{kind} never drops"

[match]
noise = "triangular"
+++

## What it does

Finds noise whose mask is spread around 1.

## Why it hurts

It shifts the variance as dropout does.

## Example

```python
import torch
from torch import nn
```

## Use instead

```python
import torch
from torch import nn
```

## Fix safety

There is no fix.

## When to ignore it

Always.

## References

None.
"""
NET = """\
import torch
from torch import nn


class MyNoise(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        if not self.training:
            return x
        return x * (1 + self.width * (torch.rand_like(x) - torch.rand_like(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.noise = MyNoise(1.0)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, bias=False)
        self.drop = nn.Dropout(0.5)
        self.bn2, self.bn3 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        x = self.bn1(self.noise(self.conv1(x))).relu()
        x = self.drop(self.conv2(x))
        x = self.bn2(torch.deg2rad(x)) + self.bn3(x)
        return self.fc(x.relu().mean((2, 3)))


example_inputs = torch.randn(4, 3, 16, 16)
"""
SETTINGS = """\
[tool.dropout-lint.dropouts]
MyNoise = { noise = "triangular", p = "width" }
"""


def insert(file: Path, behind: str, text: str) -> None:
    """One entry behind the line that starts so."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    (place,) = (number for number, line in enumerate(lines) if line.startswith(behind))
    lines.insert(place + 1, text)
    file.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The JSON report of a copy of the package with one more of each, and the report in its new format."""
    house = tmp_path_factory.mktemp("house")
    shutil.copytree(
        ROOT / "dropout_lint", house / "dropout_lint", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "rules", house / "rules")
    package = house / "dropout_lint"
    insert(package / "terms.py", "    ELEMENT = ", KIND)
    insert(package / "graph" / "operations.py", "    # activations", ROW)
    with (package / "prediction" / "ops" / "activation.py").open("a", encoding="utf-8") as file:
        file.write(TRANSFER)
    (house / "rules" / "DL107-noise-that-is-spread-around-one.md").write_text(RULE)
    (package / "report" / "formats" / "tally.py").write_text(FORMAT)
    project = house / "project"
    project.mkdir()
    (project / "net.py").write_text(NET)
    (project / "pyproject.toml").write_text(SETTINGS)
    words = ["net.py:Net", "--no-cache", "--output-format", "json", "--output-format", "tally=tally.txt"]
    done = subprocess.run(
        [sys.executable, "-m", "dropout_lint", *words],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (target,) = json.loads(done.stdout)["targets"]
    return target, (project / "tally.txt").read_text()


def test_none_of_them_is_there_without_its_entry() -> None:
    assert "triangular" not in set(Noise) and "tally" not in FORMATS and find_function("deg2rad") is None


def test_a_noise_kind_is_one_entry(run: tuple[dict[str, Any], str]) -> None:
    """Its variance is all that it says: Δ = 1/(1 + w²/6) for input of mean 0, and the rules judge it."""
    target, _ = run
    norm = target["predictions"][0]
    assert norm["norm"] == "bn1" and norm["delta_initial"] == pytest.approx(1 / (1 + 1 / 6), abs=0.01)
    found = {(finding["code"], finding["dropout"]["name"]) for finding in target["findings"]}
    assert ("DL101", "noise") in found


def test_an_operation_is_one_entry_and_one_function(run: tuple[dict[str, Any], str]) -> None:
    """A factor changes no Δ; without its function it is run on samples, and a note says so."""
    target, _ = run
    plain = {norm["norm"]: norm for norm in target["predictions"]}
    assert plain["bn2"]["delta"] == pytest.approx(plain["bn3"]["delta"], abs=1e-5)
    assert plain["bn2"]["delta_initial"] == pytest.approx(plain["bn3"]["delta_initial"], abs=1e-5)
    assert not any("deg2rad" in note for note in target["notes"])


def test_a_rule_is_one_file(run: tuple[dict[str, Any], str]) -> None:
    (finding,) = (finding for finding in run[0]["findings"] if finding["code"] == "DL107")
    assert finding["message"] == "MyNoise never drops" and finding["dropout"]["name"] == "noise"


def test_a_format_is_one_file(run: tuple[dict[str, Any], str]) -> None:
    target, tally = run
    counted = dict(line.split() for line in tally.splitlines())
    assert counted["DL107"] == "1" and sum(map(int, counted.values())) == len(target["findings"])
