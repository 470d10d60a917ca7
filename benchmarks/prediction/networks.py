"""The networks of `prediction.py` and their data: digits as images, rows and frames."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).parents[1].absolute()
sys.path.insert(0, str(ROOT))

from fixtures.noise import NOISES  # noqa: E402

KINDS = ("Dropout", "Dropout2d", "DropPath", "Uout")
RATIOS = (0.1, 0.3, 0.5)


def digits() -> tuple[Tensor, Tensor]:
    """(1797, 1, 8, 8) standardised digits of scikit-learn, and their labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images = (images - images.mean()) / images.std()
    return images[order], torch.tensor(bunch.target)[order]


def as_images(size: int) -> Callable[[Tensor], Tensor]:
    """Three colour channels, `size` pixels wide."""

    def shape(x: Tensor) -> Tensor:
        if size != x.shape[-1]:
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
        return x.repeat(1, 3, 1, 1)

    return shape


def as_rows(x: Tensor) -> Tensor:
    """Twenty principal components, standardised; the largest loading of each is positive."""
    flat = x.flatten(1) - x.flatten(1).mean(0)
    v = torch.linalg.svd(flat.double(), full_matrices=False).Vh[:20].T
    v = v * v.gather(0, v.abs().argmax(0, keepdim=True)).sign()
    z = flat @ v.to(flat)
    return z / z.std(0)


def as_frames(x: Tensor) -> Tensor:
    """Forty frames of twenty-four features, each feature standardised as speech features are."""
    z = F.interpolate(x, (40, 24), mode="bilinear", align_corners=False)[:, 0]
    return (z - z.mean((0, 1))) / z.std((0, 1)).clamp(min=1e-3)


@dataclass(frozen=True)
class Model:
    """A row of the table: how to build a network with dropout at a place, and how its data are shaped."""

    build: Callable[[str, str, float], nn.Module]
    data: Callable[[Tensor], Tensor]
    places: tuple[str, ...] = ("own",)
    kinds: tuple[str, ...] = KINDS
    epochs: int = 4
    usual: tuple[int, ...] = (3, 32, 32)
    """Shape of one input of the usual size, for the times."""
    held_out: bool = False
    """Not one of the networks that the ledger's assumed constants were chosen on."""


def swapped(model: nn.Module, kind: str, p: float) -> nn.Module:
    """Every nn.Dropout of the model replaced by another kind of the same ratio."""
    if kind != "Dropout":
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                if isinstance(child, nn.Dropout):
                    parent._modules[name] = NOISES[kind](child.p)
    return model


def wide(kind: str, p: float) -> nn.Module:
    """WRN-16-4, whose own dropout is a function: another kind goes behind the same ReLU as a module."""
    from fixtures import wide_resnet

    if kind == "Dropout":
        return wide_resnet.build(p)
    model = wide_resnet.build(0.0)
    for module in model.modules():
        if isinstance(module, wide_resnet.WideBlock):
            module.relu2 = nn.Sequential(module.relu2, NOISES[kind](p))
    return model


def before_last_conv(model: nn.Module, kind: str, p: float) -> nn.Module:
    """A dropout before the last convolution of each torchvision basic block (P3 of a post-activation
    branch).
    """
    for module in model.modules():
        if type(module).__name__ == "BasicBlock":
            module.conv2 = nn.Sequential(NOISES[kind](p), module.conv2)  # type: ignore[arg-type]
    return model


def models() -> dict[str, Model]:
    """The twelve networks, and those held out."""
    from fixtures import densenet, mlp_bn, preresnet, resnetv1, resnext, tdnn, vgg_bn

    positions = tuple(f"P{i}" for i in range(8))
    image = as_images(8)

    def zoo(package: str, name: str, **options: Any) -> nn.Module:
        for operator in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            with contextlib.suppress(RuntimeError):  # declared already
                torch.library.define(
                    f"torchvision::{operator.split('(')[0]}", "(" + operator.split("(", 1)[1]
                )
        if package == "timm":
            import timm

            return timm.create_model(name, **options)  # type: ignore[no-any-return]
        import torchvision

        return getattr(torchvision.models, name)(**options)  # type: ignore[no-any-return]

    def paths(name: str, size: int, drop_rate: bool = False) -> Model:
        """A timm network with its own DropPath, and its own dropout before the logits."""

        def build(_place: str, _kind: str, p: float) -> nn.Module:
            return zoo("timm", name, drop_path_rate=p, drop_rate=p if drop_rate else 0.0, num_classes=10)

        return Model(build, as_images(size), kinds=("DropPath",), usual=(3, 224, 224))

    return {
        "preresnet20": Model(lambda s, k, p: preresnet.build(s, p, dropout=k), image, positions),
        "resnetv1_20": Model(lambda s, k, p: resnetv1.build(s, p, dropout=k), image, ("P3", "P4", "end")),
        "bottleneck": Model(
            lambda s, k, p: preresnet.build(s, p, block="bottleneck", depth=20, dropout=k),
            image,
            ("P0", "P3", "P4", "P6", "P7"),
        ),
        "wrn16_4": Model(lambda s, k, p: wide(k, p), image),
        "densenet_bc40": Model(lambda s, k, p: swapped(densenet.build(p), k, p), image),
        "resnext11": Model(lambda s, k, p: swapped(resnext.build(s, p), k, p), image, ("a", "b")),
        "vgg_bn": Model(lambda s, k, p: swapped(vgg_bn.build(p, p), k, p), as_images(16), kinds=KINDS),
        "mlp_bn": Model(
            lambda s, k, p: swapped(mlp_bn.build(p, num_classes=10), k, p),
            as_rows,
            kinds=("Dropout", "Uout"),
            epochs=12,
            usual=(20,),
        ),
        "tdnn": Model(
            lambda s, k, p: swapped(tdnn.build(p), k, p),
            as_frames,
            kinds=("Dropout", "Uout"),
            usual=(200, 24),
        ),
        "resnet18": Model(
            lambda s, k, p: before_last_conv(zoo("torchvision", "resnet18", num_classes=10), k, p),
            as_images(32),
            ("P3",),
            usual=(3, 224, 224),
        ),
        "densenet121": Model(
            lambda s, k, p: zoo("torchvision", "densenet121", drop_rate=p, num_classes=10),
            as_images(32),
            kinds=("Dropout",),
            usual=(3, 224, 224),
        ),
        "efficientnet_b0": paths("efficientnet_b0", 32, drop_rate=True),
        "resnet34": Model(
            lambda s, k, p: before_last_conv(zoo("torchvision", "resnet34", num_classes=10), k, p),
            as_images(32),
            ("P3",),
            kinds=("Dropout", "Dropout2d"),
            usual=(3, 224, 224),
            held_out=True,
        ),
        "resnet26": replace(paths("resnet26", 32), held_out=True),
        # at 32 pixels the last stage would see a corner of the digits alone, which is the same in all of them
        "regnetx_002": replace(paths("regnetx_002", 64), held_out=True),
    }


@functools.cache
def data_of(name: str) -> tuple[Tensor, Tensor]:
    """The digits as the network of this name reads them, and their labels."""
    images, labels = digits()
    return models()[name].data(images), labels
