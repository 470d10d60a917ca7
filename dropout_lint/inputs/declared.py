"""Inputs that a model declares: a detector's signature, a `config`, timm's configuration, an `img_size`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import nn

from dropout_lint.inputs.companions import with_companions
from dropout_lint.inputs.configured import configured_inputs
from dropout_lint.inputs.example import Inputs

_BATCH = 2
_SIDE_NAMES = ("img_size", "image_size", "input_size", "input_resolution", "resolution")
_SIDE_HOLDERS = ("", "patch_embed", "backbone", "encoder", "visual", "vit", "model")
_CHANNEL_NAMES = ("in_chans", "in_channels", "n_channels", "num_channels", "input_channels", "channels")


def declared_inputs(model: nn.Module, parameters: Mapping[str, inspect.Parameter]) -> Iterator[Inputs]:
    """Candidates that need no guess about layers, best first.

    Args:
        model: without wrappers.
        parameters: `forward`'s parameters.
    """
    yield from configured_inputs(model, parameters)
    yield from with_companions(model, _of_timm(model), parameters)
    yield from with_companions(model, _of_sides(model), parameters)


def detector_inputs(parameters: Mapping[str, inspect.Parameter]) -> Iterator[Inputs]:
    """torchvision's detectors: a list of images, and a list of dicts that train mode needs."""
    names = list(parameters)
    if names[:2] != ["images", "targets"]:
        return
    # Not meta: detectors read sizes and boxes as values.
    images = [torch.rand((3, 224, 224)), torch.rand((3, 192, 224))]
    yield Inputs(
        (images, [_target(), _target()]), guessed=True, origin="guessed: a detector's images and targets"
    )
    yield Inputs((images,), guessed=True, origin="guessed: a detector's images")


def _target() -> dict[str, torch.Tensor]:
    """One box, with the mask and the 17 keypoints that Mask and Keypoint R-CNN train on."""
    masks = torch.zeros((1, 224, 224), dtype=torch.uint8)
    masks[:, 16:96, 16:96] = 1
    return {
        "boxes": torch.tensor([[16.0, 16.0, 96.0, 96.0]]),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": masks,
        "keypoints": torch.tensor([[[32.0, 32.0, 1.0]] * 17]),
    }


def _of_timm(model: nn.Module) -> Iterator[tuple[Any, str]]:
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, name, None)
        size = (
            config.get("input_size") if isinstance(config, Mapping) else getattr(config, "input_size", None)
        )
        if _is_shape(size, 3):
            side = _side_of(model)
            shape = (size[0], *side) if side is not None else tuple(size)
            channels = getattr(model, "in_chans", None)
            if isinstance(channels, int):
                shape = (channels, *shape[1:])
            yield torch.empty((_BATCH, *shape), device="meta"), f"timm {name}"
            yield torch.empty((_BATCH, *size), device="meta"), f"timm {name}"
            return


def _is_shape(value: Any, length: int) -> TypeGuard[Sequence[int]]:
    return (
        isinstance(value, (tuple, list))
        and len(value) == length
        and all(isinstance(size, int) and size > 0 for size in value)
    )


def _side_of(model: nn.Module) -> tuple[int, int] | None:
    """The image size that a patch embedding was built for."""
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return (size[0], size[1]) if _is_shape(size, 2) else None


def _of_sides(model: nn.Module) -> Iterator[tuple[Any, str]]:
    """`img_size` and its like on the model or its first parts."""
    channels = _channels(model)
    for holder in _SIDE_HOLDERS:
        owner = getattr(model, holder, None) if holder else model
        if not isinstance(owner, nn.Module):
            continue
        for name in _SIDE_NAMES:
            size = getattr(owner, name, None)
            # An int called `input_size` is as often a number of features.
            square = isinstance(size, int) and not isinstance(size, bool) and name != "input_size"
            pair = (size, size) if square else size
            if _is_shape(pair, 2) and min(pair) >= 8:
                origin = f"guessed from {holder + '.' if holder else ''}{name}"
                yield torch.empty((_BATCH, channels, *pair), device="meta"), origin


def _channels(model: nn.Module) -> int:
    for module in model.modules():
        value = getattr(module, "in_channels", None)
        if isinstance(value, int) and value > 0 and isinstance(getattr(module, "kernel_size", None), tuple):
            return value
    for name in _CHANNEL_NAMES:
        value = getattr(model, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 3
