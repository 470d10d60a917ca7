"""Video: pytorchvideo."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .data import volumes
from .entry import Entry, named


def entries() -> dict[str, Entry]:
    """All of them."""
    return named("pytorchvideo", _entries())


def _x3d() -> nn.Module:
    from pytorchvideo.models.x3d import create_x3d

    model: nn.Module = create_x3d(
        input_clip_length=4,
        input_crop_size=32,
        model_num_class=5,
        width_factor=1.0,
        depth_factor=1.0,
        dropout_rate=0.5,
        head_dim_out=64,
    )
    return model


def _entries() -> Iterator[Entry]:
    yield Entry("X3D", _x3d, volumes(8, 32, channels=3, depth=4))
