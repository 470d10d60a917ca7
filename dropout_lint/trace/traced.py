"""What the trace room hands on: one torch.fx graph, and every dropout and norm in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from dropout_lint.guard.wrappers import stood_for
from dropout_lint.inputs.example import Inputs, Location
from dropout_lint.layers import STANDARD, Catalogue, DropoutSpec, NormSpec
from dropout_lint.layers.signatures import NORMS, Argument, argument
from dropout_lint.trace.sizes import Comparison


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Shape and dtype of one tensor in the graph; stands in for it in `node.meta["value"]`."""

    shape: tuple[int, ...]
    dtype: torch.dtype


BY_HAND = "random mask"
"""`DropoutSpec.kind` of a dropout that the user wrote as a product with a random mask."""


@dataclass(frozen=True)
class DropoutSite:
    """One call of a dropout: one node of the graph, or one that lives inside an attention or LSTM node.

    Attributes:
        node: the node of the graph.
        name: qualified name of the module, or `owner@file.py:line` for a functional one.
        spec: kind, noise family and ratio.
        module: qualified name of the dropout module (of its holder inside attention), None if functional.
        owner: qualified name of the module whose `forward` makes the call ("" is the root).
        functional: a function call, or a module that is made in `forward`.
        active_in_train: it drops in train mode.
        active_in_eval: it still drops in eval mode.
        constructed: the line that constructs the module.
        call: the line that calls it.
        inside: it lives inside the node (attention, recurrent layers) and cannot be moved.
        call_index: 0 for the first call of this module, 1 for the second, …
        operand: which of the node's input nodes it drops; 0 but for masks that are written by hand.
        scale: the node that divides by the keep probability, where a mask's product is divided outside of it.
        sources: the nodes that draw the mask of one that is written by hand; none for all others.
    """

    node: fx.Node
    name: str
    spec: DropoutSpec
    module: str | None
    owner: str
    functional: bool
    active_in_train: bool
    active_in_eval: bool
    constructed: Location | None = None
    call: Location | None = None
    inside: bool = False
    call_index: int = 0
    operand: int = 0
    scale: fx.Node | None = None
    sources: tuple[fx.Node, ...] = ()

    @property
    def by_hand(self) -> bool:
        """A product with a random mask, whose scale 1/(1 - p) may stand elsewhere; or a choice in Python."""
        return self.spec.kind == BY_HAND or self.spec.noise.mask.of_calls

    @property
    def rooted(self) -> bool:
        """No step can take it out: it is part of a layer, a layer that torch has no module for, or a product
        whose scale may stand elsewhere.
        """
        return self.inside or self.by_hand or self.translated

    @property
    def translated(self) -> bool:
        """A layer of another framework, said in torch's words (`trace/translated.py`)."""
        return "layer" in self.node.meta


@dataclass(frozen=True)
class NormSite:
    """One call of a norm; attributes as in `DropoutSite`. `frozen` is in its spec.

    `recomputed`: `torch.utils.checkpoint` runs it once more in the backward pass.
    """

    node: fx.Node
    name: str
    spec: NormSpec
    module: str | None
    owner: str
    constructed: Location | None = None
    call: Location | None = None
    call_index: int = 0
    recomputed: bool = False

    @property
    def source(self) -> fx.Node | None:
        """The node whose value it normalises."""
        given = argument_of(self.node, (0, "input"))
        return given if isinstance(given, fx.Node) else next(iter(self.node.all_input_nodes), None)


@dataclass(frozen=True)
class Arrival:
    """A random draw that reaches the input of a norm in train mode, and not in test mode.

    Attributes:
        draw: for people: `net.py:31 torch.randn_like`.
        call: the line that draws.
        through: nodes of the dropouts that stand for it; none where it belongs to no known dropout.
        beside: it also comes by a way on which none of these dropouts stands.
    """

    draw: str
    call: Location | None
    through: tuple[fx.Node, ...]
    beside: bool


