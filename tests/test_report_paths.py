"""Reports name files from the project or the package on, in every format; no warning leaks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli_project import ROOT, run_in

from dropout_lint.report import FORMATS

DENSE = "torchvision.models:densenet121(drop_rate=0.2)"


def lint(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dropout_lint", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tests" / "data" / "project", tmp_path / "project")
    return tmp_path / "project"


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")
def test_no_format_holds_an_absolute_path(project: Path) -> None:
    (project.parent / "beside").mkdir()
    shutil.copy(project / "src" / "zoo" / "plain.py", project.parent / "beside" / "near.py")
    files = [word for name in FORMATS for word in ("--output-format", f"{name}=out.{name}")]
    done = run_in(project, "zoo.plain:Net", "../beside/near.py:Net", DENSE, "--input", "2x3x64x64", *files)
    assert done.returncode == 1, done.stderr
    installed = str(Path(sys.prefix))
    for name in FORMATS:
        text = (project / f"out.{name}").read_text()
        assert "src/zoo/plain.py" in text, name
        assert "near.py" in text or name in ("github",), name
        for absolute in (str(project), str(project.parent), installed):
            assert absolute not in text, (name, absolute)
        if name not in ("concise", "github"):  # these fold what is installed
            assert "torchvision/models/densenet.py" in text, name


@pytest.mark.slow
def test_nothing_leaks_to_the_user(project: Path) -> None:
    done = lint(project, "src/", "--no-cache")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert not [line for line in lines if re.search(r"Warning|warn\(|site-packages", line)], done.stderr
    told = [line for line in lines if line.startswith("error")]
    assert len(told) == len(set(told))
