"""What the README shows is run: Python blocks and the first ten minutes; its links lead somewhere."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from sarif_schema import problems
from walkthrough import ROOT, bash, newcomer, walk

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_python_blocks_run(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})


def test_the_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_first_ten_minutes_go_as_shown(tmp_path: Path) -> None:
    pytest.importorskip("pre_commit")
    folder, environment = newcomer(tmp_path)
    bash("git init -q", folder, environment)
    section = README.split("## In ten minutes\n")[1].split("\n## ")[0]
    assert len(walk(section, folder, environment)) >= 6
    assert problems(json.loads((folder / "../net.sarif").read_text())) == []
    assert bash("git log --format=%s", folder, environment) == "a net\n"
    assert "DL102" in (folder / "../report.html").read_text()


PACKAGES = ("torchvision", "timm", "transformers", "lightning")


@pytest.mark.slow
@pytest.mark.skipif(None in map(find_spec, PACKAGES), reason=f"needs {PACKAGES}")
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_twelve_models_in_ci_go_as_shown(tmp_path: Path) -> None:
    folder, environment = newcomer(tmp_path)
    shutil.copytree(ROOT / "tests" / "data" / "project", folder, dirs_exist_ok=True)
    bash("git init -q", folder, environment)
    page = (ROOT / "docs" / "twelve-models-in-ci.md").read_text()
    assert len(walk(page, folder, environment)) >= 8
    assert problems(json.loads((folder / "dropout.sarif").read_text())) == []
