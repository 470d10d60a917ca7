"""Deployed programs, where a model is needed: they can be read, and neither traced nor changed."""

from __future__ import annotations

import torch
from torch import fx, nn

from dropout_lint.deployed import is_program
from dropout_lint.errors import TraceError
from dropout_lint.guard.arguments import MADE_FROM


def one_mode(what: str, form: str) -> TraceError:
    """The error of a program where a model is needed; `form` is what made it, `what` how it is called."""
    return TraceError(
        f"{what} is a program of {form}: it holds one mode, so that training and testing cannot be told "
        "apart in it",
        MADE_FROM,
    )


def refuse_exported(model: nn.Module) -> None:
    """Say so where `model` is a scripted one, or is, or holds, a graph of ATen operations.

    Raises:
        TraceError: it does.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise one_mode("the model", "torch.jit, which runs outside Python")
    for name, module in model.named_modules():
        if isinstance(module, fx.GraphModule) and is_program(module):
            raise one_mode(f"its part `{name}`" if name else "the model", "torch.export")
