"""Load a checkpoint's weights and running statistics into a model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from torch import nn

from dropout_lint.errors import CheckpointError
from dropout_lint.layers.reestimated import digest, mark_reestimated
from dropout_lint.loading.marks import KEY, marked, marks_of, read_marks

_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_SHOWN = 3
_OBJECT = re.compile(r"Unsupported (?:global|class|operand): (?:GLOBAL )?([\w.]+)")
_SAVE = "save the weights alone: torch.save(model.state_dict(), path), or as a .safetensors file"


def load_checkpoint(model: nn.Module, file: str) -> None:
    """Give `model` the weights and buffers of `file`, in place; parameters on the meta device get theirs.

    Wrappers around the state dict (`{"state_dict": …}`, `{"model": …}`) and prefixes of DataParallel, DDP and
    `torch.compile` (`module.`, `_orig_mod.`) are taken off. Every key must fit: statistics of a norm that
    were silently not loaded would be judged as if they were trained. Norms whose statistics
    `dropout-lint recalibrate` took are known as such afterwards.

    Args:
        model: the model; its dtypes stay.
        file: safetensors, or what `torch.load(weights_only=True)` reads.

    Raises:
        CheckpointError: the file cannot be read, holds no state dict, or does not fit; names the first keys
            and shapes that differ.
    """
    wanted = model.state_dict(keep_vars=True)
    holders = holders_of(read_file(file), file)
    state = fitted(state_of(holders), wanted)
    _compare(state, wanted, file, type(model).__name__)
    tied = _tied(model)
    cast = {key: _cast(value, wanted[key]) for key, value in state.items()}
    try:
        model.load_state_dict(cast, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"`{file}` does not fit {type(model).__name__}", details=str(error)) from error
    for names in tied:
        _tie(model, names)
    if marks := marks_of(holders[-1]):
        for name, module in model.named_modules():
            variance = state.get(f"{name}.running_var".lstrip("."))
            if variance is not None and digest(variance) in marks:
                mark_reestimated(module)


def read_file(file: str) -> Any:
    """What a checkpoint holds: tensors, and whatever they are wrapped in, on the CPU.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint `{file}`", f"paths are relative to {Path.cwd()}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            # what torch warns of in a file that it then refuses is said by `_unreadable`
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(file, path, error) from error


def _unreadable(file: str, path: Path, error: Exception) -> CheckpointError:
    """Why `torch.load(weights_only=True)` refused; its own text advises to run the file's code."""
    if isinstance(error, OSError) and error.strerror:
        return CheckpointError(f"`{file}` cannot be read: {error.strerror}", "check its permissions")
    found = _OBJECT.search(str(error))
    if found or (isinstance(error, UnpicklingError) and is_zipfile(path)):
        kind = f" ({found[1]})" if found else ""
        return CheckpointError(
            f"`{file}` is a pickle of Python objects{kind}, not of weights alone; loading it could run code",
            _SAVE,
        )
    if "TorchScript" in str(error):
        return CheckpointError(f"`{file}` is a TorchScript archive, not a state dict", _SAVE)
    if path.stat().st_size == 0:
        return CheckpointError(f"`{file}` is empty", _SAVE)
    return CheckpointError(
        f"`{file}` is no checkpoint that torch.save wrote, or it is damaged or cut short",
        f"fetch it again, or {_SAVE}",
    )


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import safe_open
    except ImportError:
        raise CheckpointError(
            f"`{path}` is a safetensors file, and safetensors is not installed",
            "pip install 'dropout-lint[checkpoint]'",
        ) from None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
            return marked(tensors, read_marks((file.metadata() or {}).get(KEY)))
    except Exception as error:
        raise CheckpointError(
            f"`{path}` is no safetensors file, or it is damaged or cut short: {error}",
            "fetch it again, or save it anew with safetensors.torch.save_file(model.state_dict(), path)",
        ) from error


def holders_of(loaded: Any, file: str) -> list[Any]:
    """The mapping that holds the tensors, after those that it is wrapped in, outermost first.

    Raises:
        CheckpointError: nothing in it is a state dict.
    """
    holders = [loaded]
    for _ in range(4):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            keys = state_of(holders)
            if keys and all(isinstance(key, str) for key in keys):
                return holders
            break
        loaded = inner
        holders.append(loaded)
    held = (
        f"a dict with {', '.join(map(str, list(loaded)[:6]))}"
        if isinstance(loaded, Mapping)
        else type(loaded).__name__
    )
    raise CheckpointError(
        f"`{file}` holds no state dict ({held})",
        "save model.state_dict(), on its own or under the key `state_dict`",
    )


def state_of(holders: list[Any]) -> dict[str, torch.Tensor]:
    """The tensors of a loaded checkpoint, by the file's keys."""
    return {key: value for key, value in holders[-1].items() if isinstance(value, torch.Tensor)}


def fitted(state: dict[str, torch.Tensor], wanted: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """With up to three prefixes taken off, or one put on where the model is wrapped: what fits best."""
    tries = layer = [state]
    for _ in range(3):
        layer = [_stripped(item, prefix) for item in layer for prefix in _PREFIXES if _has(item, prefix)]
        tries = tries + layer
    tries = tries + [
        {prefix + key: value for key, value in item.items()}
        for item in tries
        for prefix in _PREFIXES
        if _has(wanted, prefix)
    ]
    return max(tries, key=lambda item: sum(key in wanted for key in item))


def _has(keys: Mapping[str, Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _stripped(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _compare(state: Mapping[str, Any], wanted: Mapping[str, Any], file: str, kind: str) -> None:
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} is {_shape(state[key])} there and {_shape(wanted[key])} here"
        for key in wanted
        if key in state and hasattr(wanted[key], "shape") and not _is_lazy(wanted[key])
        if tuple(state[key].shape) != tuple(wanted[key].shape)
    ]
    reasons = []
    if missing:
        reasons.append(f"missing {_some(missing)}")
    if unexpected:
        reasons.append(f"unexpected {_some(unexpected)}")
    if shapes:
        reasons.append(_some(shapes))
    if reasons:
        raise CheckpointError(
            f"`{file}` does not fit {kind}: {'; '.join(reasons)}",
            "build the model with the arguments that it was trained with",
        )


def _is_lazy(value: Any) -> bool:
    return isinstance(value, (nn.UninitializedParameter, nn.UninitializedBuffer))


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) or "scalar"


def _some(items: list[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _cast(value: torch.Tensor, like: Any) -> torch.Tensor:
    return value.to(like.dtype) if isinstance(like, torch.Tensor) and value.dtype != like.dtype else value


def _tied(model: nn.Module) -> list[list[str]]:
    """Names that share one parameter, where there are several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _tie(model: nn.Module, names: list[str]) -> None:
    first = model.get_parameter(names[0])
    for name in names[1:]:
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._parameters[leaf] = first
