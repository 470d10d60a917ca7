"""The table of transfer functions, and what each of them is given.

A transfer function takes one `Call` and returns the `State` of its result (or a tuple of them). It is found
by name: `@function("relu")` serves `F.relu`, `torch.relu_` and `x.relu()`; `@module("Conv2d")` serves the
class and every subclass of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from dropout_lint.prediction.expected import Training, Trainings
from dropout_lint.prediction.quadrature import Array
from dropout_lint.prediction.state import State, constant, fresh
from dropout_lint.trace.traced import DropoutSite, NormSite, TensorInfo


class NoRule(Exception):
    """A transfer function does not know what it was given: the operation is run on samples instead."""


RAISE = "DROPOUT_LINT_RAISE"
"""Where this variable is set, as the tests do, a fault in a transfer function ends the prediction."""
Transfer = Callable[["Call"], Any]
_SEVERAL: set[Transfer] = set()
_FUNCTIONS: dict[str, Transfer] = {}
_MODULES: dict[str, Transfer] = {}


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer of the model, or a constant; its values may be on the meta device.

    Attributes:
        tensor: the values, or their shape alone.
        start: the values before training, where `tensor` has none.
    """

    tensor: torch.Tensor
    start: torch.Tensor | None = None

    @property
    def known(self) -> bool:
        """Whether it has values."""
        return not self.tensor.is_meta


@dataclass
class Ledger:
    """What all transfer functions of one prediction share.

    Attributes:
        dropouts: the dropouts that make noise, in order; their index is the row in `State.noise`.
        norms: the norm calls by node.
        silent: nodes that are nothing but a dropout; one that makes no noise there passes its input on.
        real: weights have values.
        trained: running statistics are those of training.
        training: what weights without values are expected to become; None for those of the start.
        singles: where it walks several trainings abreast, what is known of each; the first counts.
        weight_layers: nodes that are a linear layer or a convolution.
        layers_after: weight layers on the longest way from a node to the output.
        reestimated: norms whose running variance was taken with dropout off.
        noisy: nodes that depend on some dropout.
        twins: the modules that were called, and what they are without values.
        measured: node → mean and variance per channel that a trained norm behind it holds.
        shifts: Δ and the noise shares at each norm node, filled in on the way.
        at_dropout: what each dropout drops.
        order: the graph's nodes, in the order of the data.
        fed: at each norm node, (S,) Δ on the channels that a dropout's noise reaches, and its share of the
            noise there.
        fallbacks: operation → number of nodes at which its moments are about right.
        noise_at: each dropout's noise at each norm node.
        results: what has been worked out so far, by node.
        over: what a draw of the masks that were met is shared over (`State.mask`), by the dropout's row.
        filters: node → what it is a filter of (`filters.Filter`), of calls that move positions about.
        turning: norms whose weights turn some channels about.
        multiples: sum of a tensor's copies → how many times that tensor it is in test mode (`copies`).
        unknown: node → why its noise is not known, from all on the way to it.
        approximate: node → the operations on the way to it whose moments are about right.
    """

    dropouts: tuple[DropoutSite, ...]
    norms: Mapping[fx.Node, NormSite]
    real: bool
    trained: bool
    training: Training | Trainings | None = None
    singles: tuple[Ledger, ...] = ()
    silent: frozenset[fx.Node] = frozenset()
    reestimated: frozenset[fx.Node] = frozenset()
    noisy: frozenset[fx.Node] = frozenset()
    twins: dict[nn.Module, nn.Module] = field(default_factory=dict)
    measured: Mapping[fx.Node, tuple[Array, Array]] = field(default_factory=dict)
    weight_layers: frozenset[fx.Node] = frozenset()
    layers_after: Mapping[fx.Node, int] = field(default_factory=dict)
    shifts: dict[fx.Node, tuple[float, Array]] = field(default_factory=dict)
    fed: dict[fx.Node, tuple[Array, Array]] = field(default_factory=dict)
    fallbacks: dict[str, int] = field(default_factory=dict)
    at_dropout: dict[fx.Node, State] = field(default_factory=dict)
    order: Mapping[fx.Node, int] = field(default_factory=dict)
    noise_at: dict[fx.Node, Array] = field(default_factory=dict)
    results: Mapping[fx.Node, Any] = field(default_factory=dict)
    over: dict[int, str] = field(default_factory=dict)
    filters: dict[fx.Node, Any] = field(default_factory=dict)
    turning: set[fx.Node] = field(default_factory=set)
    multiples: dict[fx.Node, tuple[float, fx.Node]] = field(default_factory=dict)
    unknown: dict[fx.Node, frozenset[str]] = field(default_factory=dict)
    approximate: dict[fx.Node, frozenset[str]] = field(default_factory=dict)

    @property
    def first(self) -> Ledger:
        """Itself, or what is known of the first of several trainings."""
        return self.singles[0] if self.singles else self

    @cached_property
    def sites(self) -> Mapping[fx.Node, int]:
        """The row of each node that is a dropout as a whole."""
        return {site.node: row for row, site in enumerate(self.dropouts) if not site.inside}

    @cached_property
    def shifting(self) -> bool:
        """Whether some norm remembers the training variance."""
        return any(site.spec.shifts for site in self.norms.values())

    @cached_property
    def batch_wide(self) -> list[int]:
        """The dropouts whose mask whole batches share."""
        return [row for row, site in enumerate(self.dropouts) if site.spec.noise.mask.over == "batch"]

    @cached_property
    def keeping_moments(self) -> list[int]:
        """The dropouts that keep mean and variance: alpha dropout."""
        return [row for row, site in enumerate(self.dropouts) if site.spec.noise.mask.keeps_moments]

    @cached_property
    def tied(self) -> npt.NDArray[np.bool_]:
        """(S,) whether a dropout's mask is shared by all positions of a channel; False until it is met."""
        return np.zeros(len(self.dropouts), dtype=bool)

    def meet(self, row: int, over: str) -> None:
        """Say what a draw of a dropout's mask is shared over."""
        self.over[row], self.tied[row] = over, over != "element"

    def sources(self, node: fx.Node) -> Sequence[tuple[int, DropoutSite]]:
        """The dropouts at `node` with their rows."""
        return self._rows.get(node, ())

    @cached_property
    def _rows(self) -> Mapping[fx.Node, Sequence[tuple[int, DropoutSite]]]:
        found: dict[fx.Node, list[tuple[int, DropoutSite]]] = {}
        for row, site in enumerate(self.dropouts):
            found.setdefault(site.node, []).append((row, site))
        return found

    def rough(self, node: fx.Node, name: str) -> None:
        """Say that what is known of a node is about right."""
        self.fallbacks[name] = self.fallbacks.get(name, 0) + 1
        self.approximate[node] = self.approximate.get(node, frozenset()) | {name}


