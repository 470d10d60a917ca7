"""Every module knows the line that constructed it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from dropout_lint.loading.resolving import resolve

LINES = """
import copy
from dataclasses import dataclass
from functools import partial, wraps
from torch import nn

class Base(nn.Module):
    def __init__(self):
        super().__init__()

class MyDropout(nn.Dropout, Base):
    def __init__(self, p=0.5):
        super().__init__(p)

def decorated(init):
    @wraps(init)
    def wrapper(*args, **kwargs):
        init(*args, **kwargs)
    return wrapper

class Odd(nn.Module):
    @decorated
    def __init__(self):
        super().__init__()

@dataclass(eq=False)
class Data(nn.Module):
    p: float = 0.5
    def __post_init__(self):
        super().__init__()
        self.drop = nn.Dropout(self.p)  # drop in data

def layer(make):
    return make(0.3)  # by a callable

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain = nn.Dropout(0.1)  # plain
        self.mine = MyDropout()  # mine
        self.odd = Odd()  # odd
        self.called = layer(nn.Dropout)
        self.partial = partial(nn.Dropout, 0.4)()  # partial
        self.two = nn.Sequential(  # two
            nn.Linear(2, 2),
            nn.Dropout(0.2),  # inside two
        )
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 3)  # encoder
        self.copied = copy.deepcopy(self.plain)
        self.listed = nn.ModuleList(nn.Dropout(p) for p in (0.1, 0.2))  # listed
        self.same, self.line = nn.Dropout(0.1), nn.Dropout(0.2)  # two on a line

instance = Net()
shared = Data()
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "lines.py"
    file.write_text(LINES)
    yield file
    sys.path[:] = path
    sys.modules.pop("lines", None)


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(LINES.splitlines(), 1) if line.endswith(text))


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        ("plain", "# plain"),
        ("mine", "# mine"),
        ("odd", "# odd"),
        ("called", "# by a callable"),
        ("partial", "# partial"),
        ("two", "# two"),
        ("two.1", "# inside two"),
        ("encoder", "# encoder"),
        ("encoder.layers.0.dropout", "# encoder"),
        ("encoder.layers.2.self_attn", "# encoder"),
        ("copied", "# plain"),
        ("listed.1", "# listed"),
        ("same", "# two on a line"),
    ],
)
@pytest.mark.parametrize("attr", ["Net", "instance"])
def test_the_constructing_line(source: Path, attr: str, name: str, marker: str) -> None:
    (built,) = resolve(f"lines:{attr}")
    place = built.constructed[id(built.model.get_submodule(name))]
    assert place.file == str(source)
    assert place.line == line_of(marker)


def test_columns_tell_two_on_a_line_apart(source: Path) -> None:
    (built,) = resolve("lines:Net")
    line = LINES.splitlines()[line_of("# two on a line") - 1]
    columns = [built.constructed[id(module)].column for module in (built.model.same, built.model.line)]
    assert [line[column - 1 :].split(")")[0] for column in columns] == ["nn.Dropout(0.1", "nn.Dropout(0.2"]


def test_dataclasses_and_their_instances(source: Path) -> None:
    (built,) = resolve("lines:shared")
    assert built.constructed[id(built.model)].line == line_of("shared = Data()")
    assert built.constructed[id(built.model.drop)].line == line_of("# drop in data")


def test_an_instance_keeps_its_lines_when_named_again(source: Path) -> None:
    first, second = resolve("lines:instance")[0], resolve("lines:instance")[0]
    assert first.model is second.model
    assert dict(first.constructed) == dict(second.constructed)
    assert len(first.constructed) == len(list(first.model.modules()))


def test_nothing_is_left_on_the_modules(source: Path) -> None:
    before = nn.Module.__init__, nn.Module.register_parameter, nn.Module.load_state_dict
    (built,) = resolve("lines:instance")
    assert (nn.Module.__init__, nn.Module.register_parameter, nn.Module.load_state_dict) == before
    assert not [key for module in built.model.modules() for key in vars(module) if "dropout_lint" in key]


def test_the_root_of_a_class_target_has_no_line_of_the_tool(source: Path) -> None:
    (built,) = resolve("lines:Net")
    assert not [place for place in built.constructed.values() if "dropout_lint" in place.file]


def test_libraries_count_as_users() -> None:
    (built,) = resolve("torchvision.models:mobilenet_v2")
    places = {built.constructed[id(m)].file for m in built.model.modules() if isinstance(m, nn.Dropout)}
    assert [Path(place).name for place in places] == ["mobilenetv2.py"]
