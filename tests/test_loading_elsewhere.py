"""A target whose module lacks the name: the hint says what to type, from loaded modules and unread source."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli_project import run_in

from dropout_lint.loading.elsewhere import modules_with

FACTORY = "from torch import nn\n\n\ndef {name}(width=4):\n    return nn.Sequential(nn.Linear(width, 2))\n"


def said(folder: Path, *targets: str) -> list[str]:
    """What the command line says on stderr about targets that it cannot find: two lines for each."""
    done = run_in(folder, *targets, "--no-cache")
    assert done.returncode == 2
    return done.stderr.splitlines()


def package(folder: Path, files: dict[str, str]) -> None:
    """A package `zoo` with these files."""
    for name, text in files.items():
        file = folder / "zoo" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_name_of_a_loaded_submodule(tmp_path: Path) -> None:
    package(
        tmp_path,
        {
            "__init__.py": "import zoo.models\n",
            "models/__init__.py": "from zoo.models.tiny import tiny\nfrom zoo.models._own import hidden\n",
            "models/tiny.py": FACTORY.format(name="tiny"),
            "models/_own.py": FACTORY.format(name="hidden"),
        },
    )
    error, hint, *others = said(tmp_path, "zoo:tiny(width=8)", "zoo:hidden", "zoo.models.tiny:hidden")
    assert error == "error: zoo:tiny(width=8): `zoo` has no attribute `tiny`"
    assert hint == "help: did you mean `zoo.models:tiny(width=8)`?", (
        "the nearest of one and the same function"
    )
    assert others[1::2] == ["help: did you mean `zoo.models:hidden`?"] * 2


def test_a_name_of_a_module_that_is_not_loaded_is_read_and_not_imported(tmp_path: Path) -> None:
    loud = "open('imported', 'w').close()\nraise SystemExit(7)\n"
    package(
        tmp_path,
        {
            "__init__.py": "",
            "nets/deep/big.py": loud + FACTORY.format(name="big"),
            "nets/other.py": loud + "def big_one():\n    pass\n\n\nbig = None\n",
            "_private.py": FACTORY.format(name="big"),
        },
    )
    assert said(tmp_path, "zoo:big") == [
        "error: zoo:big: `zoo` has no attribute `big`",
        "help: did you mean `zoo.nets.deep.big:big`?",
    ]
    assert not (tmp_path / "imported").exists()


def test_a_builder_by_name_is_named_where_nothing_else_is_found(tmp_path: Path) -> None:
    package(tmp_path, {"__init__.py": FACTORY.format(name="create_model").replace("width=4", "name")})
    hint = said(tmp_path, "zoo:alex.v2")[1]
    assert hint == 'help: if `create_model` knows that name: `zoo:create_model("alex.v2")`'


def test_what_only_looks_like_the_name_is_not_suggested(tmp_path: Path) -> None:
    package(
        tmp_path,
        {
            "__init__.py": "import zoo.models\n",
            "models.py": "tiny = 3\n\n\nclass Big:\n    made = None\n",
            "broken.py": "\0 not Python, and def small( is cut off",
        },
    )
    hints = said(tmp_path, "zoo:tiny", "zoo:small", "zoo:Big.build")[1::2]
    assert hints == ["help: it has nothing that builds a model"] * 3


@pytest.mark.parametrize(
    ("package", "target", "meant"),
    [
        ("torchvision", "torchvision:resnet18", "torchvision.models:resnet18"),
        ("timm", "timm:resnet26(drop_rate=0.2)", "timm.models:resnet26(drop_rate=0.2)"),
    ],
)
def test_the_zoos(package: str, target: str, meant: str, tmp_path: Path) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    assert f"did you mean `{meant}`" in said(tmp_path, target)[1]


def test_modules_that_cannot_be_looked_into_cost_only_the_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(type(sys)):  # type: ignore[misc]
        @property
        def __dict__(self) -> dict[str, object]:  # type: ignore[override]
            raise RuntimeError("keep out")

    monkeypatch.setitem(sys.modules, "odd_zoo", type(sys)("odd_zoo"))
    monkeypatch.setitem(sys.modules, "odd_zoo.models", Odd("odd_zoo.models"))
    assert modules_with(sys.modules["odd_zoo"], ("net",)) == []
