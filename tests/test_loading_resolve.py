"""Every form of target, what it builds, and what it says of it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from dropout_lint.inputs.shapes import materialise
from dropout_lint.loading.resolving import resolve

NET = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return self.norm(self.conv(x))

class Net(nn.Module):
    def __init__(self, width=8, drop=0.5, names=()):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.drop = nn.Dropout(drop)
        self.blocks = nn.Sequential(Block(width), Block(width))

    def forward(self, x):
        return self.blocks(self.drop(self.stem(x)))

    @classmethod
    def wide(cls):
        return cls(width=32)

def build(width=8, drop=0.5):
    return Net(width, drop)

def with_inputs():
    return Net(), torch.zeros(4, 3, 16, 16)

def with_transform():
    return Net(), str

model = Net(4)
pair = (Net, (torch.zeros(2, 3, 8, 8),))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; what a test imports from it is forgotten afterwards."""
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, name: str, source: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path


@pytest.mark.parametrize(
    ("attr", "kind", "width"),
    [
        ("Net", "Net", 8),
        ("Net()", "Net", 8),
        ("Net(width=16, drop=0.25, names=['a:b', (1, -2)])", "Net", 16),
        ("build(12, drop=0.1)", "Net", 12),
        ("Net.wide", "Net", 32),
        ("Net.wide()", "Net", 32),
        ("model", "Net", 4),
        ("model.blocks", "Sequential", None),
        ("pair", "Net", 8),
        ("with_inputs", "Net", 8),
    ],
)
@pytest.mark.parametrize("source", ["toynet", "toynet.py", "./toynet.py"])
def test_attribute_forms(folder: Path, source: str, attr: str, kind: str, width: int | None) -> None:
    write(folder, "toynet.py", NET)
    (built,) = resolve(f"{source}:{attr}")
    assert type(built.model).__name__ == kind
    assert built.target == f"{source}:{attr}"
    if width is not None:
        assert built.model.stem.out_channels == width


def test_pairs_bring_their_inputs(folder: Path) -> None:
    write(folder, "toynet.py", NET)
    assert resolve("toynet:pair")[0].inputs.describe() == ("2x3x8x8",)
    assert resolve("toynet:with_inputs")[0].inputs.describe() == ("4x3x16x16",)
    (built,) = resolve("toynet:with_transform")
    assert built.inputs is None
    assert "took the model from what it returned" in built.notes[0]


def test_weights_have_values_only_when_asked(folder: Path) -> None:
    write(folder, "toynet.py", NET)
    (hollow,) = resolve("toynet:Net")
    assert hollow.on_meta
    assert all(parameter.is_meta for parameter in hollow.model.parameters())
    first, second = (resolve("toynet:Net", prefer_meta=False)[0] for _ in range(2))
    assert not first.on_meta
    assert torch.equal(first.model.stem.weight, second.model.stem.weight)
    assert resolve("toynet:model")[0].on_meta is False


def test_building_leaves_the_random_state(folder: Path) -> None:
    write(folder, "toynet.py", NET)
    resolve("toynet:Net")
    before = torch.random.get_rng_state()
    resolve("toynet:Net", prefer_meta=False)
    assert torch.equal(before, torch.random.get_rng_state())


def test_builders_that_read_values(folder: Path) -> None:
    """`tolist`, `item` and NumPy need values; the parameters still have none."""
    write(
        folder,
        "reader.py",
        """
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                rates = [x.item() for x in torch.linspace(0, 0.2, 3)]
                rates += torch.zeros(2).numpy().tolist()
                self.drops = nn.ModuleList(nn.Dropout(rate) for rate in rates)
                self.register_buffer("index", torch.arange(4))
                self.layer = nn.Linear(4, 4)
                self.scale = nn.Parameter(torch.ones(4))
        """,
    )
    (built,) = resolve("reader:Net")
    assert [round(drop.p, 3) for drop in built.model.drops] == [0.0, 0.1, 0.2, 0.0, 0.0]
    assert built.model.layer.weight.is_meta and built.model.scale.is_meta
    assert built.model.index.tolist() == [0, 1, 2, 3]


def test_a_builder_that_runs_a_part_to_learn_a_shape(folder: Path) -> None:
    write(
        folder,
        "learns.py",
        """
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Flatten())
                self.head = nn.Linear(self.stem(torch.zeros(2, 3, 32, 32)).shape[1], 10)
                self.anchors = torch.tensor([1.0, 2.0])
        """,
    )
    (built,) = resolve("learns:Net")
    assert built.on_meta and built.model.head.in_features == 8 * 15 * 15
    assert built.model.anchors.tolist() == [1.0, 2.0]
    assert built.model.stem[1].running_mean.tolist() == [0.0] * 8


def test_a_builder_that_reads_weights_is_built_on_the_cpu(folder: Path) -> None:
    write(
        folder,
        "weights.py",
        """
        from torch import nn

        def build():
            layer = nn.Linear(2, 2)
            assert layer.weight.sum().item() == layer.weight.sum().item()
            return layer
        """,
    )
    (built,) = resolve("weights:build")
    assert not built.on_meta
    assert any("built with weights on the CPU" in note for note in built.notes)


