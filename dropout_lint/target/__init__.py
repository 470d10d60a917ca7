"""From the text that names a target to the built `nn.Module` and its example inputs.

The names are loaded on first use, so that a process can say how torch starts (`own_process`) before it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropout_lint.target.compat import declare_missing_schemas, own_process
    from dropout_lint.target.guess import guess_inputs
    from dropout_lint.target.resolving import first_party_files, resolve
    from dropout_lint.target.shapes import as_inputs, materialise, parse_inputs, why_inputs_failed
    from dropout_lint.target.types import Built, Inputs, Location

_HOMES = {
    "Built": "types",
    "Inputs": "types",
    "Location": "types",
    "as_inputs": "shapes",
    "declare_missing_schemas": "compat",
    "first_party_files": "resolving",
    "guess_inputs": "guess",
    "materialise": "shapes",
    "own_process": "compat",
    "parse_inputs": "shapes",
    "resolve": "resolving",
    "why_inputs_failed": "shapes",
}

__all__ = [
    "Built",
    "Inputs",
    "Location",
    "as_inputs",
    "declare_missing_schemas",
    "first_party_files",
    "guess_inputs",
    "materialise",
    "own_process",
    "parse_inputs",
    "resolve",
    "why_inputs_failed",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