@dataclass(frozen=True)
class Call:
    """One node of the graph with its arguments worked out.

    Attributes:
        node: the node.
        name: operation name as in the table.
        args, kwargs: a `State` for each tensor, a `Parameter` for each weight, other values as they are.
        module: the module of a `call_module` node.
        value: what the node returned, `TensorInfo` for a tensor.
        ledger: what all calls share.
    """

    node: fx.Node
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    module: nn.Module | None
    value: Any
    ledger: Ledger

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result; of the first tensor where there are several, () where it is unknown."""
        return first_shape(self.value) or ()

    @property
    def x(self) -> State:
        """The first argument as a state."""
        return self.state(self.args[0] if self.args else next(iter(self.kwargs.values())))

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the first tensor argument, () where it is unknown."""
        for node in self.node.all_input_nodes:
            shape = first_shape(node.meta.get("value"))
            if shape is not None:
                return shape
        return ()

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by name."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def of(self, ledger: Ledger) -> Call:
        """The same call for one of several trainings."""
        if ledger is self.ledger:
            return self
        args, kwargs = fx.map_arg((self.node.args, dict(self.node.kwargs)), ledger.results.get)
        return replace(self, args=args, kwargs=kwargs, ledger=ledger)

    def rough(self) -> None:
        """Say that the result is about right."""
        self.ledger.rough(self.node, self.name)

    def state(self, value: Any) -> State:
        """Any argument as a state: a number or a parameter is a constant."""
        if isinstance(value, State):
            return value
        rows = len(self.ledger.dropouts)
        if isinstance(value, Parameter):
            return parameter_state(value, rows)
        if isinstance(value, (tuple, list, dict)):
            return next(_states(value), constant(0.0, rows))
        return constant(float(value) if isinstance(value, (int, float)) else 0.0, rows)

    def states(self) -> list[State]:
        """All states among the arguments, nested ones included."""
        return [s for value in (*self.args, *self.kwargs.values()) for s in _states(value)]


