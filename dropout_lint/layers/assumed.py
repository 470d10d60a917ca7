"""Dropouts whose ratio is 0 when the model is built, as of a schedule that raises it: judged at another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from dropout_lint.layers.catalogue import Catalogue


def idle(model: nn.Module, catalogue: Catalogue) -> dict[str, nn.Module]:
    """The dropout modules with ratio 0, by qualified name."""
    specs = ((name, module, catalogue.dropout(module)) for name, module in model.named_modules())
    return {name: module for name, module, spec in specs if spec is not None and spec.p == 0}


@contextmanager
def dropping(model: nn.Module, catalogue: Catalogue, ratio: float) -> Iterator[tuple[list[str], list[str]]]:
    """Inside, the dropout modules with ratio 0 drop as many as `ratio` says.

    Yields:
        The names of those that do, and of those whose ratio cannot be set.
    """
    changed: list[tuple[nn.Module, dict[str, object]]] = []
    names: list[str] = []
    fixed: list[str] = []
    for name, module in idle(model, catalogue).items():
        before = dict(module.__dict__)
        try:
            catalogue.set_ratio(module, ratio)
        except ValueError:
            fixed.append(name)
        else:
            changed.append((module, before))
            names.append(name)
    try:
        yield names, fixed
    finally:
        for module, before in changed:
            module.__dict__.update(before)
