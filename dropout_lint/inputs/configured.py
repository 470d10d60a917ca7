"""Inputs from a `config` and the names of `forward`'s parameters, as Hugging Face's libraries write them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dropout_lint.inputs.example import Inputs

_BATCH = 2
_TOKENS = 16


class Config:
    """Reads a configuration that may be an object or a mapping, with parts for text, vision and audio."""

    def __init__(self, config: Any) -> None:
        self._parts = [config]
        for name in ("vision_config", "text_config", "audio_config", "encoder", "decoder", "backbone_config"):
            part = self._read(config, name)
            if part is not None and not isinstance(part, (str, int, float, bool)):
                self._parts.append(part)

    @staticmethod
    def _read(config: Any, name: str) -> Any:
        return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)

    def _values(self, names: Sequence[str]) -> Iterator[Any]:
        """What stands under some names, in the whole and then in its parts."""
        return (self._read(part, name) for part in self._parts for name in names)

    def number(self, *names: str, default: int) -> int:
        """The first integer under one of `names`, in the whole and then in its parts."""
        for value in self._values(names):
            one = value[0] if isinstance(value, (list, tuple)) and value else value
            if isinstance(one, int) and not isinstance(one, bool) and one > 0:
                return one
        return default

    def sides(self, *names: str, default: int) -> tuple[int, int]:
        """Height and width: two integers, in a sequence or by these words, or one for both."""
        for value in self._values(names):
            if isinstance(value, Mapping):
                both: list[Any] = [value.get("height"), value.get("width")]
            else:
                both = list(value) if isinstance(value, (list, tuple)) else [value, value]
            if len(both) == 2 and all(type(side) is int and side > 0 for side in both):
                return both[0], both[1]
        return default, default

    def has(self, name: str) -> bool:
        """Whether a value is there and is not None."""
        return any(self._read(part, name) is not None for part in self._parts)

    def flag(self, name: str) -> bool:
        """Whether a boolean is there and is true."""
        return any(self._read(part, name) is True for part in self._parts)


def configured_inputs(model: nn.Module, parameters: Mapping[str, inspect.Parameter]) -> Iterator[Inputs]:
    """Candidates for a model with a `config`.

    Args:
        model: without wrappers.
        parameters: `forward`'s parameters.
    """
    raw = getattr(model, "config", None)
    if raw is None or isinstance(raw, (str, int, float)):
        return
    config = Config(raw)
    main = getattr(model, "main_input_name", None)
    wanted = [name for name in _MAKERS if name in parameters and _wanted(name, main, config, parameters)]
    if not wanted:
        return
    for makers in (_MAKERS, *_OTHER_TRIES):
        kwargs: dict[str, Any] = {name: makers.get(name, _MAKERS[name])(config) for name in wanted}
        kwargs |= {name: False for name in ("use_cache",) if name in parameters}
        yield Inputs(
            (), kwargs, guessed=True, origin=f"guessed from forward's {', '.join(wanted)} and its config"
        )


def _wanted(name: str, main: str | None, config: Config, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether `forward` cannot do without an argument."""
    if parameters[name].default is inspect.Parameter.empty or name == main:
        return True
    if name in ("decoder_input_ids", "decoder_input_values"):
        return config.flag("is_encoder_decoder") or config.has("decoder_start_token_id")
    if name in ("input_ids", "pixel_values") and {"input_ids", "pixel_values"} <= set(parameters):
        return config.has("text_config") and config.has("vision_config")
    first = next((item for item in _MAINS if item in parameters), None)
    return main not in parameters and name == first


def _pixels(config: Config) -> torch.Tensor:
    sides = config.sides("image_size", "img_size", "sample_size", "input_size", default=224)
    channels = config.number("num_channels", "in_channels", "in_chans", default=3)
    if config.has("num_frames"):
        return _float(_BATCH, config.number("num_frames", default=8), channels, *sides)
    return _float(_BATCH, channels, *sides)


def _video(config: Config) -> torch.Tensor:
    pixels = _pixels(config)
    return pixels if pixels.dim() == 5 else pixels[:, None].expand(-1, 8, -1, -1, -1)


def _pair(config: Config) -> torch.Tensor:
    """Two images, whose points are matched."""
    return _float(_BATCH, 2, *_pixels(config).shape[1:])


def _series(config: Config) -> torch.Tensor:
    columns = config.number("num_input_channels", "input_size", default=1)
    return _float(_BATCH, config.number("context_length", default=32), columns)


def _features(config: Config) -> torch.Tensor:
    mels = config.number("num_mel_bins", "feature_size", "input_feat_per_channel", default=80)
    frames = config.number("max_source_positions", default=64)
    return _float(_BATCH, mels, 2 * frames)


def _waves(config: Config) -> torch.Tensor:
    if config.has("num_mel_bins") and config.has("max_length"):
        return _float(
            _BATCH, config.number("max_length", default=1024), config.number("num_mel_bins", default=128)
        )
    return _float(_BATCH, 16000)


def _spectrum(config: Config) -> torch.Tensor:
    return _float(_BATCH, _TOKENS, config.number("num_mel_bins", default=80))


def _sample(config: Config) -> torch.Tensor:
    sides = config.sides("sample_size", default=32)
    return _float(_BATCH, config.number("in_channels", default=3), *sides)


def _context(config: Config) -> torch.Tensor:
    width = config.number(
        "cross_attention_dim", "joint_attention_dim", "encoder_hidden_size", "hidden_size", default=768
    )
    return _float(_BATCH, _TOKENS, width)


def _tokens(config: Config) -> torch.Tensor:
    length = min(_TOKENS, config.number("max_position_embeddings", "n_positions", default=_TOKENS))
    return torch.empty((_BATCH, length), dtype=torch.int64, device="meta")


def _float(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


_MAKERS: dict[str, Callable[[Config], torch.Tensor]] = {
    "input_ids": _tokens,
    "decoder_input_ids": _tokens,
    "decoder_input_values": _spectrum,
    "pixel_values": _pixels,
    "input_features": _features,
    "input_values": _waves,
    "sample": _sample,
    "hidden_states": _context,
    "timestep": lambda config: torch.zeros(_BATCH, dtype=torch.int64),
    "encoder_hidden_states": _context,
    "past_values": _series,
}
_OTHER_TRIES: tuple[dict[str, Callable[[Config], torch.Tensor]], ...] = (
    {"pixel_values": _video, "input_features": lambda config: _features(config).transpose(1, 2)},
    {"pixel_values": _pair},
)
_MAINS = ("input_ids", "pixel_values", "input_features", "input_values", "sample")
