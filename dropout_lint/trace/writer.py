"""Writing the graph: nodes for calls, and arguments that are nodes where they are tensors or sizes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from dropout_lint.inputs.values import is_named_tuple
from dropout_lint.trace.bindings import Bindings
from dropout_lint.trace.frames import location_of, user_frame
from dropout_lint.trace.materials import Materials
from dropout_lint.trace.origins import Origins, made_from
from dropout_lint.trace.sizes import Comparison, SizeInt
from dropout_lint.trace.values import describe, tensors_in
from dropout_lint.trace.witness import Witness

_OPERATORS = {
    f"__{name}__": getattr(operator, f"{name}_" if name in ("and", "or") else name)
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
        *("iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow"),
        *("and", "or", "xor", "lshift", "rshift", "iand", "ior", "ixor", "neg", "pos", "invert"),
        *("lt", "le", "gt", "ge", "eq", "ne", "getitem", "setitem"),
    )
}
_REFLECTED = {
    f"__r{name}__": _OPERATORS[f"__{name}__"]
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
}
# some are Python functions under other names (`Tensor.__pow__` calls itself `pow`): known by identity
_NAMES = {
    getattr(torch.Tensor, name): name for name in (*_OPERATORS, *_REFLECTED) if hasattr(torch.Tensor, name)
}
# what fx writes as it is
_PASSIVE = (
    *(int, float, complex, bool, str, bytes, range, type(None), type(Ellipsis)),
    *(torch.dtype, torch.layout, torch.memory_format),
)


class Writer:
    """Writes nodes into one fx graph.

    Attributes:
        graph: the graph so far.
        bindings: the node that every living tensor comes from.
        layer: name and class of the layer that is said in torch's words now, None for all others.
        stack: qualified names of the modules whose forward is running, the innermost last.
        constants: attribute name → tensor or object that the graph needs beside the model's own.
        notes: what could not be followed exactly.
        exact: whether the graph computes what the model computes.
        reads_values: whether the model read values of tensors, which may decide what it does.
        comparisons: the comparisons of sizes that it made.
        lost: whether a tensor appeared whose making was not seen.
        device_source: the first tensor input; the graph asks it for its device.
        origins: what tensors depend on below the level of functions, where that is tracked.
    """

    def __init__(self, materials: Materials, names: Mapping[int, str], witness: Witness) -> None:
        self.graph = fx.Graph()
        self.bindings = Bindings(self.graph, witness)
        self.layer: tuple[str, str] | None = None
        self.stack = [""]
        self.constants: dict[str, Any] = {}
        self.notes: list[str] = []
        self.exact = True
        self.reads_values = False
        self.comparisons: list[Comparison] = []
        self.lost = False
        self.device_source: fx.Node | None = None
        self.origins: Origins | None = None
        self._materials = materials
        self._names = names
        self._constant_names: dict[int, tuple[Any, str]] = {}

    def function(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> fx.Node:
        """A node for a call of `func`, operators and methods under the names that fx gives them."""
        node_args, node_kwargs = self.argument(args), self.argument(kwargs)
        if name not in _OPERATORS:
            name = _NAMES.get(func, name)
        if name in _REFLECTED and len(args) == 2:
            return self.graph.call_function(_REFLECTED[name], (node_args[1], node_args[0]))
        if name in _OPERATORS:
            return self.graph.call_function(_OPERATORS[name], node_args, node_kwargs)
        if getattr(torch.Tensor, name, None) is func:
            return self.graph.call_method(name, node_args, node_kwargs)
        return self.graph.call_function(func, node_args, node_kwargs)

    def annotate(self, node: fx.Node, value: Any, *, column: bool = False) -> None:
        """Say on `node` what it returned, which module's forward made it, and on which line."""
        node.meta["value"] = describe(value)
        node.meta["owner"] = self.stack[-1]
        if self.layer is not None:  # no line of the user's calls it
            node.meta |= {"layer": self.layer, "call": None}
            return
        node.meta["call"] = location_of(user_frame(2), column=column)

    def argument(self, value: Any) -> Any:  # noqa: PLR0911 - one return for each type
        """`value` as an argument of a node: tensors and sizes become the nodes that they come from."""
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, SizeInt):
            return value.node(self.graph) if value.belongs_to(self.graph) else int(value)
        if isinstance(value, np.generic):
            return value.item()  # a graph's code knows Python's numbers alone
        if isinstance(value, _PASSIVE):
            return value
        if isinstance(value, torch.device):
            if value.type == "cpu" and self.device_source is not None:
                return self._device_node()
            return value
        if isinstance(value, tuple):
            items = [self.argument(item) for item in value]
            if is_named_tuple(value):
                return type(value)(*items)
            if not hasattr(value, "_fields"):
                return tuple(items)
            return self._made(value, tuple(items), {})  # its own constructor (PackedSequence)
        if isinstance(value, list):
            return [self.argument(item) for item in value]
        if isinstance(value, slice):
            return slice(*(self.argument(part) for part in (value.start, value.stop, value.step)))
        return self._structure(value)

    def _structure(self, value: Any) -> Any:
        """Dicts, dataclasses and model outputs are rebuilt in the graph; any other object is a constant."""
        if isinstance(value, dict):
            entries = {key: self.argument(item) for key, item in value.items()}
            if type(value) is dict:
                return entries
            return self._made(value, (), entries)
        fields = getattr(type(value), "__dataclass_fields__", None)
        if fields is not None:
            items = {
                name: self.argument(getattr(value, name)) for name, field in fields.items() if field.init
            }
            return self._made(value, (), items)
        if tensors_in(getattr(value, "__dict__", None)):
            self.exact = False
            self.notes.append(f"tensors inside a {type(value).__name__} are not followed through the output")
        return self.graph.get_attr(self._constant(value))

    def _made(self, value: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        node = self.graph.call_function(type(value), args, kwargs)
        self.annotate(node, value)
        return node

    def _device_node(self) -> fx.Node:
        node = self.graph.call_function(getattr, (self.device_source, "device"))
        node.meta.update(value=None, owner=self.stack[-1], call=None)
        return node

    def _tensor(self, tensor: torch.Tensor) -> fx.Node:
        node = self.bindings.lookup(tensor)
        if node is not None:
            return node
        with torch._C.DisableTorchFunction():
            twin = tensor if self._materials.fits(tensor) else self._materials.twin(tensor)
            node = self.bindings.lookup(twin)
            if node is None:
                node = self._from_nowhere(tensor, twin)
        return node

    def _from_nowhere(self, tensor: torch.Tensor, twin: torch.Tensor) -> fx.Node:
        """A node for a tensor that no recorded call returned: a parameter, a constant, or one whose making
        could not be followed; its origins are known where they were tracked."""
        name = self._names.get(id(twin))
        origins = self.origins.of(tensor) if self.origins is not None else ()
        if name is None and origins:
            self.exact = False
            node = self.graph.call_function(made_from, origins)
        else:
            if name is None:
                name = self._constant(tensor)
                if not self._materials.has_values and self._materials.fits(tensor):
                    self.exact, self.lost = False, True
            node = self.graph.get_attr(name)
        self.annotate(node, twin)
        self.bindings.bind(twin, node)
        return node

    def _constant(self, value: Any) -> str:
        known = self._constant_names.get(id(value))
        if known is None:
            known = (value, f"_constant{len(self._constant_names)}")
            self._constant_names[id(value)] = known
            self.constants[known[1]] = value
        return known[1]
