"""Keras 3 on the torch backend, whose layers are told by an argument whether they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from .data import images, rows
from .entry import Entry, named


class Following(nn.Module):
    """A Keras model as a part of a torch model: it trains when this does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        return self.model(x, training=self.training)


def entries() -> dict[str, Entry]:
    """All of them."""
    return named("keras", _entries())


def _dense() -> nn.Module:
    import keras
    from keras import layers

    block = [
        lambda: layers.Dense(32),
        layers.BatchNormalization,
        layers.ReLU,
        lambda: layers.Dropout(0.4),
    ]
    hidden = [make() for _ in range(3) for make in block]
    return keras.Sequential([layers.Input((20,)), *hidden, layers.Dense(4)])


def _conv() -> nn.Module:
    import keras
    from keras import layers

    x = inputs = layers.Input((32, 32, 3))
    for width in (8, 16):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
        y = layers.SpatialDropout2D(0.2)(x)
        y = layers.Conv2D(width, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        x = layers.MaxPooling2D()(layers.add([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Dropout(0.3)(x)))


def _named_anew(build: Callable[[], nn.Module]) -> nn.Module:
    """The model with the names that Keras gives the layers of a process' first one."""
    import keras

    keras.utils.clear_session()
    return Following(build())


def _entries() -> Iterator[Entry]:
    pictures = images(16, 32)

    def shown(generator: Any) -> Any:
        return pictures(generator).movedim(1, -1).contiguous()

    rooms: tuple[tuple[str, Callable[[], nn.Module], Callable[..., Any]], ...] = (
        ("Sequential", _dense, rows(256)),
        ("functional", _conv, shown),
    )
    for name, build, batch in rooms:
        yield Entry(name, lambda build=build: _named_anew(build), batch, linted=lambda m: m.model)
        yield Entry(f"{name}-in-torch", lambda build=build: _named_anew(build), batch)
