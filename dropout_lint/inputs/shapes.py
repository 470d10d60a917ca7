"""Example inputs: what `--input` says, what a user's value means, and whether `forward` takes it.

Inputs that nobody gave values for are tensors on the meta device; `materialise` fills them.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from dropout_lint.errors import InputError
from dropout_lint.guard.wrappers import unwrapped
from dropout_lint.inputs.example import Inputs
from dropout_lint.inputs.values import describe_value, holds_tensor, replaced

_FORM = (
    "an input is sizes with x between them, such as 8x3x32x32, 2x16:int64 or mask=2x16:bool; "
    "batch.tokens=2x16:int64 puts it into the dict `batch`"
)
_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in [
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "float",
        "double",
        "half",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "long",
        "int",
        "short",
        "bool",
        "complex64",
        "complex128",
        "cfloat",
    ]
}
_INPUT = re.compile(r"(?:(?P<name>[^=:]*)=)?(?P<sizes>[^:=]*)(?::(?P<dtype>.*))?")


def parse_inputs(texts: Sequence[str]) -> Inputs | None:
    """`--input` options to inputs, or None where there are none.

    `batch.tokens=…` and `batch.mask=…` together are the keyword `batch`, a dict of two tensors.

    Raises:
        InputError: a text is not `[name=]AxBxC[:dtype]`, or two have the same name.
    """
    if not texts:
        return None
    args: list[torch.Tensor] = []
    kwargs: dict[str, Any] = {}
    for text in texts:
        name, value = parse_input(text)
        if name is None:
            args.append(value)
        else:
            _put(kwargs, name, value)
    return Inputs(tuple(args), kwargs, origin="--input")


def _put(kwargs: dict[str, Any], name: str, value: torch.Tensor) -> None:
    """Put a tensor where a dotted name says; what lies in the name's middle are dicts."""
    *outer, last = name.split(".")
    held = kwargs
    for part in outer:
        held = held.setdefault(part, {})
        if not isinstance(held, dict):
            raise InputError(
                f"`--input {name}=` puts a tensor into `{part}`, which is one itself",
                "give it its keys alone, or no keys",
            )
    if last in held:
        raise InputError(f"`--input {name}=` is given twice", "give each keyword once")
    held[last] = value


def parse_input(text: str) -> tuple[str | None, torch.Tensor]:
    """One `--input`: its keyword (dotted or None) and a tensor on the meta device of its shape and dtype."""
    match = _INPUT.fullmatch(text.strip())
    if match is None:
        raise InputError(f"`--input {text}` cannot be read", _FORM)
    name, sizes, dtype = match["name"], match["sizes"], match["dtype"]
    if name is not None and not _is_keyword(name.strip()):
        raise InputError(f"`{name}` in `--input {text}` is no argument name", _FORM)
    shape = [_size(text, part) for part in re.split(r"[x×X*,]", sizes)]
    value = torch.empty(shape, dtype=_dtype(text, dtype), device="meta")
    return (None if name is None else name.strip()), value


def _is_keyword(name: str) -> bool:
    argument, *keys = name.split(".")
    return argument.isidentifier() and all(keys)


def _size(text: str, part: str) -> int:
    part = part.strip().strip("()")
    if not re.fullmatch("-?[0-9]+", part):
        raise InputError(f"`{part}` in `--input {text}` is no size", _FORM)
    size = int(part)
    if size < 1:
        raise InputError(f"the size {size} in `--input {text}` is below 1", _FORM)
    return size


def _dtype(text: str, name: str | None) -> torch.dtype:
    if name is None:
        return torch.float32
    key = name.strip().removeprefix("torch.")
    if key not in _DTYPES:
        near = get_close_matches(key, _DTYPES, n=1)
        hint = f"did you mean {near[0]}?" if near else "one of " + ", ".join(list(_DTYPES)[:13])
        raise InputError(f"`{name}` in `--input {text}` is no dtype", hint)
    return _DTYPES[key]


def as_inputs(value: Any, model: nn.Module, origin: str) -> Inputs:
    """What a user means by example inputs.

    A tuple holds positional arguments; a dict holds keyword arguments where its keys are names of `forward`'s
    parameters, else it is one argument; a list is one argument, except where `forward` needs as many
    arguments as it has items; NumPy arrays become tensors; a callable without arguments is called.

    Raises:
        InputError: the value holds no tensor or cannot be copied, or its callable raises.
    """
    if isinstance(value, Inputs):
        return value
    if callable(value) and not holds_tensor(value):
        try:
            value = value()
        except Exception as error:
            raise InputError(f"{origin} could not be called without arguments: {error}") from error
    value = _to_tensors(value)
    if not holds_tensor(value):
        raise InputError(
            f"{origin} holds no tensor ({describe_value(value)})",
            "give a tensor, a tuple of positional arguments or a dict of keyword arguments",
        )
    replaced(value, lambda tensor: tensor)  # an object that cannot be copied is said here
    if isinstance(value, tuple):
        return Inputs(value, origin=origin)
    if isinstance(value, list):
        needed = len(_required(model))
        return Inputs(tuple(value) if needed == len(value) > 1 else (value,), origin=origin)
    if isinstance(value, dict):
        if _are_keywords(model, value):
            return Inputs((), value, origin=origin)
        return Inputs((value,), origin=origin)
    return Inputs((value,), origin=origin)


