"""Programs that torch.export or TorchScript made: there is nothing in them to compare, or to follow."""

from __future__ import annotations

import torch
from torch import fx, nn

from dropout_lint.errors import TraceError
from dropout_lint.guard.arguments import MADE_FROM


def refuse_exported(model: nn.Module) -> None:
    """Say so where `model` is a scripted one, or is, or holds, an exported one that cannot change its mode.

    Raises:
        TraceError: it does.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            "the model is a program of torch.jit.script or torch.jit.trace: it runs outside Python, so that "
            "nothing in it can be followed",
            MADE_FROM,
        )
    for name, module in model.named_modules():
        # torch.export puts a `train` of its own on the instance
        if isinstance(module, fx.GraphModule) and "train" in vars(module):
            try:
                module.train(module.training)
            except NotImplementedError as error:
                what = f"its part `{name}`" if name else "the model"
                raise TraceError(
                    f"{what} is a program that torch.export made: it holds one mode, so that training and "
                    "testing cannot be told apart in it",
                    MADE_FROM,
                ) from error
