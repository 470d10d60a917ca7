"""The shapes that a model's first layers take."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import torch
from torch import nn

from dropout_lint.inputs.example import Inputs

BATCH = 2
LENGTH = 16
"""Tokens or steps of a sequence."""

SQUARES = (224, 256, 64, 32, 128, 384, 299, 96, 512, 28, 48, 16)
CUBES = (
    (16, 224, 224),
    (16, 112, 112),
    (32, 32, 32),
    (64, 64, 64),
    (8, 64, 64),
    (128, 128, 128),
    (16, 16, 16),
)
LENGTHS = (256, 1024, 128, 64, 16000, 4096, 32)
WAVES = (16000, 4096, 1024, 256, 64000, 128)
SEEDS = (1, 4, 8, 16)
"""Sizes that a generator's first transposed convolution starts from."""

_LEAVES_READ = 400
_LEAVES_TRIED = 5


def leaf_candidates(model: nn.Module) -> Iterator[tuple[torch.Tensor, str]]:
    """Tensors for `forward`'s first argument, with the layer that they are guessed from.

    The first layer is the likeliest; then convolutions of 3 or 1 channels and embeddings, which begin a
    model wherever they were registered.
    """
    chosen = _chosen(model)
    columns = [
        [(value, f"guessed from {name}") for value in shapes_for(model, leaf)] for name, leaf in chosen
    ]
    if columns:
        yield from columns[0]
    for row in zip_longest(*columns[1:]):
        yield from (item for item in row if item is not None)
    yield from ((value, "guessed: an image") for value in _images(3, SQUARES[:4]))
    yield from ((value, "guessed: an image") for value in _images(1, SQUARES[:4]))
    yield _float(BATCH, LENGTH), "guessed: a vector"


def _chosen(model: nn.Module) -> list[tuple[str, nn.Module]]:
    leaves: list[tuple[str, nn.Module]] = []
    kinds: set[tuple[Any, ...]] = set()
    for name, module in model.named_modules():
        key = _kind(module)
        if key is None or key in kinds:
            continue
        kinds.add(key)
        leaves.append((name or type(module).__name__, module))
        if len(leaves) >= _LEAVES_READ:
            break
    first, rest = leaves[:1], leaves[1:]
    rest.sort(key=lambda item: not _begins(item[1]))
    return (first + rest)[:_LEAVES_TRIED]


def _begins(leaf: nn.Module) -> bool:
    """Whether a layer looks like the start of a model."""
    return isinstance(leaf, nn.Embedding) or getattr(leaf, "in_channels", None) in (1, 3)


def _kind(module: nn.Module) -> tuple[Any, ...] | None:
    """What makes two layers alike as a guess; None for what says nothing about the input."""
    kernel = getattr(module, "kernel_size", None)
    if isinstance(getattr(module, "in_channels", None), int) and isinstance(kernel, tuple):
        return ("conv", len(kernel), _transposed(module), module.in_channels)
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return (type(module).__name__, module.num_features)
    for kind, size in _SIZED.items():
        if isinstance(module, kind):
            return (kind.__name__, _hashable(getattr(module, size)))
    return None


_SIZED: dict[type[nn.Module], str] = {
    nn.Linear: "in_features",
    nn.Bilinear: "in1_features",
    nn.Embedding: "num_embeddings",
    nn.EmbeddingBag: "num_embeddings",
    nn.RNNBase: "input_size",
    nn.RNNCellBase: "input_size",
    nn.MultiheadAttention: "embed_dim",
    nn.LayerNorm: "normalized_shape",
    nn.RMSNorm: "normalized_shape",
    nn.GroupNorm: "num_channels",
}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _transposed(module: nn.Module) -> bool:
    return bool(getattr(module, "transposed", False))


def shapes_for(model: nn.Module, leaf: nn.Module) -> Iterator[torch.Tensor]:
    """Inputs that `leaf` takes, likeliest size first."""
    kernel, channels = getattr(leaf, "kernel_size", None), getattr(leaf, "in_channels", None)
    if isinstance(kernel, tuple) and isinstance(channels, int):
        yield from _for_convolution(model, leaf, channels or 3, len(kernel))  # a lazy layer says 0
    elif isinstance(leaf, nn.modules.batchnorm._NormBase):
        yield from _for_norm(leaf)
    elif isinstance(leaf, (nn.Embedding, nn.EmbeddingBag)):
        yield _integers(BATCH, LENGTH)
        yield _integers(BATCH)
        yield _integers(BATCH, 64)
    elif isinstance(leaf, nn.GroupNorm):
        yield from _images(leaf.num_channels, (32, 64))
        yield _float(BATCH, leaf.num_channels, LENGTH)
        yield _float(BATCH, leaf.num_channels)
    elif isinstance(leaf, (nn.LayerNorm, nn.RMSNorm)):
        yield from _for_features(*leaf.normalized_shape)
    elif isinstance(leaf, nn.RNNCellBase):
        yield _float(BATCH, leaf.input_size)
        yield _float(BATCH, LENGTH, leaf.input_size)
    elif isinstance(leaf, nn.RNNBase):
        yield _float(BATCH, LENGTH, leaf.input_size)
    elif isinstance(leaf, nn.MultiheadAttention):
        yield _float(BATCH, LENGTH, leaf.embed_dim)
    elif isinstance(leaf, nn.Bilinear):
        yield _float(BATCH, leaf.in1_features)
    elif isinstance(leaf, nn.Linear):
        yield from _for_features(leaf.in_features)


