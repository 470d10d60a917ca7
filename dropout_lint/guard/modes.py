"""The mode of each module for some passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from dropout_lint.guard.eager import eager


@contextmanager
def test_mode(model: nn.Module, train: Callable[[nn.Module], bool] = lambda module: False) -> Iterator[None]:
    """Every module in test mode, but those that `train` picks; each module's own mode restored afterwards.

    Flags are set one by one: `.eval()` of a user's class may do more than switch a flag.
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, training in before:
            if training is not (wanted := train(module)):
                module.training = wanted
        with eager():
            yield
    finally:
        for module, training in before:
            if module.training is not training:
                module.training = training


test_mode.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name
