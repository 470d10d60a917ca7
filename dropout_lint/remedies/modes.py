"""Functional dropout switched on or off for some passes, and that inside attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dropout_lint.layers.signatures import NORMS, RATIOS_INSIDE, Argument, argument, put
from dropout_lint.remedies.uout import uout

# Every functional dropout, and where its "am I training" argument stands: (position, keyword).
FLAGS: dict[Callable[..., Any], Argument] = dict.fromkeys(
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
            kwargs = dict(kwargs or {})
            if argument(args, kwargs, NORMS[func].mean, None) is not None:
                args = put(args, kwargs, NORMS[func].by_batch, False)
            return func(*args, **kwargs)
        flag = FLAGS.get(func)
        if flag is None and func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        kwargs = dict(kwargs or {})
        if flag is not None:
            args = put(args, kwargs, flag, self.on)
            if self.on and _positive(argument(args, kwargs, RATIOS_INSIDE.get(func, (1, "p")), 0.5)):
                self.draws += 1
        elif not self.on:
            args = put(args, kwargs, RATIOS_INSIDE[func], 0.0)
        return func(*args, **kwargs)


def _positive(ratio: Any) -> bool:
    return not isinstance(ratio, (int, float)) or ratio > 0
