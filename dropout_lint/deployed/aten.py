"""Which of ATen's operations have a mode, and which one their arguments say: torch.export, TorchScript."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dropout_lint.deployed.program import Step
from dropout_lint.inputs.example import Location

DROPOUTS = frozenset({"dropout", "native_dropout", "_fused_dropout", "feature_dropout"})
DROPOUTS |= {"alpha_dropout", "feature_alpha_dropout"}
MASKS = frozenset({"bernoulli", "rand", "rand_like", "uniform"})
"""What a dropout is made of where it was taken apart; a normal draw is no mask."""
WITHOUT_FLAG: Mapping[str, bool] = {
    "_native_batch_norm_legit_no_training": False,
    "_batch_norm_no_update": False,
    "_batch_norm_with_update": True,
    "quantized_batch_norm": False,
}


def step_of(
    operation: str, given: Mapping[str, Any], name: str, source: Location | None = None
) -> Step | None:
    """The dropout or norm that an operation is; None for one without a mode, or that does nothing.

    Args:
        operation: its name without namespace and overload, `feature_dropout_`.
        given: its arguments by the names of its schema; what is no constant may be anything else.
        name, source: of the node.
    """
    plain = operation.removesuffix("_")
    kind = f"aten.{plain}"
    if plain in MASKS:
        return Step(name, kind, False, True, source=source)
    if given.get("running_mean") is not None or plain == "quantized_batch_norm":
        flag = given.get("training", given.get("use_input_stats", WITHOUT_FLAG.get(plain)))
        return Step(name, kind, True, flag if isinstance(flag, bool) else None, source=source)
    if plain in DROPOUTS:
        p, flag = given.get("p"), given.get("train", True)
        flag = True if flag is None else flag  # native_dropout's default
    elif "dropout_p" in given:  # attention has no flag beside it
        p, flag = given["dropout_p"], True
    elif "dropout" in given and "train" in given:  # recurrent layers
        p, flag = given["dropout"], given["train"]
    else:
        return None
    if p == 0:
        return None
    ratio = float(p) if isinstance(p, (int, float)) else float("nan")
    return Step(name, kind, False, flag if isinstance(flag, bool) else None, ratio, source)
