"""The module that does what a dropout call did, and how to find a free name for it."""

from __future__ import annotations

import copy
import math

from torch import nn

from dropout_lint.layers import Catalogue, DropoutSpec, Noise
from dropout_lint.remedies.uout import Uout

CLASSES: dict[str, type[nn.Module]] = {
    "Dropout": nn.Dropout,
    "Dropout1d": nn.Dropout1d,
    "Dropout2d": nn.Dropout2d,
    "Dropout3d": nn.Dropout3d,
    "AlphaDropout": nn.AlphaDropout,
    "FeatureAlphaDropout": nn.FeatureAlphaDropout,
}
FUNCTION_CLASSES = {
    "dropout": "Dropout",
    "dropout_": "Dropout",
    "dropout1d": "Dropout1d",
    "dropout2d": "Dropout2d",
    "dropout3d": "Dropout3d",
    "alpha_dropout": "AlphaDropout",
    "feature_alpha_dropout": "FeatureAlphaDropout",
    "feature_dropout": "Dropout2d",
}
BETA_RANGE = (0.2, 0.5)  # Li et al. 2019, Sec. 5.2: the β that the paper tried


def class_name(spec: DropoutSpec) -> str | None:
    """Name of the torch module class that makes the same noise, None where torch has none."""
    kind = FUNCTION_CLASSES.get(spec.kind.rpartition(".")[2], spec.kind)
    if kind in CLASSES:
        return kind
    return {Noise.ELEMENT: "Dropout", Noise.UNIFORM: "Uout"}.get(spec.noise)


def make(kind: str, value: float, spec: DropoutSpec) -> nn.Module:
    """A new dropout module of a class by name, in place of `spec`; `value` is p, or β for `Uout`."""
    if kind == "Uout":
        return Uout(beta=value, channelwise=spec.by_channel)
    return CLASSES[kind](value)


def copy_with(
    module: nn.Module, catalogue: Catalogue, value: float | None, inplace: bool | None = None
) -> nn.Module:
    """A copy of a user's own dropout module with another ratio.

    Raises:
        ValueError: the module's ratio cannot be set.
    """
    twin = copy.deepcopy(module)
    if inplace is not None and hasattr(twin, "inplace"):
        vars(twin)["inplace"] = inplace
    if value is not None:
        catalogue.set_ratio(twin, value)
    return twin


def beta_for(spec: DropoutSpec) -> float:
    """β of the Uout with the dropout's noise, β²/3 = (1−k)/k, held within the paper's 0.2–0.5."""
    low, high = BETA_RANGE
    variance = spec.mask_variance
    if not math.isfinite(variance):
        return high
    return round(min(high, max(low, math.sqrt(3 * variance))), 2)


def free_name(owner: nn.Module, wish: str = "dropout") -> str:
    """`wish`, or `wish_1`, `wish_2`, …: the first that no attribute of `owner` has."""
    name, number = wish, 0
    while hasattr(owner, name):
        number += 1
        name = f"{wish}_{number}"
    return name
