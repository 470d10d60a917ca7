"""Dropout switched on or off for some passes: modules, functional calls and those inside attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dropout_lint.guard.eager import eager
from dropout_lint.remedies.uout import uout

# Every functional dropout, and where its "am I training" argument stands: (position, keyword).
FLAGS: dict[Callable[..., Any], tuple[int, str]] = dict.fromkeys(
    (
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
        uout,
    ),
    (2, "training"),
)
for _name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout"):
    _packet = getattr(torch.ops.aten, _name)  # as `torch.export` writes it
    FLAGS.update(dict.fromkeys((getattr(torch, _name), _packet, _packet.default), (2, "train")))
    if hasattr(torch, f"{_name}_"):
        FLAGS[getattr(torch, f"{_name}_")] = (2, "train")
FLAGS[F.multi_head_attention_forward] = (13, "training")
# Functional norms: where their running mean stands, and what says that they use the batch's own instead.
NORMS: dict[Callable[..., Any], tuple[tuple[int, str], tuple[int, str]]] = {
    F.batch_norm: ((1, "running_mean"), (5, "training")),
    torch.batch_norm: ((3, "running_mean"), (5, "training")),
    F.instance_norm: ((1, "running_mean"), (5, "use_input_stats")),
}
# The ratio's place; attention's differs.
RATIOS: Mapping[Callable[..., Any], tuple[int, str]] = {F.multi_head_attention_forward: (10, "dropout_p")}


class DropoutSwitch(TorchFunctionMode):
    """While it is active every functional dropout drops (`on=True`) or passes its input (`on=False`).

    Also those whose call says `training=True`, and the ones inside attention. It sees calls of torch's own
    functions (and `uout`), not what a user's code draws by hand, nor a call behind `if self.training:`.
    Functional norms that remember statistics use them, whatever the mode of the module that calls them.

    Attributes:
        draws: how many calls with a ratio above 0 were made to drop.
    """

    def __init__(self, on: bool) -> None:
        super().__init__()
        self.on = on
        self.draws = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self.on and func in NORMS:
            mean, batch_statistics = NORMS[func]
            kwargs = dict(kwargs or {})
            if argument(args, kwargs, mean, None) is not None:
                args = put(args, kwargs, batch_statistics, False)
            return func(*args, **kwargs)
        flag = FLAGS.get(func)
        if flag is None and func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        kwargs = dict(kwargs or {})
        if flag is not None:
            args = put(args, kwargs, flag, self.on)
            if self.on and _positive(argument(args, kwargs, RATIOS.get(func, (1, "p")), 0.5)):
                self.draws += 1
        elif not self.on:
            args = put(args, kwargs, (4, "dropout_p"), 0.0)
        return func(*args, **kwargs)


def put(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: tuple[int, str], value: object
) -> tuple[Any, ...]:
    """The arguments with one of them replaced, wherever the caller put it."""
    position, keyword = place
    if position < len(args):
        return (*args[:position], value, *args[position + 1 :])
    # aten's native_dropout and the `train` builtins take it by either name or place
    kwargs[keyword] = value
    return args


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: tuple[int, str], default: Any) -> Any:
    """The value of one argument, wherever the caller put it."""
    position, keyword = place
    for name in (keyword, "beta") if keyword == "p" else (keyword,):
        if name in kwargs:
            return kwargs[name]
    return args[position] if position < len(args) else default


def _positive(ratio: Any) -> bool:
    return not isinstance(ratio, (int, float)) or ratio > 0


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
