"""docs/targets.md: every kind of target, run as it is written there; and a folder with files of each kind."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from cli_project import ROOT

from dropout_lint.cli import run

ROW = re.compile(r"\| (?P<kind>[^|]+) \| `dropout-lint ?(?P<command>[^|]*)` \| (?P<model>\w+) \|")
ROWS = [
    match for line in (ROOT / "docs" / "targets.md").read_text().splitlines() if (match := ROW.match(line))
]


@pytest.fixture
def project(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "tests" / "data" / "project", here / "project")
    monkeypatch.chdir(here / "project")
    return here / "project"


def test_the_table_is_read() -> None:
    table = (ROOT / "docs" / "targets.md").read_text().splitlines()
    assert len(ROWS) == sum(line.startswith("| ") for line in table) - 1 >= 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["kind"])
def test_a_kind_of_target(project: Path, capsys: pytest.CaptureFixture[str], row: re.Match[str]) -> None:
    words = shlex.split(row["command"])
    for name, package in (("Hydra", "hydra"), ("torch_geometric", "torch_geometric")):
        if name in row["kind"]:
            pytest.importorskip(package)
    assert run([*words, "--output-format", "json"]) in (0, 1)
    out, err = capsys.readouterr()
    targets = json.loads(out)["targets"]
    assert any(target["model"] == row["model"] for target in targets)
    assert all(target["error"] is None for target in targets)
    assert "error" not in err


FOUND = [
    "cuda.py:build_model", "dicts.py:Net", "from_file.py:build", "graphs.py:Net", "hugging.py:Tagger",
    "lightning_net.py:LitNet", "pairs.py:build", "pairs.py:pair", "plain.py:build", "plain.py:net",
    "plain.py:fast", "pretrained.py:Transfer", "registry.py:small", "registry.py:deep", "registry.py:build",
    "registry.py:ready", "speech.py:Net", "tabular.py:Net", "tokens.py:Net",
]  # fmt: skip
NAMED = {
    "configured.py:Net": "it needs config",
    "optional.py": "needs `nowhere_at_all`, which is not here",
    "train.py": "it trains as soon as it is imported",
}


def test_a_folder_finds_or_names_every_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["src/", "--output-format", "json"]) == 1
    out, err = capsys.readouterr()
    targets = json.loads(out)["targets"]
    assert [target["target"].removeprefix("src/zoo/") for target in targets] == FOUND
    passed = [note for target in targets for note in target["notes"] if "passed over" in note]
    assert [note.partition(" was")[0].removeprefix("src/zoo/") for note in passed] == list(NAMED)
    assert all(why in note for why, note in zip(NAMED.values(), passed, strict=True))
    assert err == ""
    tried = {name.partition(":")[0] for name in [*FOUND, *NAMED]}
    assert tried == {file.name for file in (project / "src" / "zoo").iterdir()} - {"__init__.py", "data.py"}