def test_seven_billion_parameters_fit(folder: Path) -> None:
    write(
        folder,
        "giant.py",
        """
        import torch
        from torch import nn

        class Layer(nn.Module):
            def __init__(self, width=4096, inner=11008):
                super().__init__()
                self.attention = nn.MultiheadAttention(width, 32, dropout=0.1)
                self.up = nn.Linear(width, inner)
                self.gate = nn.Parameter(torch.randn(width, inner))
                self.down = nn.Linear(inner, width)
                self.register_buffer("mask", torch.ones(4096, 4096).tril())

        def build():
            layers = [Layer() for _ in range(32)]
            return nn.Sequential(nn.Embedding(32000, 4096), *layers, nn.Linear(4096, 32000))
        """,
    )
    script = (
        "from dropout_lint.loading.resolving import resolve\n"
        "from dropout_lint.runs.worker import memory\n"
        "model = resolve('giant:build')[0].model\n"
        "assert sum(p.numel() for p in model.parameters()) > 6_500_000_000\n"
        "print(memory() // 2**20)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert int(done.stdout) < 1500  # MiB, torch itself included


def test_a_model_written_for_cuda_is_built_here(folder: Path) -> None:
    write(
        folder,
        "for_cuda.py",
        """
        import torch
        from torch import nn

        def build():
            table = torch.arange(3, device="cuda").to("cuda:0")
            model = nn.Linear(3, 3, device="cuda").to(torch.device("cuda")).cuda()
            model.register_buffer("table", table)
            return model
        """,
    )
    (built,) = resolve("for_cuda:build")
    assert built.model.table.device.type in ("cpu", "cuda")


def test_files_are_imported_the_way_their_package_wants(folder: Path) -> None:
    write(folder, "src/pack/__init__.py", "")
    write(folder, "src/pack/parts.py", "from torch import nn\nclass Part(nn.Linear):\n    pass\n")
    write(folder, "src/pack/net.py", "from .parts import Part\ndef build():\n    return Part(2, 2)\n")
    write(folder, "loose/helper.py", "from torch import nn\nLayer = nn.Linear\n")
    write(folder, "loose/net.py", "import helper\ndef build():\n    return helper.Layer(2, 3)\n")
    write(folder, "odd-name/my net.py", "from torch import nn\ndef build():\n    return nn.Linear(2, 4)\n")
    assert type(resolve("src/pack/net.py:build")[0].model).__module__ == "pack.parts"
    assert resolve("loose/net.py:build")[0].model.out_features == 3
    assert resolve("odd-name/my net.py:build")[0].model.out_features == 4
    assert resolve(f"{folder}/src/pack/net.py:build")[0].model.out_features == 2


def test_a_module_is_not_scripted_or_compiled(folder: Path) -> None:
    write(
        folder,
        "scripted.py",
        """
        import torch
        from torch import nn

        @torch.jit.script
        def double(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        def build():
            return torch.compile(torch.jit.script(nn.Linear(2, 2)))
        """,
    )
    (built,) = resolve("scripted:build")
    assert type(built.model) is nn.Linear
    assert type(sys.modules["scripted"].double).__name__ == "function"
    assert isinstance(torch.jit.script(nn.Linear(2, 2)), torch.jit.ScriptModule)
    assert "TORCHDYNAMO_DISABLE" not in os.environ


def test_stdout_stays_clean(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(
        folder,
        "loud.py",
        """
        import os
        from torch import nn
        print("while importing")
        def build():
            print("while building")
            os.system("echo from a child")
            return nn.Linear(2, 2)
        """,
    )
    resolve("loud:build")
    out, err = capfd.readouterr()
    assert out == ""
    assert all(text in err for text in ("while importing", "while building", "from a child"))


def test_pretrained_weights_are_not_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(folder))
    for target in (
        "torchvision.models.segmentation:lraspp_mobilenet_v3_large",
        'torchvision.models:resnet18(weights="DEFAULT")',
        'timm:create_model("resnet18", pretrained=True)',
    ):
        (built,) = resolve(target)
        assert any("pretrained weights were not fetched" in note for note in built.notes)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("torchvision.models:densenet121(drop_rate=0.2)", "DenseNet"),
        ("torchvision.models.segmentation:deeplabv3_resnet50(weights_backbone=None)", "DeepLabV3"),
        ('timm:create_model("efficientnet_b0", drop_rate=0.2)', "EfficientNet"),
        ("torchvision.models:regnet_y_400mf", "RegNet"),
    ],
)
def test_libraries_as_typed(target: str, name: str) -> None:
    (built,) = resolve(target)
    assert type(built.model).__name__ == name
    assert built.on_meta
    if name == "DenseNet":
        assert built.model.features.denseblock1.denselayer1.drop_rate == 0.2
    if name == "EfficientNet":
        assert built.model.drop_rate == 0.2


def test_materialise_fills_by_dtype(folder: Path) -> None:
    write(folder, "toynet.py", NET)
    texts = ("2x3", "a=4:int64", "b=5:bool", "c=2:float16")
    write(
        folder,
        "open.py",
        "from torch import nn\nclass Net(nn.Linear):\n    def forward(self, x, **kw):\n        pass\n",
    )
    (built,) = resolve("open:Net(2, 2)", inputs=texts)
    filled = materialise(built.inputs)
    assert filled.describe() == built.inputs.describe() == ("2x3", "a=4:int64", "b=5:bool", "c=2:float16")
    assert filled.args[0].abs().sum() > 0
    assert filled.kwargs["a"].tolist() == [0] * 4
    assert filled.kwargs["b"].all()
    assert torch.equal(filled.args[0], materialise(built.inputs).args[0])
