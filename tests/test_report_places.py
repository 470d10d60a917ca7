"""The line that a finding shows: the dropout's own code, whatever calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dropout_lint.cli import run

NETS = """
from torch import nn


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4, 8),
            nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(8)),
        )

    def forward(self, x):
        return self.body(x)


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Own(nn.Sequential):
    def forward(self, x):
        return self[2](self[1](self[0](x)))


own = Own(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))
"""


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        ("Held", ("nets.py:10:27", "nn.Dropout(0.5)", 14, "called")),
        ("Listed", ("nets.py:24:17", "layer(x)", 20, "built")),
        ("own", ("nets.py:30:24", "self[1](self[0](x))", 33, "built")),
    ],
)
def test_the_caret_stands_under_the_dropouts_own_code(
    here: Path, capsys: pytest.CaptureFixture[str], target: str, lines: tuple[str, str, int, str]
) -> None:
    shown, marked, other, word = lines
    (here / "nets.py").write_text(NETS)
    pages = ["text", "sarif=log.sarif", "html=page.html", "json=all.json"]
    run([f"nets.py:{target}", *(item for page in pages for item in ("--output-format", page))])
    text = capsys.readouterr().out.splitlines()
    assert f"  --> {shown}" in text
    at = next(index for index, line in enumerate(text) if "^" in line)
    start, end = text[at].index("^"), text[at].rindex("^") + 1
    assert text[at - 1][start:end] == marked
    assert any(line.split() == [word, f"nets.py:{other}"] for line in text)

    (found,) = json.loads((here / "log.sarif").read_text())["runs"][0]["results"]
    region = found["locations"][0]["physicalLocation"]["region"]
    line = NETS.splitlines()[region["startLine"] - 1]
    assert region["endLine"] == region["startLine"] == int(shown.split(":")[1])
    assert line[region["startColumn"] - 1 : region["endColumn"] - 1] == marked
    (related,) = found["relatedLocations"]
    assert related["physicalLocation"]["region"]["startLine"] == other
    assert related["message"]["text"] == f"{word} here"
    assert f"{shown}, {word} at nets.py:{other}" in (here / "page.html").read_text()
    (finding,) = json.loads((here / "all.json").read_text())["targets"][0]["findings"]
    assert finding["dropout"]["call_is_own"] is (word == "built")


def test_columns_are_counted_in_characters(here: Path) -> None:
    (here / "nets.py").write_text(
        NETS.replace("self.body = nn", "self.body = 'äöü' and nn").replace(
            "\n            nn.Linear(4, 8),\n            nn.Sequential(", "nn.Linear(4, 8), nn.Sequential("
        )
    )
    run(["nets.py:Held", "--output-format", "sarif=log.sarif"])
    (found,) = json.loads((here / "log.sarif").read_text())["runs"][0]["results"]
    region = found["locations"][0]["physicalLocation"]["region"]
    text = (here / "nets.py").read_text().splitlines()[region["startLine"] - 1]
    assert text[region["startColumn"] - 1 : region["endColumn"] - 1] == "nn.Dropout(0.5)"