def _states(value: Any) -> Iterator[State]:
    if isinstance(value, State):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _states(item)
    elif isinstance(value, dict):
        yield from _states(list(value.values()))


def first_shape(value: Any) -> tuple[int, ...] | None:
    """Shape of the first tensor in a nested value."""
    if isinstance(value, TensorInfo):
        return tuple(int(size) for size in value.shape)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return next((shape for item in value if (shape := first_shape(item)) is not None), None)
    return None


def parameter_state(parameter: Parameter, rows: int) -> State:
    """A parameter as a constant: its values' mean and spread; on meta, zeros (biases, position tables).

    A mask of truth values counts as 0 and 1.

    Raises:
        NoRule: its values are gone: it is a row that `torch.func.vmap` made while it ran.
    """
    tensor = parameter.tensor
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise NoRule
    if not parameter.known or not tensor.numel() or tensor.is_complex():
        return constant(0.0, rows)
    values = tensor.detach().double()
    long = [size for size in tensor.shape if size > 1]
    if len(long) != 1:  # a table over positions: a pattern, with the channels' means spread about
        axis = 1 if tensor.dim() == 4 else max(tensor.dim() - 1, 0)
        table = values.movedim(axis, 0).flatten(1) if tensor.dim() > 1 else values.reshape(1, 1)
        return fresh(
            rows,
            axis=axis,
            channels=1,
            mean=float(values.mean()),
            var=float(table.var(1, correction=0).mean()),
            dev=float(table.mean(1).std(correction=0)),
        )
    flat = values.flatten().numpy()
    axis = next(i for i, size in enumerate(tensor.shape) if size > 1) - tensor.dim()
    base = constant(0.0, rows, channels=len(flat))
    wide = base.pick(np.zeros(len(flat), dtype=int), np.ones(len(flat)))
    return replace(wide, axis=axis, t_mean=flat, mean=flat[None])


def function(*names: str) -> Callable[[Transfer], Transfer]:
    """Register a transfer function for functions and tensor methods of these names."""

    def register(transfer: Transfer) -> Transfer:
        _FUNCTIONS.update(dict.fromkeys(names, transfer))
        return transfer

    return register


def module(*names: str) -> Callable[[Transfer], Transfer]:
    """Register a transfer function for module classes of these names and their subclasses."""

    def register(transfer: Transfer) -> Transfer:
        _MODULES.update(dict.fromkeys(names, transfer))
        return transfer

    return register


def several(transfer: Transfer) -> Transfer:
    """Register a transfer function that works out several trainings abreast (`prediction.abreast`)."""
    _SEVERAL.add(transfer)
    return transfer


def takes_several(transfer: Transfer | None) -> bool:
    """Whether a transfer function works out several trainings abreast."""
    return transfer in _SEVERAL


def function_name(target: Any) -> str:
    """`relu` for `F.relu`, `torch.relu_`, the method `relu_` and the operator overload
    `aten.relu.default`.
    """
    name = target if isinstance(target, str) else str(getattr(target, "__name__", target))
    return name.split(".")[0].strip("_")


def find_function(name: str) -> Transfer | None:
    """The transfer function of a function or method."""
    return _FUNCTIONS.get(name)


def transfer_of(call: Call) -> Transfer | None:
    """The transfer function of a call, None where the table has none."""
    return find_module(type(call.module)) if call.module is not None else find_function(call.name)


def find_module(kind: type[nn.Module]) -> Transfer | None:
    """The transfer function of a module class, by its nearest registered base."""
    return next((_MODULES[base.__name__] for base in kind.__mro__ if base.__name__ in _MODULES), None)
