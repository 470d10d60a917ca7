"""The wheel holds what the installed tool reads, and the sdist what its tests read."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RULES = sorted(path.name for path in (ROOT / "rules").glob("DL*.md"))

pytestmark = pytest.mark.slow


def build(command: list[str], folder: Path) -> Path:
    """The one file that `command`, run in the checkout, puts into `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.iterdir()
    return file


def wheel(source: Path, folder: Path) -> Path:
    return build(
        ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)],
        folder,
    )


def test_the_wheel_holds_the_rules_and_runs_without_the_checkout(tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel(ROOT, tmp_path / "wheel")) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert RULES
    inside = [name.rpartition("/")[2] for name in names if name.startswith("dropout_lint/rules/builtin/DL")]
    assert sorted(inside) == RULES
    assert {"dropout_lint/py.typed", "dropout_lint/report/formats/html/template.html"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "fixtures/", "rules/"))]
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); from dropout_lint.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", run, str(tmp_path / "site"), "rule"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [name[:5] for name in RULES]


def test_the_sdist_holds_tests_fixtures_and_rules_and_gives_the_same_wheel(tmp_path: Path) -> None:
    out = tmp_path / "sdist"
    sdist = build(["hatchling", "build", "-t", "sdist", "-d", str(out)], out)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"rules/{name}" for name in RULES} <= names
    assert {"tests/conftest.py", "fixtures/pointnet.py", "LICENSE", ".pre-commit-hooks.yaml"} <= names
    again = zipfile.ZipFile(wheel(sdist, tmp_path / "again")).namelist()
    first = zipfile.ZipFile(wheel(ROOT, tmp_path / "first")).namelist()
    assert again == first
