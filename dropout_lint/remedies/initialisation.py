"""Initial weights that allow for dropout and for the activation (Hendrycks and Gimpel 2017, Sec. 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from dropout_lint.errors import UsageError
from dropout_lint.guard.alone import at_rest
from dropout_lint.guard.arguments import check_choice, check_model
from dropout_lint.guard.wrappers import unwrapped
from dropout_lint.inputs.shapes import as_inputs
from dropout_lint.layers import STANDARD, WEIGHT_FUNCTIONS, Catalogue, is_weight_layer
from dropout_lint.prediction.equations import hendrycks_divisor
from dropout_lint.remedies.finite_width import Spread
from dropout_lint.remedies.surroundings import Surroundings, surroundings
from dropout_lint.trace import Trace, module_of, trace

Weights = Literal["sphere", "orthogonal"]


@dataclass(frozen=True)
class LayerInit:
    """How one weight was initialised.

    Attributes:
        name: qualified name of the weight (`features.0.weight`).
        activation: what feeds the layer: the activation, `input`, `norm`, `weights` or `unknown (…)`.
        keep: k, from the dropouts before the layer.
        divisor: what the unit-norm weights were divided by.
        backward: whether the backward term k·E[f′²] is in it.
    """

    name: str
    activation: str
    keep: float
    divisor: float
    backward: bool


@dataclass(frozen=True)
class Initialisation:
    """What `correct_init_` did: one entry for each weight, and why each of the others was left alone."""

    layers: tuple[LayerInit, ...]
    skipped: Mapping[str, str]

    def __str__(self) -> str:
        width = max([len(layer.name) for layer in self.layers] + [len(name) for name in self.skipped] + [6])
        lines = [f"{'weight':<{width}}  divided by     k  after"]
        lines += [
            f"{layer.name:<{width}}  {layer.divisor:10.4f}  {layer.keep:4.2f}  {layer.activation}"
            for layer in self.layers
        ]
        lines += [f"{name:<{width}}  left alone: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Use:
    """One call of a weight.

    `widening` is what E[f²] grows by at finite width; `stride` is above 1 for transposed convolutions alone.
    """

    before: Surroundings
    convolution: bool
    transposed: bool = False
    groups: int = 1
    stride: int = 1
    widening: float = 1.0


def correct_init_(
    model: nn.Module,
    inputs: Any = None,
    *,
    backward: bool = True,
    weights: Weights = "sphere",
    finite_width: bool = True,
    catalogue: Catalogue = STANDARD,
    generator: torch.Generator | None = None,
) -> Initialisation:
    """Initialise every linear layer and convolution so that dropout and activation keep the signal's size.

    Each unit's incoming weights lie on the unit sphere (or are orthonormal) and are divided by
    √(E[f²]/k + k·E[f′²]), where f is the activation before the layer, k the keep probability of the dropout
    before it, both read from the traced graph, and the moments are those on a standard normal variable, by
    quadrature. Unknown activations count as 0.5, inputs and normalised values as 1. Biases become 0.

    The first term alone keeps the second moment of the pre-activations at 1 through any depth, in train mode,
    as a mean over networks; single networks lie the further apart the deeper they are, less with orthonormal
    weights.
    The sum of both makes it shrink layer by layer, to E[f²]/k over the sum (ReLU, k = 1: by half; 20 layers:
    to a millionth), and the error signal with it. Which trains better is another matter: 16 layers without
    norms on digits did better with the first term alone at k = 1 and with both at k = 0.6
    (`benchmarks/results/initialisation.md`); try both where it counts.

    Args:
        model: any model whose weights have values; it is changed in place.
        inputs: example inputs to trace with: a tensor, a tuple of arguments, a dict, or None to guess.
        backward: add the backward term, to linear layers only, as the paper advises.
        weights: `sphere`, or `orthogonal` (rows orthonormal; where a layer has more outputs than inputs the
            columns are, scaled so that the rows' mean square norm is 1).
        finite_width: with `backward=False`, average E[f²] over how far linear layers of finite width stray
            from a second moment of 1 (`remedies.finite_width`). Changes nothing for ReLU, next to nothing for
            bounded functions, and keeps deep GELU and SiLU networks from drifting, which the paper's formula
            (`finite_width=False`) does not.
        catalogue: which classes are dropouts and norms.
        generator: where the random numbers come from, by default torch's own.

    Returns:
        what each weight was divided by, and which were left alone: frozen, shared with another kind of layer,
        parametrized, recurrent, attention, or not seen in the trace.

    Raises:
        UsageError: the model is no module, an unknown kind of weights, a model on the meta device, or a
            dropout of ratio 1.
        InputError: the inputs do not fit the model.
        TraceError: nothing of the model could be traced.
    """
    check_model(model)
    check_choice("weights", weights, ("sphere", "orthogonal"))
    if any(parameter.is_meta or is_lazy(parameter) for parameter in model.parameters()):
        raise UsageError(
            f"the weights of {type(model).__name__} have no values or no size yet",
            "build it on a device (`model.to_empty(device='cpu')`), and run a lazy model once",
        )
    model = unwrapped(model)
    given = None if inputs is None else as_inputs(inputs, model, "given")
    chosen: list[tuple[nn.Parameter, _Use, LayerInit]] = []
    with at_rest(model):
        traced = trace(model, given, catalogue=catalogue)
        uses, skipped = _uses(traced, finite_width and not backward, orthonormal=weights == "orthogonal")
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for parameter, calls in uses.values():
            name = names.get(id(parameter), "")
            reason = _reason_to_skip(model, name, parameter)
            if reason is not None:
                skipped[name] = reason
            else:
                chosen.append((parameter, calls[0], _layer(name, calls, backward)))
        for name, parameter in _weights_of(model):
            if id(parameter) not in uses:
                skipped.setdefault(name, "not called in the trace")
    # everything is known by now, so that an error leaves no model half initialised
    for parameter, use, layer in chosen:
        unit = _unit_rows(parameter, use, weights, generator)
        with torch.no_grad():
            parameter.copy_(unit / layer.divisor)
        _zero_bias(model, layer.name)
    return Initialisation(tuple(layer for _, _, layer in chosen), skipped)


def _uses(
    traced: Trace, finite_width: bool, orthonormal: bool
) -> tuple[dict[int, tuple[nn.Parameter, list[_Use]]], dict[str, str]]:
    """Every weight that the graph applies, with each of its calls; and the layers of other kinds."""
    uses: dict[int, tuple[nn.Parameter, list[_Use]]] = {}
    skipped: dict[str, str] = {}
    spreads: dict[fx.Node, Spread] = {}
    for node in traced.graph.nodes:
        module = module_of(traced.model, node)
        if isinstance(module, nn.Linear):
            found = module.weight, _Use(surroundings(traced, node), convolution=False)
        elif isinstance(module, _ConvNd):
            transposed = isinstance(module, _ConvTransposeNd)
            stride = math.prod(module.stride) if transposed else 1
            before = surroundings(traced, node)
            found = module.weight, _Use(before, True, transposed, module.groups, stride)
        elif module is not None and is_weight_layer(module):
            skipped[f"{node.target}"] = f"{type(module).__name__} is not covered by the derivation"
            continue
        elif node.op == "call_function" and node.target in WEIGHT_FUNCTIONS:
            called = _functional(traced, node)
            if called is None:
                continue
            found = called
        else:
            continue
        parameter, use = found
        if finite_width and not use.convolution and use.before.function is not None:
            source = use.before.source
            spread = spreads.get(source, Spread.none()) if source is not None else Spread.none()
            shape = parameter.shape[0], parameter.shape[-1]
            widening, spreads[node] = spread.through(use.before.function, use.before.keep, shape, orthonormal)
            use = replace(use, widening=widening)
        if isinstance(parameter, nn.Parameter):
            uses.setdefault(id(parameter), (parameter, []))[1].append(use)
        else:
            skipped[f"{node.target}.weight"] = "computed from other parameters"
    return uses, skipped


def _functional(traced: Trace, node: fx.Node) -> tuple[Any, _Use] | None:
    """`F.linear(x, self.weight)` and the convolutions whose weight is a parameter of the model."""
    name = str(getattr(node.target, "__name__", node.target))
    weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or not name.startswith(("linear", "conv")):
        return None
    owner, _, attribute = str(weight.target).rpartition(".")
    parameter = getattr(traced.model.get_submodule(owner), attribute, None)
    before = surroundings(traced, node)
    if name.startswith("linear"):
        return parameter, _Use(before, convolution=False)
    transposed = "transpose" in name
    dims = parameter.dim() - 2 if isinstance(parameter, Tensor) else 1
    stride = _argument(node, 3, "stride") if transposed else 1
    steps = math.prod(stride) if isinstance(stride, (tuple, list)) else stride**dims
    groups = _argument(node, 5 if transposed else 6, "groups")
    return parameter, _Use(before, True, transposed, groups, steps)


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, 1)


def _weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, _ConvNd)) and isinstance(module.weight, nn.Parameter):
            yield f"{name}.weight" if name else "weight", module.weight


def _reason_to_skip(model: nn.Module, name: str, parameter: nn.Parameter) -> str | None:
    if not parameter.requires_grad:
        return "frozen (requires_grad is False)"
    if parameter.dim() < 2:
        return "it is no matrix"
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.weight is parameter:
            return f"shared with an {type(module).__name__}"
    owner = model.get_submodule(name.rpartition(".")[0])
    if parametrize.is_parametrized(owner):
        return "parametrized"
    return None


def _layer(name: str, calls: list[_Use], backward: bool) -> LayerInit:
    backward = backward and not calls[0].convolution
    # a weight that is used at several places gets the mean of their variances
    squares = []
    for use in calls:
        if use.before.keep <= 0:
            raise UsageError(
                f"the dropout before `{name}` drops everything, so there is nothing to make up for",
                "give it a ratio below 1",
            )
        factors = replace(use.before.factors, energy=use.before.factors.energy * use.widening)
        squares.append(hendrycks_divisor(use.before.keep, factors, backward=backward) ** 2)
    activations = ", ".join(dict.fromkeys(use.before.activation for use in calls))
    keep = sum(use.before.keep for use in calls) / len(calls)
    return LayerInit(name, activations, keep, math.sqrt(sum(squares) / len(squares)), backward)


def _unit_rows(parameter: Tensor, use: _Use, weights: Weights, generator: torch.Generator | None) -> Tensor:
    """Random weights whose fan-in has norm 1 for each output, in the parameter's shape."""
    shape = parameter.shape
    if use.transposed:  # (in, out/groups, …): each output sees in/groups inputs and 1/stride of the taps
        shape = torch.Size((use.groups, shape[0] // use.groups, *shape[1:]))
        shape = torch.Size((shape[0], shape[2], shape[1], *shape[3:]))
        rows, fan_in = shape[0] * shape[1], shape[2:].numel()
    else:
        rows, fan_in = shape[0], shape[1:].numel()
    device = generator.device if generator is not None else parameter.device
    matrix = torch.randn(rows, fan_in, device=device, generator=generator)
    if weights == "sphere":
        matrix = nn.functional.normalize(matrix, dim=1)
    else:
        matrix = torch.cat([_orthonormal(block) for block in matrix.chunk(use.groups)])
    if use.transposed:
        matrix = matrix.reshape(shape).transpose(1, 2).reshape(parameter.shape) * math.sqrt(use.stride)
    return matrix.reshape(parameter.shape).to(parameter.device, parameter.dtype)


def _orthonormal(matrix: Tensor) -> Tensor:
    """A random matrix with orthonormal rows, or columns scaled to rows of mean square norm 1 (Saxe 2014)."""
    rows, columns = matrix.shape
    q, r = torch.linalg.qr(matrix.T if rows < columns else matrix)
    q = q * r.diagonal().sign()  # makes it uniform (Mezzadri 2007)
    result: Tensor = q.T if rows < columns else q * math.sqrt(rows / columns)
    return result


def _zero_bias(model: nn.Module, name: str) -> None:
    owner, _, attribute = name.rpartition(".")
    bias = getattr(model.get_submodule(owner), "bias", None) if attribute == "weight" else None
    if isinstance(bias, nn.Parameter) and bias.requires_grad:
        with torch.no_grad():
            bias.zero_()
