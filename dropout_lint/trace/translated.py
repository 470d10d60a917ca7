"""Dropouts and norms of the build-and-call protocol, said in torch's words while a model is recorded.

Keras 3 on the torch backend drops by a generator of its own and normalises by plain arithmetic, along any
axis. What its layers do is what `F.dropout` and `F.batch_norm` do, of another axis: recorded as these, they
are judged like all others. (Keras stores the biased variance of a batch, torch the unbiased one: one part in
the number of values.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.trace.build_and_call import protocol_layers

_BY_CHANNEL: dict[str, Callable[..., Tensor]] = {
    "SpatialDropout1D": F.dropout1d,
    "SpatialDropout2D": F.dropout2d,
    "SpatialDropout3D": F.dropout3d,
}

Translation = Callable[[Tensor, bool], Tensor]
"""What a layer makes of its input; the second argument says whether it trains."""


def translations(model: nn.Module) -> Iterator[tuple[str, Any, Translation]]:
    """Name, layer and translation of each such layer inside a model."""
    for layer in protocol_layers(model):
        translation = translation_of(layer)
        if translation is not None:
            yield str(layer.name), layer, translation


def is_translated(layer: Any) -> bool:
    """Whether a recording shows a layer in torch's words."""
    return translation_of(layer) is not None


def translation_of(layer: Any) -> Translation | None:
    """How torch says what a layer of Keras does; None of those it has no word for."""
    kinds = [kind.__name__ for kind in type(layer).__mro__ if kind.__module__.startswith("keras.")]
    if not kinds:
        return None
    spatial = next((_BY_CHANNEL[kind] for kind in kinds if kind in _BY_CHANNEL), None)
    if spatial is not None:
        last = getattr(layer, "data_format", "channels_last") != "channels_first"
        return _spatial(spatial, float(layer.rate), -1 if last else 1)
    if kinds[0] == "Dropout" and layer.noise_shape is None:
        return _dropout(float(layer.rate))
    if kinds[0] == "BatchNormalization" and not getattr(layer, "renorm", False):
        return _batch_norm(layer)
    return None


def _dropout(rate: float) -> Translation:
    return lambda x, training: F.dropout(x, rate, training)


def _spatial(function: Callable[..., Tensor], rate: float, axis: int) -> Translation:
    def drop(x: Tensor, training: bool) -> Tensor:
        return function(x.movedim(axis, 1), rate, training).movedim(1, axis)

    return drop


def _batch_norm(layer: Any) -> Translation:
    def tensor(variable: Any) -> Tensor | None:
        value = getattr(variable, "value", None)
        return value if isinstance(value, torch.Tensor) else None

    def normalise(x: Tensor, training: bool) -> Tensor:
        return F.batch_norm(
            x.movedim(layer.axis, 1),
            tensor(layer.moving_mean),
            tensor(layer.moving_variance),
            tensor(layer.gamma),
            tensor(layer.beta),
            training and layer.trainable,
            1 - layer.momentum,
            layer.epsilon,
        ).movedim(1, layer.axis)

    return normalise
