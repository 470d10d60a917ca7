"""Stale statistics (DL501): told once for a model, with its norms; JSON and SARIF have each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dropout_lint.cli import run

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, width=15):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(8)) for _ in "x" * width
        )

    def forward(self, x):
        return sum(branch(x) for branch in self.branches)
"""


def test_norms_come_as_one_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "deep.py").write_text(NET)
    scope: dict[str, object] = {}
    exec(NET, scope)
    model = scope["Net"]()  # type: ignore[operator]
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(30):
            model(torch.randn(64, 8))
    torch.save(model.state_dict(), here / "trained.pt")
    pages = [
        "text",
        "concise=c.txt",
        "github=g.txt",
        "markdown=m.md",
        "html=p.html",
        "json=a.json",
        "sarif=s.sarif",
    ]
    given = ["--checkpoint", "trained.pt", "--select", "DL501", "--input", "8x8"]
    formats = [item for page in pages for item in ("--output-format", page)]
    assert run(["deep:Net", *given, *formats]) == 1
    text = capsys.readouterr().out
    (target,) = json.loads((here / "a.json").read_text())["targets"]
    found = {item["norm"]["name"]: item["delta"] for item in target["findings"]}
    assert len(found) >= 14
    assert len(json.loads((here / "s.sarif").read_text())["runs"][0]["results"]) == len(found)
    assert text.count("warning[DL501]") == 1
    assert f"norms  {len(found)} of this model" in text
    ordered = sorted(found, key=found.__getitem__)
    rows = [line.split() for line in text.splitlines() if line.startswith(" " * 9) and " Δ " in line]
    assert [row[0] for row in rows] == ordered[:12]
    assert f"and {len(found) - 12} more (-v shows them)" in text
    (line,) = (here / "c.txt").read_text().splitlines()
    assert line.startswith("deep:Net:: warning DL501 ") and line.endswith(
        f"({len(found)} modules of deep:Net)"
    )
    assert (here / "g.txt").read_text().count("::warning title=") == 1
    assert f"and {len(found) - 1} more norms" in (here / "m.md").read_text()
    assert f"{len(found)} norms: {ordered[0]} (" in (here / "p.html").read_text()
