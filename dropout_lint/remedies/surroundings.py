"""What feeds a weight layer: the activation and the dropout before it, read from the traced graph."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dropout_lint.layers import WEIGHT_FUNCTIONS, is_weight_layer
from dropout_lint.prediction.equations import HendrycksFactors, hendrycks_factors
from dropout_lint.trace import DropoutSite, Trace, module_of

# "If we lack an estimate for a nonlinearity adjustment factor, then 0.5 is a reasonable default" (Sec. 4).
UNKNOWN = HendrycksFactors(0.0, 0.5, 0.5)
IDENTITY = HendrycksFactors(0.0, 1.0, 1.0)

# They move values or copy them and leave their moments as they are. Max pooling does not; the paper's VGG
# nets pass through it all the same.
TRANSPARENT_NAMES = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "moveaxis", "t"),
        *("squeeze", "unsqueeze", "contiguous", "clone", "chunk", "split", "getitem", "expand", "repeat"),
        *(
            "roll",
            "flip",
            "narrow",
            "select",
            "unfold",
            "pixel_shuffle",
            "pixel_unshuffle",
            "channel_shuffle",
        ),
    }
)
TRANSPARENT_MODULES = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
TRANSPARENT_FUNCTIONS = (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
)

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Surroundings:
    """What a weight layer is fed with.

    Attributes:
        activation: for people: `ReLU`, `tanh`, `input`, `norm`, `weights`, or `unknown (…)`.
        factors: E[f²] and E[f′²] on a standard normal pre-activation; 0.5 each where f is unknown.
        keep: k. The product over the dropouts before the layer, 1/(1 + s) for a mask of variance s.
        function: the activation, None where it is unknown; the identity where there is none.
        source: the node that the walk ended at, None where it ended at nothing.
    """

    activation: str
    factors: HendrycksFactors
    keep: float
    function: Step | None = None
    source: fx.Node | None = None


def surroundings(trace: Trace, node: fx.Node) -> Surroundings:
    """Walk back from the input of a weight layer to the layer, norm or input that its values come from.

    Dropouts on both sides of the activation count as if they came after it, which is exact for ReLU (Kim
    et al. 2023, Prop. 1).
    """
    sites = {site.node: site for site in trace.dropouts if not site.inside}
    norms = {site.node for site in trace.norms}
    steps: list[Step] = []
    labels: list[str] = []
    keep = 1.0
    current = _input_of(node)
    source = "unknown"
    while current is not None:
        if current in sites:
            keep *= _keep(sites[current])
            current = _input_of(current)
            continue
        if current.op == "placeholder":
            source = "input"
            break
        if current in norms:
            source = "norm"
            break
        if _is_weights(trace, current):
            source = "weights"
            break
        if not _is_transparent(trace, current):
            step = _pointwise(trace, current)
            if step is None:
                source = f"unknown ({_label(trace, current)})"
                break
            steps.append(step)
            labels.append(_label(trace, current))
        current = _input_of(current)
    if not steps and source.startswith("unknown"):
        return Surroundings(source, UNKNOWN, keep)
    function = functools.partial(_composed, tuple(reversed(steps)))
    if not steps:
        return Surroundings(source, IDENTITY, keep, function, current)
    label = " of ".join(labels)
    factors = hendrycks_factors(function)
    if not math.isfinite(factors.energy + factors.slope_energy) or factors.energy <= 0:
        return Surroundings(f"unknown ({label})", UNKNOWN, keep)
    return Surroundings(label, factors, keep, function, current)


def _composed(steps: tuple[Step, ...], values: Tensor) -> Tensor:
    for step in steps:
        values = step(values)
    return values


def _input_of(node: fx.Node) -> fx.Node | None:
    value = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    return value if isinstance(value, fx.Node) else None


def _keep(site: DropoutSite) -> float:
    if not site.active_in_train or site.spec.noise.mask.keeps_moments:
        return 1.0
    variance = site.spec.mask_variance
    return 1.0 if math.isnan(variance) else 1 / (1 + variance)


def _is_weights(trace: Trace, node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target in WEIGHT_FUNCTIONS
    module = module_of(trace.model, node)
    return module is not None and is_weight_layer(module)


def _is_transparent(trace: Trace, node: fx.Node) -> bool:
    module = module_of(trace.model, node)
    if module is not None:
        return isinstance(module, TRANSPARENT_MODULES)
    return node.target in TRANSPARENT_FUNCTIONS or _name(node) in TRANSPARENT_NAMES


def _name(node: fx.Node) -> str:
    target = node.target
    name = target if isinstance(target, str) else str(getattr(target, "__name__", target))
    return name.split(".")[0].strip("_")


def _label(trace: Trace, node: fx.Node) -> str:
    module = module_of(trace.model, node)
    return type(module).__name__ if module is not None else _name(node)


def _pointwise(trace: Trace, node: fx.Node) -> Step | None:
    """The function that a node applies to each value on its own, or None where it is no such function."""
    module = module_of(trace.model, node)
    step: Step
    if isinstance(module, nn.PReLU) or _name(node) == "prelu":
        slope = _slope(trace, node, module)
        step = functools.partial(F.leaky_relu, negative_slope=slope)
    elif isinstance(module, nn.RReLU):
        step = functools.partial(F.leaky_relu, negative_slope=(module.lower + module.upper) / 2)
    elif module is not None:
        if any(True for _ in module.parameters()):
            return None
        step = _on_copies(copy.deepcopy(module).eval())
    elif node.op in ("call_function", "call_method"):
        others = [value for value in node.all_input_nodes if value is not _input_of(node)]
        if others or node.all_input_nodes != [_input_of(node)]:
            return None
        kwargs = {name: value for name, value in node.kwargs.items() if name not in ("inplace", "input")}
        rest = node.args[1:]
        call: Any = node.target if node.op == "call_function" else getattr(Tensor, str(node.target), None)
        step = _on_copies(lambda values: call(values, *rest, **kwargs))
    else:
        return None
    return step if _acts_on_each_value(step) else None


def _on_copies(function: Callable[[Tensor], Any]) -> Step:
    """An in-place activation must not write into the quadrature's nodes."""
    return lambda values: function(values.clone())


def _slope(trace: Trace, node: fx.Node, module: nn.Module | None) -> float:
    weight: Any = module.weight if isinstance(module, nn.PReLU) else None
    if weight is None and len(node.args) > 1 and isinstance(node.args[1], fx.Node):
        owner, _, name = str(node.args[1].target).rpartition(".")
        weight = getattr(trace.model.get_submodule(owner), name, None)
    if not isinstance(weight, Tensor) or weight.is_meta:
        return 0.25
    return float(weight.detach().mean())


def _acts_on_each_value(step: Step) -> bool:
    """Whether values neither mix nor change place: f of a part, in another order, is the part of f."""
    values = torch.linspace(-3, 3, 13, dtype=torch.float64) + 0.01
    order = torch.tensor([7, 2, 11, 0, 5])
    try:
        with torch.no_grad():
            whole, again, part = step(values), step(values), step(values[order])
    except Exception:  # a function of shapes, of several tensors, of images, …
        return False
    if not isinstance(whole, Tensor) or whole.shape != values.shape or not whole.is_floating_point():
        return False
    return torch.equal(whole, again) and torch.allclose(whole[order], part, rtol=1e-5, atol=1e-8)
