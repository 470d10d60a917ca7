"""Dropouts and norms whose class has a forward of its own, tried: do they do what their base does?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dropout_lint.layers import Catalogue
from dropout_lint.trace.leaves import is_torchs
from dropout_lint.trace.values import map_tensors
from dropout_lint.trace.witness import Witness


@dataclass(frozen=True)
class Behaviour:
    """What a layer does.

    Attributes:
        draws: it draws random numbers in test mode.
        batch_statistics: it normalises by the statistics of its batch in test mode; None where no batch
            normalisation ran.
        train_statistics: the same in the mode that it was called in.
    """

    draws: bool = False
    batch_statistics: bool | None = None
    train_statistics: bool | None = None


class Trials:
    """Runs such a layer, once for all instances of a class that are set alike."""

    def __init__(self, catalogue: Catalogue, witness: Witness) -> None:
        self._catalogue = catalogue
        self._witness = witness
        self._known: dict[tuple[Any, ...], Behaviour] = {}

    def of(self, module: nn.Module, candidate: bool) -> bool:
        """Whether a dropout or norm is to be tried: its forward is not torch's, and it does something."""
        if not candidate or is_torchs(type(module).forward) or isinstance(module, torch.jit.ScriptModule):
            return False
        spec = self._catalogue.dropout(module)
        return spec is None or spec.is_noisy

    def run(
        self, module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Behaviour:
        """What `module` does as it is called and in test mode; it is left as it was, and no draw is kept."""
        key = _setting(module)
        if key not in self._known:
            self._known[key] = self._tried(module, forward, args, kwargs)
        return self._known[key]

    def _tried(
        self, module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Behaviour:
        witness, since = self._witness, len(self._witness.draws)
        modes = [(part, part.training) for part in module.modules()]
        seen: list[bool | None] = []
        try:
            for test in (False, True):
                for part, mode in modes:
                    part.__dict__["training"] = mode and not test
                witness.batch_statistics = None
                first = len(witness.draws)
                forward(*map_tensors(args, torch.Tensor.clone), **map_tensors(kwargs, torch.Tensor.clone))
                seen.append(witness.batch_statistics)
        except Exception:  # it needs values, or what torch refuses on these materials: nothing was seen
            return Behaviour()
        finally:
            for part, mode in modes:
                part.__dict__["training"] = mode
            for draw in witness.draws[since:]:
                draw.trial = True
        return Behaviour(len(witness.draws) > first, batch_statistics=seen[1], train_statistics=seen[0])


def _setting(module: nn.Module) -> tuple[Any, ...]:
    """The class and the switches of a layer, on which its behaviour may depend."""
    switches = (
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, (bool, str, type(None))) and name != "training"
    )
    return (type(module), *switches)
