"""The twelve networks of the papers' families, on scikit-learn's digits as images, rows and frames."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from fixtures import densenet, mlp_bn, preresnet, resnetv1, resnext, tdnn, vgg_bn, wide_resnet

from .data_tuning import digits
from .kinds import KINDS, noise
from .settings import Data, Network

Build = Callable[[str, float], nn.Module]


def colour(size: int) -> Data:
    """Digits in three equal channels, `size` pixels wide."""
    images, labels = digits()
    if size != images.shape[-1]:
        images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    return Data((images.repeat(1, 3, 1, 1),), labels)


def digits_8() -> Data:
    """Digits as (N, 3, 8, 8)."""
    return colour(8)


def digits_16() -> Data:
    """Digits as (N, 3, 16, 16)."""
    return colour(16)


def digits_32() -> Data:
    """Digits as (N, 3, 32, 32)."""
    return colour(32)


def digit_rows() -> Data:
    """Twenty principal components, standardised; the largest loading of each is positive."""
    images, labels = digits()
    flat = images.flatten(1) - images.flatten(1).mean(0)
    v = torch.linalg.svd(flat.double(), full_matrices=False).Vh[:20].T
    v = v * v.gather(0, v.abs().argmax(0, keepdim=True)).sign()
    z = flat @ v.to(flat)
    return Data((z / z.std(0),), labels)


def digit_frames() -> Data:
    """Forty frames of twenty-four features, each feature standardised as speech features are."""
    images, labels = digits()
    z = F.interpolate(images, (40, 24), mode="bilinear", align_corners=False)[:, 0]
    return Data(((z - z.mean((0, 1))) / z.std((0, 1)).clamp(min=1e-3),), labels)


def swapped(model: nn.Module, kind: str) -> nn.Module:
    """Every nn.Dropout of the model replaced by another kind of the same ratio."""
    if kind != "Dropout":
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                if isinstance(child, nn.Dropout):
                    parent._modules[name] = KINDS[kind](child.p)
    return model


def wide(kind: str, p: float) -> nn.Module:
    """WRN-16-4, whose own dropout is a function: another kind goes behind the same ReLU as a module."""
    if kind == "Dropout":
        return wide_resnet.build(p)
    model = wide_resnet.build(0.0)
    for module in model.modules():
        if isinstance(module, wide_resnet.WideBlock):
            module.relu2 = nn.Sequential(module.relu2, noise(kind, p))
    return model


def zoo(package: str, name: str, **options: Any) -> nn.Module:
    """A network of torchvision or timm with ten classes, untrained."""
    for operator in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        with contextlib.suppress(RuntimeError):  # declared already
            torch.library.define(f"torchvision::{operator.split('(')[0]}", "(" + operator.split("(", 1)[1])
    if package == "timm":
        import timm

        return timm.create_model(name, num_classes=10, **options)  # type: ignore[no-any-return]
    import torchvision

    return getattr(torchvision.models, name)(num_classes=10, **options)  # type: ignore[no-any-return]


def resnet18(kind: str, p: float) -> nn.Module:
    """A dropout before the last convolution of each basic block (P3 of a post-activation branch)."""
    model = zoo("torchvision", "resnet18")
    for module in model.modules():
        if type(module).__name__ == "BasicBlock":
            module.conv2 = nn.Sequential(noise(kind, p), module.conv2)  # type: ignore[arg-type]
    return model


def at(place: str, **options: Any) -> Build:
    """PreResNet with a dropout at this place of each branch."""
    return lambda kind, p: preresnet.build(place, p, dropout=kind, **options)


def end_at(place: str) -> Build:
    """ResNetV1 with a dropout at this place of each branch."""
    return lambda kind, p: resnetv1.build(place, p, dropout=kind)


def network(
    name: str,
    build: Build,
    settings: tuple[tuple[str, float], ...],
    data: Callable[[], Data] = digits_8,
    epochs: int = 4,
) -> Network:
    """Adam with a cosine schedule, as all of the twelve were trained."""
    return Network(name, "the twelve", build, data, "adam", 3e-3, epochs, settings)


D, D2, PATH = "Dropout", "Dropout2d", "DropPath"
BOTTLENECK = {"block": "bottleneck", "depth": 20}

NETWORKS: tuple[Network, ...] = (
    network("preresnet20-P0", at("P0"), ((D, 0.1),)),
    network("preresnet20-P1", at("P1"), ((D, 0.3),)),
    network("preresnet20-P3", at("P3"), ((D, 0.5), (D, 0.1))),
    network("preresnet20-P4", at("P4"), ((D2, 0.3),)),
    network("preresnet20-P6", at("P6"), ((D, 0.5),)),
    network("preresnet20-P7", at("P7"), ((D, 0.3), (PATH, 0.2))),
    network("resnetv1_20-P3", end_at("P3"), ((D, 0.3), (D2, 0.5))),
    network("resnetv1_20-end", end_at("end"), ((D, 0.3),)),
    network("bottleneck-P3", at("P3", **BOTTLENECK), ((D, 0.5),)),
    network("bottleneck-P6", at("P6", **BOTTLENECK), (("Uout", 0.5),)),
    network("wrn16_4", wide, ((D, 0.3), (D2, 0.3))),
    network("densenet_bc40", lambda k, p: swapped(densenet.build(p), k), ((D, 0.2), (D, 0.5))),
    network("resnext11-a", lambda k, p: swapped(resnext.build("a", p), k), ((D, 0.5),)),
    network("resnext11-b", lambda k, p: swapped(resnext.build("b", p), k), ((D, 0.3),)),
    network("vgg_bn", lambda k, p: swapped(vgg_bn.build(p, p), k), ((D, 0.1), (D, 0.3), (D, 0.5)), digits_16),
    network(
        "mlp_bn",
        lambda k, p: swapped(mlp_bn.build(p, num_classes=10), k),
        ((D, 0.1), (D, 0.5)),
        digit_rows,
        12,
    ),
    network("tdnn", lambda k, p: swapped(tdnn.build(p), k), ((D, 0.1), (D, 0.3)), digit_frames),
    network(
        "efficientnet_b0",
        lambda k, p: zoo("timm", "efficientnet_b0", drop_path_rate=p, drop_rate=p),
        ((PATH, 0.2),),
        digits_32,
    ),
    network("resnet18-P3", resnet18, ((D, 0.3),), digits_32),
    network(
        "densenet121", lambda k, p: zoo("torchvision", "densenet121", drop_rate=p), ((D, 0.2),), digits_32, 3
    ),
)
