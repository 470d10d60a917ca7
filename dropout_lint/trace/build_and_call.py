"""Layers of the build-and-call protocol (Keras 3 on the torch backend).

Such a layer is a torch module with `build` and `call`, whose `forward` hands everything on to `call`. Whether
it trains is an argument of the call: `train()` and `eval()` do not reach it. Its own layers are no
submodules, and it normalises by plain arithmetic on statistics of its own. What `trace/translated.py` has no
word for, a recording does not show: it is named, since a report without it would read as clean.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from dropout_lint.trace.traced import Opaque

_RATES = ("rate", "dropout", "recurrent_dropout")
"""Attributes that hold a layer's drop ratio."""
_STATISTICS = "moving_variance"
"""The attribute that holds what a norm remembers of the training variance."""


def unseen_layers(model: nn.Module, seen: Callable[[Any], bool]) -> Iterator[Opaque]:
    """The outermost modules of this protocol that hold layers which drop or normalise.

    Args:
        model: what was recorded.
        seen: whether the recording shows what a layer does.
    """
    for name, module in _outermost(model):
        layers = _layers(module)
        both = any(map(_drops, layers)) and any(hasattr(layer, _STATISTICS) for layer in layers)
        unseen = [layer for layer in layers if not seen(layer)]
        drop = [_name(layer) for layer in unseen if _drops(layer)]
        norm = [_name(layer) for layer in unseen if hasattr(layer, _STATISTICS)]
        if both and (drop or norm):
            named = [
                f"{what} {_listed(names)}"
                for what, names in (("the dropouts", drop), ("the norms", norm))
                if names
            ]
            yield Opaque(
                name or type(module).__name__,
                "an argument of the call tells its layers whether they train, not train(): "
                f"{' and '.join(named)} are not seen",
            )


def protocol_layers(model: nn.Module) -> list[Any]:
    """All layers of this protocol inside a model."""
    return [layer for _, module in _outermost(model) for layer in _layers(module)]


def is_told(model: nn.Module) -> bool:
    """Whether a model is of this protocol, and an argument `training` of its call says whether it trains."""
    return _follows(model) and "training" in inspect.signature(type(model).call).parameters  # type: ignore[attr-defined]  # it has one


def _outermost(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of this protocol that no other one holds, by name."""
    inside: set[int] = set()
    for name, module in model.named_modules():
        if id(module) not in inside and _follows(module):
            inside |= {id(part) for part in module.modules()}
            yield name, module


def _follows(module: nn.Module) -> bool:
    """Whether `module` is of this protocol."""
    kind = type(module)
    if not (callable(getattr(kind, "call", None)) and callable(getattr(kind, "build", None))):
        return False
    try:
        parameters = list(inspect.signature(kind.forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return False
    return [p.kind for p in parameters] == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]


def _layers(module: nn.Module) -> list[Any]:
    """The layer and all inside it, those aside that it does not tell of."""
    found: dict[int, Any] = {}

    def visit(layer: Any) -> None:
        if id(layer) in found:
            return
        found[id(layer)] = layer
        for inner in getattr(layer, "layers", None) or getattr(layer, "_layers", None) or ():
            visit(inner)

    visit(module)
    return list(found.values())


def _drops(layer: Any) -> bool:
    rates = [getattr(layer, name, None) for name in _RATES]
    return any(isinstance(rate, (int, float)) and 0 < rate < 1 for rate in rates)


def _name(layer: Any) -> str:
    return str(getattr(layer, "name", type(layer).__name__))


def _listed(names: list[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
