"""Configured targets whose packages may be missing: noted, and no failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_project import table

from dropout_lint.cli import run

NEEDS = "import nowhere_at_all\nfrom net import Good\n"
LAZY = "from net import Good\n\ndef build():\n    import nowhere_at_all\n    return Good()\n"
TARGETS = """
[[tool.dropout-lint.targets]]
target = "net:Good"
input = ["2x3x8x8"]
[[tool.dropout-lint.targets]]
target = "{target}"
input = ["2x3x8x8"]
optional = true
"""


@pytest.fixture(autouse=True)
def files(here: Path) -> None:
    (here / "needs.py").write_text(NEEDS)
    (here / "lazy.py").write_text(LAZY)
    (here / "bug.py").write_text("from net import Nothing\n")


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("needs:Good", "importing `needs` needs `nowhere_at_all`, which is not here"),
        ("needs.py:Good", "importing needs.py needs `nowhere_at_all`, which is not here"),
        ("lazy:build", "building `lazy:build` raised ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("nowhere_at_all.models:Net", "there is no module `nowhere_at_all`"),
    ],
)
def test_a_missing_package_is_noted(
    here: Path, capsys: pytest.CaptureFixture[str], target: str, cause: str
) -> None:
    (here / "pyproject.toml").write_text(TARGETS.format(target=target))
    pages = [f"{name}={name}.out" for name in ("json", "junit", "markdown", "html", "sarif", "github")]
    formats = [word for page in ["text", *pages] for word in ("--output-format", page)]
    for _ in range(2):  # nothing of it is kept in the cache
        assert run([*formats, "--strict"]) == 0
        out, err = capsys.readouterr()
        assert f"Skipped, it is optional: {cause}" in " ".join(out.split())
        assert "No misplaced dropout found in 1 target; 1 optional target skipped." in out
        assert "error" not in err
    _, skipped = json.loads((here / "json.out").read_text())["targets"]
    assert skipped["status"] == "partial" and cause in skipped["skipped"] and skipped["error"] is None
    assert 'skipped message="' in (here / "junit.out").read_text()
    assert "was skipped, it is optional" in (here / "markdown.out").read_text()
    assert "Skipped, it is optional" in (here / "html.out").read_text()
    assert json.loads((here / "sarif.out").read_text())["runs"][0]["invocations"][0]["executionSuccessful"]
    assert run(["fix"]) == 0
    assert f"{target}: skipped, it is optional: {cause}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("bug:Good", "cannot import name 'Nothing'"),
        ("net:Goood", "`net` has no attribute `Goood`"),
        ("torch.nothing:Net", "there is no module `torch.nothing`"),
    ],
)
def test_whatever_else_is_wrong_fails(
    here: Path, capsys: pytest.CaptureFixture[str], target: str, cause: str
) -> None:
    (here / "pyproject.toml").write_text(TARGETS.format(target=target))
    assert run([]) == 2
    assert cause in capsys.readouterr().err


def test_what_is_not_said_to_be_optional_fails(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(here, 'targets = [{target = "needs:Good", optional = false}]')
    assert run([]) == 2
    assert "install what provides `nowhere_at_all`" in capsys.readouterr().err
