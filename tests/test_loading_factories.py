"""Files and folders: whatever can be called and may give a model is tried, or named with the reason."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from cli_project import edit

from dropout_lint.cli import run

HEAD = """
import functools
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Config:
    drop: float = 0.3

class _Net(nn.Sequential):
    def __init__(self, config):
        super().__init__(nn.Linear(4, 8), nn.Dropout(config.drop), nn.BatchNorm1d(8))

REGISTRY = {}

def register(function):
    REGISTRY[function.__name__] = function
    return function
"""


def lint(here: Path, source: str, target: str = "zoo/f.py", head: str = HEAD) -> tuple[list[str], list[str]]:
    """Names of the models that are found, and the notes."""
    file = here / "zoo" / "f.py"
    file.parent.mkdir(exist_ok=True)
    edit(file, head + textwrap.dedent(source))
    run([target, "--no-cache", "--allow-empty", "--output-format", "json=found.json"])
    targets = json.loads((here / "found.json").read_text())["targets"]
    found = [item["target"].partition(":")[2] for item in targets if item["status"] != "partial"]
    return found, [note for item in targets for note in item["notes"]]


FOUND = {
    "by a registry": "@register\ndef small():\n    return _Net(Config())\n\ndef build(name='small'):\n"
    "    return REGISTRY[name]()\n",
    "by a local name": "def model_a():\n    cls = _Net\n    return cls(Config()).eval()\n",
    "by a default": "def smallest(kind=_Net, width=3):\n    return kind(Config())\n",
    "by a local table": "def chosen(n='a'):\n    models = {'a': _Net}\n    return models[n](Config())\n",
    "by one branch": "def either(kind='x'):\n    if kind == 'x':\n        net = _Net(Config())\n"
    "    else:\n        net = None\n    return net\n",
    "by what it gives back": "def warm(net):\n    net.train()\n    return net\n\n"
    "def small():\n    return warm(_Net(Config()))\n",
    "by its name alone": "def build_model(config='conf.yaml'):\n    from importlib import import_module\n"
    "    return getattr(import_module(__name__), '_Net')(Config())\n",
    "by what it calls": "def tiny():\n    from torchvision.models import resnet18\n"
    "    return resnet18(num_classes=3)\n",
    "by a function from elsewhere": "from torchvision.models import resnet18\n\n"
    "def ten(classes=10):\n    return resnet18(num_classes=classes)\n",
    "as a partial": "ready = functools.partial(_Net, Config())\n",
    "as a lambda": "ready = lambda: _Net(Config())\n",
    "behind a decorator": "@functools.lru_cache\ndef kept():\n    return _Net(Config())\n",
    "compiled": "def fast():\n    return torch.compile(_Net(Config()))\n",
    "by a union": "def maybe() -> 'nn.Module | None':\n    return globals()['_Net'](Config())\n",
}


@pytest.mark.parametrize("how", FOUND)
def test_a_factory_is_found(here: Path, how: str) -> None:
    source = FOUND[how]
    names = {"by a registry": ["small", "build"]}.get(how)
    found, notes = lint(here, source)
    assert found == (names or [line_name(source)])
    assert not any("passed over" in note for note in notes)


def line_name(source: str) -> str:
    """The last public name that is bound at the beginning of a line."""
    last = [line for line in source.splitlines() if line[:1].isalpha() and not line.startswith("from")][-1]
    return last.removeprefix("def ").split("(")[0].split(" =")[0]


NOT_CALLED = {
    "nothing": "def clean():\n    raise SystemExit('called')\n",
    "a number": "def count(x=3):\n    raise SystemExit('called')\n    return x + 1\n",
    "a tensor": "def noise():\n    raise SystemExit('called')\n    return torch.zeros(3)\n",
    "another class": "def settings():\n    raise SystemExit('called')\n    it = Config()\n    return it\n",
    "a generator": "def every():\n    raise SystemExit('called')\n    yield _Net(Config())\n",
    "a function": "def make():\n    def inner():\n        return _Net(Config())\n    return inner\n",
    "annotated": "import os\ndef make() -> str:\n    return os.sep.join(REGISTRY)\n",
    "what was given": "def wrapped_model(model):\n    return model\n",
}


@pytest.mark.parametrize("what", NOT_CALLED)
def test_what_gives_no_module_is_neither_called_nor_named(here: Path, what: str) -> None:
    found, notes = lint(here, NOT_CALLED[what])
    assert (found, notes) == ([], [])


def test_what_only_a_call_would_tell_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = """
    import shutil

    def deploy():
        return REGISTRY["x"].send()

    def publish():
        return shutil.unknown()

    def train():
        return _Net(Config())

    def make_one(config):
        return _Net(config)
    """
    lint(here, source)
    assert run(["zoo/f.py", "--no-cache"]) == 2
    _, err = capsys.readouterr()
    assert "found no model in zoo/f.py that can be built without arguments among what was tried" in err
    assert "zoo/f.py:deploy, publish were passed over: only calling them would tell" in err
    assert "zoo/f.py:train was passed over: by its name it does more than build a model" in err
    assert "zoo/f.py:make_one was passed over: it needs config" in err


def test_what_is_tried_by_its_name_and_gives_no_model_is_no_model(here: Path) -> None:
    source = "def build_net():\n    return globals().get('Config')()\n"
    assert lint(here, source) == ([], [])
    found, notes = lint(here, "def build_net():\n    return globals()['_Nets']()\n")
    assert found == [] and "zoo/f.py:build_net was passed over: building" in notes[0]


FILES = {
    "from a table": (
        "from nets import TABLE\n\ndef build(name='net'):\n    return TABLE[name]()\n",
        ["build"],
    ),
    "from another file": ("from nets import make_net\n\ndef tiny():\n    return make_net()\n", ["tiny"]),
    "from torchvision": (
        "import torchvision\n\ndef tiny():\n    return torchvision.models.resnet18(num_classes=2)\n",
        ["tiny"],
    ),
}


@pytest.mark.parametrize("how", FILES)
def test_a_folder_looks_into_files_that_build_what_others_define(here: Path, how: str) -> None:
    source, names = FILES[how]
    (here / "nets.py").write_text(
        "from torch import nn\n\ndef make_net():\n    return nn.Linear(2, 2)\n\nTABLE = {'net': make_net}\n"
    )
    found, _ = lint(here, source, target="zoo", head="")
    assert found == names


def test_a_folder_names_what_it_does_not_import(here: Path) -> None:
    never = "\nraise SystemExit('imported')\n"
    source = (
        "import torch\nfrom stuff import load\n\ndef later():\n    return load()\n\nnet = load_net('x')\n"
    )
    (here / "zoo").mkdir()
    (here / "zoo" / "net.py").write_text("from torch import nn\nnet = nn.Linear(2, 2)\n")
    found, notes = lint(here, source + never, target="zoo", head="")
    assert found == ["net"]
    assert any("zoo/f.py:later was passed over: only calling it would tell" in note for note in notes)
    assert any("zoo/f.py:net was passed over: only importing the file would" in note for note in notes)
    plain = "import json\n\ndef later():\n    return json.load(open('x'))\n\ndef now():\n    return parse()\n"
    assert "f.py" not in str(lint(here, plain + never, target="zoo", head="")[1])