def _for_convolution(model: nn.Module, leaf: nn.Module, channels: int, rank: int) -> Iterator[torch.Tensor]:
    if _transposed(leaf):
        for size in SEEDS:
            yield _float(BATCH, channels, *[size] * rank)
    if rank == 1:
        yield from _signals(channels)
    elif rank == 3:
        sizes = CUBES if channels in (2, 3) else CUBES[2:] + CUBES[:2]
        for size3 in sizes:
            yield _float(BATCH, channels, *size3)
    else:
        inception = "inception" in type(model).__name__.lower()
        yield from _images(channels, (299, *SQUARES) if inception else SQUARES)
        yield from _other_planes(channels)


def _signals(channels: int) -> Iterator[torch.Tensor]:
    """Steps of channels, or of features that `forward` transposes; waves."""
    for length in WAVES if channels == 1 else LENGTHS:
        yield _float(BATCH, channels, length)
        if channels > 1 and length in LENGTHS[:2]:
            yield _float(BATCH, length, channels)
    if channels == 1:
        yield _float(BATCH, WAVES[0])


def _other_planes(channels: int) -> Iterator[torch.Tensor]:
    """What a 2-D convolution sees besides square images: videos, filter banks, channels that come last."""
    if channels == 3:
        yield _float(BATCH, channels, 16, 112, 112)
        yield _float(BATCH, 8, channels, 224, 224)
    if channels == 1:
        for features in (64, 80, 40):
            yield _float(BATCH, 128, features)
    else:
        for side in SQUARES[:2]:
            yield _float(BATCH, side, side, channels)


def _for_norm(leaf: nn.modules.batchnorm._NormBase) -> Iterator[torch.Tensor]:
    features = leaf.num_features or 3
    rank = next((rank for rank in (1, 2, 3) if f"{rank}d" in type(leaf).__name__), 2)
    if rank == 1:
        yield _float(BATCH, features)
        yield _float(BATCH, features, LENGTH)
    elif rank == 2:
        yield from _images(features, (32, 224, 64))
    else:
        yield _float(BATCH, features, 16, 32, 32)
    if rank == 2:
        yield _float(BATCH, features)


def _for_features(*sizes: int) -> Iterator[torch.Tensor]:
    features = (*sizes[:-1], sizes[-1] or LENGTH)
    yield _float(BATCH, *features)
    yield _float(BATCH, LENGTH, *features)
    yield _float(BATCH, *features, LENGTH)
    if len(features) == 1:
        for channels in (3, 1):
            side = round((features[0] / channels) ** 0.5)
            if channels * side * side == features[0] and side > 1:
                yield from _images(channels, (side, side * 8, side * 14, 224))
        yield _float(LENGTH, *features)
        yield _float(BATCH, LENGTH, LENGTH, *features)


def _images(channels: int, sides: tuple[int, ...]) -> Iterator[torch.Tensor]:
    for side in sides:
        yield _float(BATCH, channels, side, side)


def _float(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _integers(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64, device="meta")


def fits_first_layer(model: nn.Module, inputs: Inputs) -> bool:
    """False where the first argument surely belongs to another model: no such channels, or no integers."""
    first = next(iter((*inputs.args, *inputs.kwargs.values())), None)
    leaf = next((module for module in model.modules() if _kind(module) is not None), None)
    if not isinstance(first, torch.Tensor) or leaf is None:
        return True
    if isinstance(leaf, (nn.Embedding, nn.EmbeddingBag)):
        return not first.is_floating_point()
    channels, kernel = getattr(leaf, "in_channels", None), getattr(leaf, "kernel_size", None)
    if channels and isinstance(kernel, tuple) and first.dim() == len(kernel) + 2:
        return channels in first.shape[1:]  # a layout of its own may put them anywhere
    return True
