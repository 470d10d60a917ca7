"""The graph as the fixer walks it: order, ancestors, and what each node is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import fx

from dropout_lint.layers import WEIGHT_FUNCTIONS, is_weight_layer
from dropout_lint.trace.traced import DropoutSite, NormSite, TensorInfo, Trace, module_of, shape_of

ADDS = frozenset({"add", "iadd", "add_", "__add__", "__iadd__", "__radd__"})
CONCATS = frozenset({"cat", "concat", "concatenate", "hstack", "vstack", "dstack"})
GATES = frozenset({"mul", "imul", "mul_", "multiply", "__mul__", "__imul__", "__rmul__"})
LAYOUT = frozenset(
    [
        "transpose",
        "permute",
        "reshape",
        "view",
        "flatten",
        "squeeze",
        "unsqueeze",
        "contiguous",
        "swapaxes",
        "movedim",
        "unflatten",
        "t",
    ]
)
POOLS = frozenset({"mean", "max", "amax", "sum", "std", "var", "logsumexp", "nanmean"})


def name_of(node: fx.Node) -> str:
    """Bare name of what a node calls: `add`, `relu`, or the class name of a module is left to the caller."""
    if node.op == "call_method":
        return str(node.target)
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", node.target))
    return ""


def numel_of(node: fx.Node) -> int:
    """Number of elements of the tensor that a node returned, 0 where that is not known."""
    shape = shape_of(node)
    return 0 if shape is None else math.prod(shape)


class Flow:
    """Order and ancestry of the nodes of one trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.model = trace.model
        self.nodes: tuple[fx.Node, ...] = tuple(trace.graph.nodes)
        self.index = {node: position for position, node in enumerate(self.nodes)}
        self.dropouts: dict[fx.Node, DropoutSite] = {
            site.node: site for site in trace.dropouts if not site.inside
        }
        self.norms: dict[fx.Node, NormSite] = {site.node: site for site in trace.norms}
        self.masks: dict[fx.Node, int] = {}
        for position, node in enumerate(self.nodes):
            mask = 1 << position
            for parent in node.all_input_nodes:
                mask |= self.masks[parent]
            self.masks[node] = mask
        self.remembered: dict[fx.Node, Any] = {}
        self.joins: tuple[fx.Node, ...] = tuple(node for node in self.nodes if len(self.sides(node)) > 1)
        self.weights = tuple(node for node in self.nodes if self.is_weight(node))
        self.pools = tuple(node for node in self.nodes if self.is_pool(node))
        self.shifting = tuple(node for node in self.nodes if self.is_norm(node))
        self.gates = tuple(node for node in self.nodes if name_of(node) in GATES)
        self.weight_mask = sum(1 << self.index[node] for node in self.weights)
        self.activation_mask = ~sum(1 << self.index[node] for node in self.nodes if node.op == "get_attr")

    # what a node is

    def is_weight(self, node: fx.Node) -> bool:
        """Whether a node is a linear map with trained weights."""
        module = module_of(self.model, node)
        if module is not None:
            return is_weight_layer(module)
        try:
            return node.op == "call_function" and node.target in WEIGHT_FUNCTIONS
        except TypeError:
            return False

    def is_norm(self, node: fx.Node) -> bool:
        """Whether a node is a norm that remembers the training variance and still learns it."""
        site = self.norms.get(node)
        return site is not None and site.spec.shifts

    def is_layout(self, node: fx.Node) -> bool:
        """Whether a node only rearranges its input."""
        module = module_of(self.model, node)
        if module is not None:
            return type(module).__name__ in ("Flatten", "Unflatten", "Identity")
        return name_of(node) in LAYOUT

    def is_pool(self, node: fx.Node) -> bool:
        """Whether a node pools all positions of a channel into one number."""
        module = module_of(self.model, node)
        name = type(module).__name__ if module is not None else name_of(node)
        if name not in POOLS and "pool" not in name.lower():
            return False
        source = self.source(node)
        if source is None:
            return False
        before = shape_of(source)
        after = shape_of(node) or first_shape(node)
        if before is None or after is None or len(before) < 3:
            return False
        return math.prod(after) <= before[0] * max(before[1], before[-1]) and math.prod(before) > math.prod(
            after
        )

    # the way of the data

    def tensors(self, node: fx.Node) -> list[fx.Node]:
        """Inputs of a node that are tensors made by the model (no parameters, no shapes)."""
        return [
            parent
            for parent in node.all_input_nodes
            if parent.op != "get_attr" and (shape_of(parent) is not None or first_shape(parent) is not None)
        ]

    def source(self, node: fx.Node) -> fx.Node | None:
        """The data input of a node: its first tensor input."""
        tensors = self.tensors(node)
        return tensors[0] if tensors else None

    def sides(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The inputs that an add or a concat joins, () for other nodes."""
        if name_of(node) not in ADDS | CONCATS:
            return ()
        tensors = self.tensors(node)
        if name_of(node) in ADDS and len(tensors) > 1:
            ranks = {len(shape_of(item) or ()) for item in tensors}
            if len(ranks) > 1:
                return ()
        return tuple(tensors)

    def reaches(self, upper: fx.Node, lower: fx.Node) -> bool:
        """Whether data flows from `upper` to `lower` (a node reaches itself)."""
        return bool(self.masks[lower] >> self.index[upper] & 1)

    def below(self, node: fx.Node, among: Iterable[fx.Node]) -> list[fx.Node]:
        """The nodes of `among` that `node` reaches, in their order, without itself."""
        return [other for other in among if other is not node and self.reaches(node, other)]

    def weights_in(self, mask: int) -> int:
        """Number of weight layers in a mask."""
        return (self.weight_mask & mask).bit_count()


def first_shape(node: fx.Node) -> tuple[int, ...] | None:
    """Shape of the first tensor of a tuple that a node returned (`max` with a dimension, LSTM)."""
    value = node.meta.get("value")
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], TensorInfo):
        return value[0].shape
    return None
