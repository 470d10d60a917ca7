"""Programs that torch.export made: they hold one mode, so that there is nothing to compare."""

from __future__ import annotations

from torch import fx, nn

from dropout_lint.errors import TraceError


def refuse_exported(model: nn.Module) -> None:
    """Say so where `model` is, or holds, an exported program that cannot change its mode.

    Raises:
        TraceError: it does.
    """
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
                    "lint the module that it was exported from",
                ) from error
