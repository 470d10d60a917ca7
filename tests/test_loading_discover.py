"""Files and folders stand for the models in them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dropout_lint.errors import TargetError
from dropout_lint.loading.resolving import resolve

Write = Callable[[str, str], Path]

HEAD = "import torch\nfrom torch import nn\n"
NET = """
class Block(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(width, width)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

class Wide(Net):
    pass
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)

    def put(name: str, source: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(HEAD + textwrap.dedent(source))
        return file

    yield put
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def targets(text: str) -> list[str]:
    return [built.target for built in resolve(text)]


def test_parts_are_judged_in_the_models_that_hold_them(write: Write) -> None:
    write("nets.py", NET)
    assert targets("nets.py") == ["nets.py:Net", "nets.py:Wide"]


def test_each_found_target_can_be_named(write: Write) -> None:
    write("nets.py", NET)
    for built in resolve("nets.py"):
        (again,) = resolve(built.target)
        assert type(again.model) is type(built.model)


def test_factories_by_annotation_and_by_source(write: Write) -> None:
    write(
        "factories.py",
        """
        class Net(nn.Linear):
            def __init__(self, width):
                super().__init__(width, width)

        def annotated() -> nn.Module:
            return make()

        def named() -> "Net":
            return make()

        def make():
            return nn.Linear(2, 2)

        def direct():
            return Net(2)

        def stored(width=3):
            net = Net(width)
            return net

        def indirect():
            return direct()

        def pair():
            return Net(5), torch.zeros(2, 5)

        def needs(width) -> nn.Module:
            return Net(width)

        def main():
            raise SystemExit("never called")

        def something():
            raise SystemExit("never called")

        def _private():
            return Net(2)
        """,
    )
    found = resolve("factories.py")
    names = [built.target.partition(":")[2] for built in found]
    assert names == ["annotated", "named", "make", "direct", "stored", "indirect", "pair"]
    assert found[-1].inputs is not None and found[-1].inputs.describe() == ("2x5",)
    notes = found[0].notes
    assert "factories.py:Net was passed over: it needs width" in notes
    assert "factories.py:needs was passed over: it needs width" in notes


def test_what_is_no_model_of_the_file_is_left_out(write: Write) -> None:
    write("other.py", "class Imported(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n")
    write(
        "mixed.py",
        """
        from abc import ABC, abstractmethod
        from torchvision.models import resnet18
        from other import Imported

        class Loss(nn.Module):
            def forward(self, x, y):
                return (x - y).abs().mean()

        class Abstract(nn.Module, ABC):
            @abstractmethod
            def forward(self, x): ...

        class Raises(nn.Module):
            def __init__(self):
                raise ValueError("not today")

        class _Private(nn.Linear):
            def __init__(self):
                super().__init__(2, 2)

        class Fine(_Private):
            pass

        model = nn.Sequential(nn.Linear(3, 3))
        alias = model
        number = 3
        """,
    )
    found = resolve("mixed.py")
    assert [built.target for built in found] == ["mixed.py:Fine", "mixed.py:model"]
    assert "mixed.py:Loss was passed over: it has no parameters" in found[0].notes
    assert any("mixed.py:Raises was passed over" in note and "not today" in note for note in found[0].notes)


def test_example_inputs_beside_the_models_go_to_those_that_take_them(write: Write) -> None:
    write(
        "examples.py",
        """
        class One(nn.Linear):
            def __init__(self):
                super().__init__(3, 3)

        class Two(nn.Linear):
            def __init__(self):
                super().__init__(3, 3)
            def forward(self, x, y):
                return x

        class Other(nn.Conv1d):
            def __init__(self):
                super().__init__(5, 5, 1)

        example_inputs = (torch.zeros(7, 3, 3),)
        """,
    )
    one, two, other = resolve("examples.py")
    assert one.inputs is not None and one.inputs.describe() == ("7x3x3",)
    assert two.inputs is None and other.inputs is None


def test_folders(write: Write) -> None:
    net = "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"
    for name in ("nets/b.py", "nets/a.py", "nets/deep/c.py"):
        write(name, net)
    for name in (
        "nets/.hidden/d.py",
        "nets/.secret.py",
        "nets/tests/e.py",
        "nets/test_f.py",
        "nets/site-packages/g.py",
        "nets/setup.py",
        "nets/env2/lib/h.py",
    ):
        write(name, net + "\nraise SystemExit('never imported')\n")
    (Path("nets/env2") / "pyvenv.cfg").write_text("")
    write("nets/script.py", "raise SystemExit('a script, never imported')\n")
    write("nets/trains.py", net + "\nfor _ in range(3):\n    torch.ones(1).backward()\n")
    write("nets/broken.py", net + "\n1 / 0\n")
    found = resolve("nets")
    assert [built.target for built in found] == ["nets/a.py:Net", "nets/b.py:Net", "nets/deep/c.py:Net"]
    assert any(
        "nets/broken.py was passed over" in note and "ZeroDivisionError" in note for note in found[0].notes
    )


def test_a_folder_is_linted_as_its_files_are_when_they_are_named(write: Write) -> None:
    write("nets/chained.py", "_part = 3\nnet: nn.Module = nn.Sequential(nn.Linear(2, 2)).eval()\n")
    write("nets/factory.py", "def build():\n    net = nn.Linear(2, 2)\n    return net\n")
    write("nets/helper.py", "def made(width):\n    return nn.Linear(width, 2)\n\nnet = made(2)\n")
    write("nets/marked.py", "").write_bytes(b"\xef\xbb\xbf" + (HEAD + NET).encode())
    write("nets/named.py", "from torch.nn import Linear as Layer\none, two = Layer(2, 2), Layer(2, 2)\n")
    write("nets/old.py", "").write_bytes(f"# coding: latin-1\n# \xe9\n{HEAD}{NET}".encode("latin-1"))
    write("nets/tried.py", "try:\n    import nowhere\nexcept ImportError:\n    net = torch.nn.Linear(2, 2)\n")
    found = targets("nets")
    assert found == [target for file in sorted(Path("nets").iterdir()) for target in targets(str(file))]
    assert len(found) == 10


def test_a_script_that_only_uses_torch_is_not_imported(write: Write) -> None:
    write("nets/net.py", "net = nn.Linear(2, 2)\n")
    raises = "\nraise SystemExit('never imported')\n"
    for name, text in {
        "loss": "criterion = nn.CrossEntropyLoss()\nsoft = nn.Softmax(dim=1).eval()",
        "functional": "x = nn.functional.relu(torch.ones(2))\ny = nn.Parameter(x)",
        "private": "_net = nn.Linear(2, 2)",
        "other": "from net import net\nx = net(torch.ones(2))\nlinear = torch.linalg.norm(x)",
        "local": "def use(width):\n    return nn.Linear(width, 2)",
        "guarded": "if __name__ == '__main__':\n    net = nn.Linear(2, 2)",
    }.items():
        write(f"nets/{name}.py", text + raises)
    write("nets/trains.py", "net = nn.Linear(2, 2)\nnet(torch.ones(2)).sum().backward()\n")
    (built,) = resolve("nets")
    assert built.target == "nets/net.py:net"
    trains = "nets/trains.py was passed over: it trains as soon as it is imported; name the file to lint it"
    assert built.notes == (trains,)
    assert built.unseen == ()


def test_what_could_not_be_looked_at_is_told_apart_from_what_is_no_model(write: Write) -> None:
    write("nets/broken.py", "def (\n")
    write("nets/needs.py", "class Net(nn.Linear):\n    pass\n")
    write(
        "nets/net.py",
        """
        class Inner(nn.Linear):
            def __init__(self, width=None):
                super().__init__(width, width)

        class Raises(nn.Module):
            def __init__(self):
                raise ValueError("not today")

        def build():
            return Inner(2)
        """,
    )
    write("nets/null.py", "x = '\0'\n")
    write("nets/wants.py", "import nowhere_at_all\nclass Net(nn.Module):\n    pass\n")
    (built,) = resolve("nets")
    assert [note.partition(" was passed over")[0] for note in built.unseen] == [
        "nets/broken.py",
        "nets/net.py:Raises",
        "nets/null.py",
        "nets/wants.py",
    ]
    assert "reading it raised SyntaxError: invalid syntax (broken.py, line 3)" in built.unseen[0]
    assert set(built.unseen) < set(built.notes)
    assert "nets/needs.py:Net was passed over: it needs in_features, out_features" in built.notes


def test_nothing_found_says_what_was_passed_over(write: Write) -> None:
    write("needs.py", "class Net(nn.Linear):\n    pass\n")
    with pytest.raises(TargetError) as caught:
        resolve("needs.py")
    assert "found no model in needs.py" in caught.value.message
    assert "needs.py:Net was passed over: it needs in_features, out_features" in (caught.value.details or "")
    Path("empty").mkdir()
    with pytest.raises(TargetError, match="found no model in empty"):
        resolve("empty")


def test_inputs_for_a_whole_file(write: Write) -> None:
    write("nets.py", "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n")
    (built,) = resolve("nets.py", inputs=["4x2"])
    assert built.inputs is not None and built.inputs.describe() == ("4x2",)


def test_links_bring_nothing_twice_and_end_in_no_circle(write: Write) -> None:
    file = write(
        "s/p/net.py", "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"
    )
    (file.parent / "again").symlink_to(file.parent)
    (file.parent / "alias.py").symlink_to(file)
    (file.parents[1] / "b").symlink_to(file.parent)
    (file.parents[1] / "round.py").symlink_to(file.parents[1] / "round.py")
    assert [model.target for model in resolve("s")] == ["s/p/net.py:Net"]