def _to_tensors(value: Any) -> Any:
    if isinstance(value, Mapping) and not isinstance(value, dict):
        value = dict(value)
    if type(value) in (tuple, list):
        return type(value)(_to_tensors(item) for item in value)
    if type(value) is dict:
        return {key: _to_tensors(item) for key, item in value.items()}
    if type(value).__module__ == "numpy" and hasattr(value, "__array__"):
        return torch.as_tensor(value)
    return value


def forward_parameters(model: nn.Module) -> dict[str, inspect.Parameter]:
    """Parameters of `forward` without `self`; empty where Python cannot tell."""
    try:
        return dict(inspect.signature(unwrapped(model).forward).parameters)
    except (TypeError, ValueError):
        return {}


def _required(model: nn.Module) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        name
        for name, parameter in forward_parameters(model).items()
        if parameter.kind in kinds and parameter.default is inspect.Parameter.empty
    ]


def _are_keywords(model: nn.Module, value: Mapping[Any, Any]) -> bool:
    parameters = forward_parameters(model)
    if not all(isinstance(key, str) for key in value):
        return False
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return len(_required(model)) != 1 or _required(model)[0] in value
    return all(key in parameters for key in value)


def check_inputs(model: nn.Module, inputs: Inputs) -> None:
    """Hold given inputs against `forward`'s signature.

    Raises:
        InputError: too many, too few, or a keyword that `forward` does not take.
    """
    parameters = forward_parameters(model)
    if not parameters and not _knows_signature(model):
        return
    try:
        inspect.signature(unwrapped(model).forward).bind(*inputs.args, **inputs.kwargs)
        return
    except TypeError as error:
        reason = str(error)
    except ValueError:
        return
    kind = type(model).__name__
    names = list(parameters)
    takes = f"{kind}.forward takes ({', '.join(str(item) for item in parameters.values())})"
    for name in inputs.kwargs:
        if name not in parameters:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean `{near[0]}=`? {takes}" if near else takes
            raise InputError(f"{kind}.forward has no input `{name}` ({inputs.origin})", hint)
    given = len(inputs.args) + len(inputs.kwargs)
    missing = [name for name in _required(model)[len(inputs.args) :] if name not in inputs.kwargs]
    if missing:
        few = "input is" if given == 1 else "inputs are"
        raise InputError(
            f"{given} {few} given ({inputs.origin}), but {kind}.forward also needs {_listed(missing)}",
            f"repeat --input, once for each; {takes}" if inputs.origin == "--input" else takes,
        )
    if len(inputs.args) > len(names):
        raise InputError(
            f"{given} inputs are given ({inputs.origin}), but {kind}.forward takes {len(names)}", takes
        )
    raise InputError(f"the inputs ({inputs.origin}) do not fit {kind}.forward: {reason}", takes)


def _knows_signature(model: nn.Module) -> bool:
    try:
        inspect.signature(unwrapped(model).forward)
    except (TypeError, ValueError):
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer lies; the CPU for a model without any."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return first.device if first is not None else torch.device("cpu")


def materialise(inputs: Inputs, device: str | torch.device = "cpu", seed: int = 0) -> Inputs:
    """Inputs with values: meta tensors become normal noise (floating point), zeros (integers) or True (bool).

    Zero is an index that every embedding and gather has. Tensors that have values are moved to `device`.
    """
    generator = torch.Generator().manual_seed(seed)

    def fill(value: torch.Tensor) -> torch.Tensor:
        return _filled(value, generator).to(device)

    return replace(
        inputs,
        args=tuple(replaced(value, fill) for value in inputs.args),
        kwargs={name: replaced(value, fill) for name, value in inputs.kwargs.items()},
    )


def _filled(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not value.is_meta:
        return value
    if value.is_floating_point() or value.is_complex():
        return torch.randn(value.shape, generator=generator, dtype=value.dtype)
    if value.dtype is torch.bool:
        return torch.ones(value.shape, dtype=torch.bool)
    return torch.zeros(value.shape, dtype=value.dtype)


_TAKES = {1: "N×C×L or C×L", 2: "N×C×H×W", 3: "N×C×D×H×W"}


def why_inputs_failed(model: nn.Module, inputs: Inputs, error: BaseException) -> InputError:
    """Say why a forward pass with given inputs failed, in terms of the first layer.

    Args:
        model: the model.
        inputs: what it was called with.
        error: what it raised.
    """
    given = ", ".join(inputs.describe()) or "no input"
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return InputError(
        f"{type(model).__name__} does not run on {given} ({inputs.origin}): {reason}",
        _first_layer_takes(model),
        details=f"{type(error).__name__}: {error}",
    )


def _first_layer_takes(model: nn.Module) -> str | None:
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.conv._ConvNd):
            rank = len(module.kernel_size)
            return f"its first layer `{name}` ({kind}) takes {_TAKES[rank]} with C = {module.in_channels}"
        if isinstance(module, nn.Linear):
            return f"its first layer `{name}` ({kind}) takes …×{module.in_features}"
        if isinstance(module, nn.Embedding):
            return (
                f"its first layer `{name}` ({kind}) takes integers below {module.num_embeddings} (add :int64)"
            )
    return None
