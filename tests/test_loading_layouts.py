"""Projects whose packages lie in `src/` or elsewhere: their modules are found by themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_project import table

from dropout_lint.cli import run

BLOCKS = """
from torch import nn

class Block(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
"""
NET = """
from torch import nn
from {package}.blocks import Block

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 4), Block())
"""
FINDING = "DL101 Dropout (p = 0.5)"


def package(folder: Path, name: str, *, init: bool = True) -> None:
    """A package of two files, of which one imports the other by the package's name."""
    place = folder / name
    place.mkdir(parents=True)
    if init:
        (place / "__init__.py").write_text("")
    (place / "blocks.py").write_text(BLOCKS)
    (place / "net.py").write_text(NET.format(package=name))


LAYOUTS = {
    "src": ("src", ""),
    "setuptools-dir": ("lib", '[tool.setuptools]\npackage-dir = {"" = "lib"}'),
    "setuptools-package": ("lib/a", '[tool.setuptools.package-dir]\n"shop1" = "lib/a/shop1"'),
    "setuptools-find": ("python", '[tool.setuptools.packages.find]\nwhere = ["python"]'),
    "hatch-packages": ("code", '[tool.hatch.build.targets.wheel]\npackages = ["code/shop2"]'),
    "hatch-sources": ("code", '[tool.hatch.build]\nsources = ["code"]'),
    "poetry": ("lib", '[[tool.poetry.packages]]\ninclude = "shop"\nfrom = "lib"'),
    "pdm": ("lib", '[tool.pdm.build]\npackage-dir = "lib"'),
    "uv": ("lib", '[tool.uv.build-backend]\nmodule-root = "lib"'),
    "pytest-paths": ("lib", '[tool.pytest.ini_options]\npythonpath = ["lib", "tests"]'),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packages_are_found_where_the_build_tool_finds_them(
    here: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    folder, text = LAYOUTS[layout]
    name = {"setuptools-package": "shop1", "hatch-packages": "shop2"}.get(layout, layout.replace("-", "_"))
    package(here / folder, name)
    (here / "pyproject.toml").write_text(text)
    assert run([f"{name}.net:Net", "--output-format", "concise"]) == 1
    assert FINDING in capsys.readouterr().out


def test_a_folder_without_init_files_is_imported_as_its_own_code_imports_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package(here / "src", "stall", init=False)
    for _ in range(2):
        assert run(["src", "--output-format", "concise"]) == 1
        out, err = capsys.readouterr()
        assert FINDING in out and err == ""
    assert run(["src/stall/net.py:Net", "--output-format", "concise"]) == 1


def test_modules_of_src_are_found_from_a_subfolder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package(here / "src", "kiosk")
    table(here, 'targets = ["kiosk.net:Net"]')
    (here / "notes").mkdir()
    monkeypatch.chdir(here / "notes")
    assert run(["--output-format", "concise"]) == 1
    assert FINDING in capsys.readouterr().out


def test_pythonpath_is_a_setting_relative_to_its_file(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package(here / "deep" / "down", "booth")
    table(here, 'targets = ["booth.net:Net"]\npythonpath = ["deep/down"]')
    (here / "notes").mkdir()
    monkeypatch.chdir(here / "notes")
    assert run(["--output-format", "concise"]) == 1
    assert FINDING in capsys.readouterr().out
    run(["check", "--show-settings"])
    assert f'pythonpath = ["{os.path.join(here, "deep", "down")}"]  # file' in capsys.readouterr().out  # noqa: PTH118


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'pythonpath = ["dep"]',
            ["pyproject.toml: `pythonpath` in [tool.dropout-lint]: there is no folder dep"],
        ),
        ('pythonpath = "deep"', ["`pythonpath` in [tool.dropout-lint]: expected `array`"]),
        ("", ["there is no module `shop`", "modules are looked for in", 'pythonpath = ["folder"]']),
    ],
)
def test_what_is_not_found_says_how(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str]
) -> None:
    table(here, text)
    assert run(["shop.net:Net"]) == 2
    _, err = capsys.readouterr()
    assert all(word in err for word in words), err


def test_tables_of_other_tools_may_hold_anything(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "pyproject.toml").write_text(
        "[tool]\nsetuptools = 3\npoetry = {packages = [1, {from = 2}]}\npdm = []\n"
        "[tool.hatch]\nbuild = {packages = {a = 1}, sources = [3], targets = []}\n"
        '[tool.uv.build-backend]\nmodule-root = ["none", "/"]\n'
    )
    assert run(["net.py:Good", "--input", "2x3x8x8"]) == 0
    assert "No misplaced dropout" in capsys.readouterr().out
