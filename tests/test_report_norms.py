"""Stale statistics (DL501): told once for a model, with its norms."""

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


@pytest.fixture
def given(here: Path) -> list[str]:
    """How to lint a trained network with 15 norms that dropout feeds."""
    (here / "deep.py").write_text(NET)
    scope: dict[str, object] = {}
    exec(NET, scope)
    model = scope["Net"]()  # type: ignore[operator]
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(30):
            model(torch.randn(64, 8))
    torch.save(model.state_dict(), here / "trained.pt")
    return ["deep:Net", "--checkpoint", "trained.pt", "--select", "DL501", "--input", "8x8"]


def test_norms_come_as_one_table(here: Path, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pages = [
        "text",
        "concise=c.txt",
        "github=g.txt",
        "markdown=m.md",
        "html=p.html",
        "json=a.json",
        "sarif=s.sarif",
        "junit=j.xml",
    ]
    formats = [item for page in pages for item in ("--output-format", page)]
    assert run([*given, *formats]) == 1
    text = capsys.readouterr().out
    report = json.loads((here / "a.json").read_text())
    ((finding,),) = (target["findings"] for target in report["targets"])
    assert report["summary"]["warning"] == 1
    found = {norm["name"]: norm["delta"] for norm in finding["norms"]}
    assert len(found) >= 14
    assert list(found) == sorted(found, key=found.__getitem__)
    assert (finding["norm"]["name"], finding["delta"]) == next(iter(found.items()))
    (result,) = json.loads((here / "s.sarif").read_text())["runs"][0]["results"]
    assert result["properties"]["norms"] == finding["norms"]
    assert [place["fullyQualifiedName"] for place in result["locations"][0]["logicalLocations"]] == [*found]
    assert all(f"{name} (" in result["message"]["text"] for name in found)
    junit = (here / "j.xml").read_text()
    assert junit.count("<testcase") == 1 and all(f"{name}: delta" in junit for name in [*found][1:])
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


def test_a_baseline_knows_them_one_by_one(
    here: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*given, "--write-baseline"]) == 0
    file = here / ".dropout-lint-baseline.json"
    baseline = json.loads(file.read_text())
    entries = baseline["targets"]["deep:Net"]
    assert len(entries) >= 14
    baseline["targets"]["deep:Net"] = entries[2:]
    file.write_text(json.dumps(baseline))
    capsys.readouterr()
    given += ["--baseline", file.name, "--output-format", "json=a.json", "--output-format", "sarif=s.sarif"]
    assert run(given) == 1
    (target,) = json.loads((here / "a.json").read_text())["targets"]
    (finding,), (aside,) = target["findings"], target["suppressed"]
    assert {norm["name"] for norm in finding["norms"]} == {entry["norm"] for entry in entries[:2]}
    assert {norm["name"] for norm in aside["finding"]["norms"]} == {entry["norm"] for entry in entries[2:]}
    results = json.loads((here / "s.sarif").read_text())["runs"][0]["results"]
    assert len({item["partialFingerprints"]["dropoutLint/v1"] for item in results}) == len(results) == 2


def test_a_fingerprint_outlives_the_worst_norm(here: Path, given: list[str]) -> None:
    prints, worsts = set(), set()
    for _ in range(2):
        run([*given, "--output-format", "sarif=s.sarif"])
        (result,) = json.loads((here / "s.sarif").read_text())["runs"][0]["results"]
        prints.add(result["partialFingerprints"]["dropoutLint/v1"])
        state = torch.load(here / "trained.pt")
        worst = result["properties"]["norms"][0]["name"]
        worsts.add(worst)
        state[f"{worst}.running_var"] *= 10
        torch.save(state, here / "trained.pt")
    assert (len(prints), len(worsts)) == (1, 2)
