"""Inputs nobody gave: the right shape is among the first guesses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.guess import guess_inputs
from dropout_lint.inputs.shapes import materialise, why_inputs_failed
from dropout_lint.loading.resolving import resolve


def tries(model: nn.Module, limit: int = 64) -> int | None:
    """How many candidates it takes until one runs."""
    model.train()
    for number, candidate in enumerate(guess_inputs(model), 1):
        filled = materialise(candidate)
        try:
            with torch.no_grad():
                model(*filled.args, **filled.kwargs)
            return number
        except Exception:
            if number >= limit:
                break
    return None


class Lambda(nn.Module):
    """A model from a function of itself and its inputs."""

    def __init__(self, *layers: nn.Module, **attributes: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        for name, value in attributes.items():
            setattr(self, name, value)


class Classifier(Lambda):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Tokens(Lambda):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.layers[1](self.layers[0](ids))


class Diffusion(Lambda):
    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x) + self.layers[1](timestep)[:, :, None, None]


class SequenceToSequence(Lambda):
    def forward(self, src: torch.Tensor, tgt: torch.Tensor) -> torch.Tensor:
        return self.layers[1](self.layers[0](src), self.layers[0](tgt))


class Graph(Lambda):
    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        source, target = edge_index
        assert x.dim() == 2
        return self.layers[0](x[source] + x[target])


class Lengths(Lambda):
    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.layers[0](packed)[1][0]


class Images(Lambda):
    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        return self.layers[0](torch.stack(images))


class FlattenFirst(Lambda):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(3)
        return self.layers[0](patches)


class HeadFirst(nn.Module):
    """The head is registered before the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 10)
        self.stem = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).mean((2, 3)))


class Flags(Lambda):
    def forward(self, x: torch.Tensor, return_features: bool, scale: float, *, steps: int) -> torch.Tensor:
        return self.layers[0](x) * scale * steps


class NoInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 4)

    def forward(self) -> torch.Tensor:
        return self.table.weight * 2


class ChannelsLast(Classifier):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(-1, 1))


class FilterBanks(Classifier):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.unsqueeze(1))


def conv(channels: int, rank: int = 2, **more: Any) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](channels, 4, 3, **more)


CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "image": (lambda: Classifier(conv(3), nn.BatchNorm2d(4)), 1),
    "grey 28x28": (lambda: Classifier(conv(1), nn.Flatten(), nn.Linear(4 * 26 * 26, 10)), 12),
    "cifar, fixed by its head": (lambda: Classifier(conv(3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10)), 5),
    "wave": (lambda: Classifier(conv(1, 1)), 1),
    "many channels over time": (lambda: Classifier(conv(40, 1)), 1),
    "steps of features": (lambda: ChannelsLast(conv(40, 1)), 2),
    "image, channels last": (lambda: ChannelsLast(conv(3)), 16),
    "filter banks": (lambda: FilterBanks(conv(1), nn.Flatten(2), nn.Linear(126 * 78, 2)), 16),
    "volume": (lambda: Classifier(conv(1, 3)), 1),
    "vector": (lambda: Classifier(nn.Linear(13, 4), nn.BatchNorm1d(4)), 1),
    "flattened digits": (lambda: Classifier(nn.Flatten(), nn.Linear(784, 10)), 1),
    "sequence into lstm": (lambda: nn.LSTM(12, 8), 1),
    "attention": (lambda: nn.TransformerEncoderLayer(16, 4, batch_first=True), 1),
    "transformer": (lambda: nn.Transformer(16, 4, 1, 1, 32), 2),
    "norm first": (lambda: Classifier(nn.BatchNorm1d(6), nn.Linear(6, 2)), 1),
    "norm over time": (lambda: Classifier(nn.BatchNorm1d(6), nn.Conv1d(6, 2, 3)), 2),
    "generator": (lambda: Classifier(nn.ConvTranspose2d(100, 8, 4), nn.BatchNorm2d(8)), 1),
    "tokens": (lambda: Tokens(nn.Embedding(50, 8), nn.Linear(8, 50)), 1),
    "diffusion": (lambda: Diffusion(conv(3), nn.Embedding(1000, 4)), 1),
    "sequence to sequence": (
        lambda: SequenceToSequence(nn.Embedding(50, 8), nn.Transformer(8, 2, 1, 1, 16)),
        1,
    ),
    "graph": (lambda: Graph(nn.Linear(5, 2)), 1),
    "lengths": (lambda: Lengths(nn.LSTM(7, 3, batch_first=True)), 6),
    "list of images": (lambda: Images(conv(3)), 1),
    "patches into linear": (lambda: FlattenFirst(nn.Linear(192, 8)), 12),
    "head registered first": (HeadFirst, 12),
    "flags": (lambda: Flags(nn.Linear(4, 4)), 1),
    "lazy": (lambda: Classifier(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()), 1),
    "img_size": (
        lambda: Classifier(conv(5, stride=3), nn.Flatten(), nn.Linear(4 * 13 * 13, 2), img_size=40),
        1,
    ),
    "wrapped": (lambda: nn.DataParallel(Classifier(conv(3))), 1),
    "no input": (NoInput, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_guess_runs(name: str) -> None:
    make, most = CASES[name]
    taken = tries(make())
    assert taken is not None, "no candidate runs"
    assert taken <= most


def test_guesses_say_where_they_come_from_and_do_not_repeat() -> None:
    candidates = list(guess_inputs(HeadFirst()))
    assert all(candidate.guessed for candidate in candidates)
    assert {candidate.origin for candidate in candidates} >= {"guessed from head", "guessed from stem"}
    described = [candidate.describe() for candidate in candidates]
    assert len(described) == len(set(described)) <= 64
    assert all(candidate.args[0].is_meta for candidate in candidates)


@pytest.mark.parametrize(
    "target",
    [
        "torchvision.models:resnet18",
        "torchvision.models:inception_v3(init_weights=False)",
        "torchvision.models:vit_b_16",
        "torchvision.models.optical_flow:raft_small",
        "torchvision.models.video:r3d_18",
        "torchvision.models.video:mvit_v2_s",
        "torchvision.models.segmentation:lraspp_mobilenet_v3_large(weights_backbone=None)",
        "torchvision.models.quantization:mobilenet_v2",
        'timm:create_model("swin_tiny_patch4_window7_224", img_size=256)',
        'timm:create_model("resnet18", in_chans=1)',
        'timm:create_model("tf_efficientnet_b1")',
    ],
)
def test_the_first_guess_fits_models_of_the_libraries(target: str) -> None:
    """Shapes alone, on FakeTensors in train mode: no memory, no arithmetic."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    (built,) = resolve(target)
    model = built.model.train()
    candidate = next(guess_inputs(model))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, value in tensors.items():
                    if value is not None:
                        tensors[name] = nn.Parameter(torch.empty(value.shape, dtype=value.dtype), False)
        args = [torch.empty(value.shape, dtype=value.dtype) for value in candidate.args]
        model(*args)


def test_detectors_get_images_and_targets() -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    (built,) = resolve(f"torchvision.models.detection:{name}(weights_backbone=None)")
    first, second = guess_inputs(built.model)
    assert [image.shape[0] for image in first.args[0]] == [3, 3]
    assert set(first.args[1][0]) == {"boxes", "labels", "masks", "keypoints"}
    assert len(second.args) == 1


class WithConfig(nn.Module):
    main_input_name = "input_ids"

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.layer = nn.Linear(2, 2)


class Text(WithConfig):
    def forward(self, input_ids: Any = None, attention_mask: Any = None, use_cache: Any = None) -> None: ...


class EncoderDecoder(WithConfig):
    def forward(self, input_ids: Any = None, decoder_input_ids: Any = None, labels: Any = None) -> None: ...


class Vision(WithConfig):
    main_input_name = "pixel_values"

    def forward(self, pixel_values: Any = None, head_mask: Any = None) -> None: ...


class Both(WithConfig):
    def forward(self, input_ids: Any = None, pixel_values: Any = None) -> None: ...


class Speech(WithConfig):
    main_input_name = "input_features"

    def forward(self, input_features: Any = None, decoder_input_ids: Any = None) -> None: ...


class Spoken(WithConfig):
    def forward(self, input_ids: Any = None, decoder_input_values: Any = None) -> None: ...


class Series(WithConfig):
    main_input_name = "past_values"

    def forward(self, past_values: Any = None, target_values: Any = None) -> None: ...


def test_later_tries_of_a_config_are_videos_and_pairs_of_images() -> None:
    tries = [next(iter(one.describe())) for one in guess_inputs(Vision(image_size=32))][:3]
    assert tries == ["pixel_values=2x3x32x32", "pixel_values=2x8x3x32x32", "pixel_values=2x2x3x32x32"]


@pytest.mark.parametrize(
    ("model", "described"),
    [
        (Series(context_length=64, num_input_channels=7), ("past_values=2x64x7",)),
        (Text(vocab_size=9), ("input_ids=2x16:int64", "use_cache=False")),
        (Text(max_position_embeddings=8), ("input_ids=2x8:int64", "use_cache=False")),
        (EncoderDecoder(is_encoder_decoder=True), ("input_ids=2x16:int64", "decoder_input_ids=2x16:int64")),
        (Vision(image_size=32, num_channels=1), ("pixel_values=2x1x32x32",)),
        (Vision(image_size=32, num_frames=4), ("pixel_values=2x4x3x32x32",)),
        (Vision(image_size=[256, 192]), ("pixel_values=2x3x256x192",)),
        (Vision(image_size={"height": 64, "width": 48}), ("pixel_values=2x3x64x48",)),
        (Vision(backbone_config=SimpleNamespace(image_size=(32, 16))), ("pixel_values=2x3x32x16",)),
        (
            Both(text_config=SimpleNamespace(), vision_config=SimpleNamespace(image_size=48)),
            ("input_ids=2x16:int64", "pixel_values=2x3x48x48"),
        ),
        (
            Speech(num_mel_bins=40, max_source_positions=50, decoder_start_token_id=1),
            ("decoder_input_ids=2x16:int64", "input_features=2x40x100"),
        ),
        (
            Spoken(is_encoder_decoder=True, num_mel_bins=40),
            ("input_ids=2x16:int64", "decoder_input_values=2x16x40"),
        ),
    ],
)
def test_configured_models(model: nn.Module, described: tuple[str, ...]) -> None:
    assert next(guess_inputs(model)).describe() == described


def test_inputs_that_do_not_run_are_explained_by_the_first_layer() -> None:
    model = Classifier(conv(3))
    inputs = Inputs((torch.zeros(8, 32),), origin="--input")
    with pytest.raises(RuntimeError) as caught:
        model(*inputs.args)
    error = why_inputs_failed(model, inputs, caught.value)
    assert error.message.startswith("Classifier does not run on 8x32 (--input): ")
    assert error.hint == "its first layer `layers.0` (Conv2d) takes N×C×H×W with C = 3"


def test_example_inputs_of_many_kinds(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = "import numpy\nimport torch\nfrom torch import nn\n"
    model = (
        "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(3, 3)\n"
        "    def forward(self, x, mask=None):\n        return x\n"
    )
    given = {
        "torch.zeros(2, 3)": ("2x3",),
        "(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool))": ("2x3", "2:bool"),
        "{'x': torch.zeros(2, 3), 'mask': None}": ("x=2x3", "mask=None"),
        "{'image': torch.zeros(2, 3)}": ("{image: 2x3}",),
        "[torch.zeros(3), torch.zeros(3)]": ("[3, 3]",),
        "lambda: torch.zeros(4, 3)": ("4x3",),
        "numpy.zeros((2, 3), dtype='float32')": ("2x3",),
    }
    for number, (text, described) in enumerate(given.items()):
        name = f"examples_{number}"
        (tmp_path / f"{name}.py").write_text(f"{head}{model}example_inputs = {text}\n")
        (built,) = resolve(f"{name}:Net")
        assert built.inputs is not None
        assert built.inputs.describe() == described
        assert not built.inputs.guessed
        (asked,) = resolve(f"{name}:Net", inputs=["x=5x3"])
        assert asked.inputs is not None and asked.inputs.describe() == ("x=5x3",)
        del sys.modules[name]
    sys.path.remove(str(tmp_path))