@dataclass(frozen=True)
class Opaque:
    """A part that could not be traced: its qualified name and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class UnusedDropout:
    """A dropout that was built but never called."""

    name: str
    spec: DropoutSpec
    constructed: Location | None = None


@dataclass(frozen=True)
class Trace:
    """One recorded forward pass.

    Every node of `graph` carries in its `meta`:
        `value`  what it returned, a pytree with a `TensorInfo` for each tensor;
        `owner`  qualified name of the module whose `forward` made it ("" is the root);
        `call`   the `Location` of the user's line that made it, or None;
        `recomputed`  of norms: whether a checkpointed block made it.

    Leaves (`call_module`) are dropouts, norms and the torch.nn layers that hold neither; `node.target` is
    the qualified name in `model`. Parameters and buffers are `get_attr` nodes.

    Attributes:
        model: the model that was traced, as it was.
        graph: the graph of one forward pass, in train mode where that works.
        method: the way that worked: `meta`, `fake` or `cpu` (what the forward pass was recorded with; `-eval`
            behind it where only test mode runs), `symbolic`, or `children` (part by part).
        inputs: what it was traced with.
        dropouts: every dropout call, in the order of the data.
        norms: every norm call, in the order of the data.
        unused: dropouts that exist and are never called.
        opaque: the parts that could not be traced.
        idle: the parts that guessed inputs do not run; of those that given ones do not run a note tells.
        constructed: the line that constructed each module, by qualified name.
        constants: tensors and objects that `get_attr` nodes name and the model itself does not hold.
        exact: whether the graph computes what the model computes, at whatever values its inputs have.
        comparisons: the comparisons of sizes that the model made: where one comes out otherwise, it may take
            another way than the graph.
        notes: things to say aloud.
        draws: norm node → the random draws that reach its input, as a witness saw it that knows of no
            operation (`trace/witness.py`).
        witnessed: whether there was a witness: none sees a symbolic trace, nor one in test mode alone.
        catalogue: which classes were taken for dropouts and norms.
    """

    model: nn.Module
    graph: fx.Graph
    method: str
    inputs: Inputs
    dropouts: tuple[DropoutSite, ...]
    norms: tuple[NormSite, ...]
    unused: tuple[UnusedDropout, ...] = ()
    opaque: tuple[Opaque, ...] = ()
    idle: tuple[Opaque, ...] = ()
    constructed: Mapping[str, Location] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    draws: Mapping[fx.Node, tuple[Arrival, ...]] = field(default_factory=dict)
    witnessed: bool = False
    catalogue: Catalogue = STANDARD

    def held(self, name: str) -> Any:
        """What a `get_attr` node of this name reads: a constant of the trace, or something of the model."""
        if name in self.constants:
            return self.constants[name]
        value: Any = self.model
        for part in name.split("."):
            value = getattr(value, part, None)
        return value

    def statistics(self, site: NormSite) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(C,) running mean and variance of a norm, a module or a function; None where it has none."""
        module = module_of(self.model, site.node)
        if module is not None:
            found = [getattr(module, name, None) for name in ("running_mean", "running_var")]
        elif (arguments := NORMS.get(site.node.target)) is not None:
            given = [argument_of(site.node, one) for one in (arguments.mean, arguments.variance)]
            found = [self.held(str(one.target)) if is_held(one) else None for one in given]
        else:
            return None
        mean, variance = found
        if not isinstance(mean, torch.Tensor) or not isinstance(variance, torch.Tensor):
            return None
        return mean, variance

    @property
    def partial(self) -> bool:
        """Whether some part could not be traced."""
        return bool(self.opaque or self.idle)

    @property
    def by_parts(self) -> bool:
        """Whether parts stand side by side: what comes before and behind each of them was not seen."""
        return self.method == "children"

    @property
    def runnable(self) -> bool:
        """Whether the graph computes what the model computes (so that a graph fix can be built on it)."""
        return self.exact and self.method in ("meta", "fake", "cpu", "symbolic") and not self.opaque


def value_of(node: fx.Node) -> Any:
    """What `node` returned, tensors as `TensorInfo`; None where it is not known."""
    return node.meta.get("value")


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of the tensor that `node` returned, or None where it returned no single tensor."""
    value = node.meta.get("value")
    return value.shape if isinstance(value, TensorInfo) else None


def argument_of(node: fx.Node, place: Argument, default: Any = None) -> Any:
    """The value of one of a node's arguments, wherever the caller put it."""
    return argument(node.args, node.kwargs, place, default)


def function_of(node: fx.Node) -> Callable[..., Any]:
    """The function or method that a node calls."""
    target: Any = node.target
    function: Callable[..., Any] = getattr(torch.Tensor, target) if node.op == "call_method" else target
    return function


def is_held(value: Any) -> bool:
    """Whether a value is a node that reads a parameter, a buffer or a constant."""
    return isinstance(value, fx.Node) and value.op == "get_attr"


def given_for(source: fx.Node, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What stands for `source` among a node's arguments, None where it is no argument by itself."""
    pairs = zip((*node.args, *node.kwargs.values()), (*args, *kwargs.values()), strict=True)
    return next((value for of, value in pairs if of is source), None)


def module_of(model: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a `call_module` node calls, or None."""
    if node.op != "call_module":
        return None
    module: nn.Module = model
    for part in str(node.target).split("."):
        child = module._modules.get(part) if part else module
        if child is None:
            return None
        module = stood_for(child)
    return module
