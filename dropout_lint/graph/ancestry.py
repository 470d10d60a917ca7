"""Who comes before whom in the whole graph, parameters and sizes included; what a node is, `Flow` says.

Ancestors are bit sets, so that what two sides of a join share, or have each for itself, is one operation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import fx

from dropout_lint.graph.flow import Flow
from dropout_lint.graph.kinds import first_shape
from dropout_lint.graph.operations import Kind
from dropout_lint.trace.traced import DropoutSite, Trace, shape_of


def numel_of(node: fx.Node) -> int:
    """Number of elements of the tensor that a node returned, 0 where that is not known."""
    shape = shape_of(node)
    return 0 if shape is None else math.prod(shape)


def returns_tensor(node: fx.Node) -> bool:
    """Whether a node returned a tensor, or a tuple that begins with one (`max` with a dimension, LSTM)."""
    return first_shape(node.meta.get("value")) is not None


class Ancestry:
    """Order and ancestors of the nodes of one trace.

    Attributes:
        flow: the data flow of the same trace, which knows what each node is.
        nodes: all nodes in their order.
        index: node → its place in that order.
        masks: node → bit set of the nodes that it is computed from, itself included.
        dropouts: the dropouts that are nodes of their own.
        weighing: those of them that drop an attention's weights, which have no other place.
        placed: all others.
        joins, weights, pools, shifting, gates, resizes: the nodes of a kind, in their order.
        memory: what was worked out about a join, or about all of them, by whoever asks for it again.
        wrappers: qualified names of the modules whose `forward` does nothing but drop.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.model = trace.model
        self.flow = Flow(trace)
        self.nodes: tuple[fx.Node, ...] = tuple(trace.graph.nodes)
        self.index = {node: position for position, node in enumerate(self.nodes)}
        self.dropouts: dict[fx.Node, DropoutSite] = {
            site.node: site for site in trace.dropouts if not site.inside
        }
        numbers = self.flow.index  # a dropout of weights is no data
        self.weighing = frozenset(
            node for node in self.dropouts if node in numbers and self.flow.weighs_positions(numbers[node])
        )
        self.placed = {node: site for node, site in self.dropouts.items() if node not in self.weighing}
        self.norms = {site.node: site for site in trace.norms}
        self.masks: dict[fx.Node, int] = {}
        for position, node in enumerate(self.nodes):
            mask = 1 << position
            for parent in node.all_input_nodes:
                mask |= self.masks[parent]
            self.masks[node] = mask
        self._sides = {node: self._joined(node) for node in self.nodes}
        self.joins = tuple(node for node in self.nodes if len(self.sides(node)) > 1)
        self.weights = self._of_kind(Kind.WEIGHT)
        self.pools = self._of_kind(Kind.POOL)
        self.shifting = self._of_kind(Kind.SHIFTING_NORM)
        self.gates = self._of_kind(Kind.MULTIPLY)
        self.resizes = self._of_kind(Kind.RESIZE)
        self.weight_mask = sum(1 << self.index[node] for node in self.weights)
        self.activation_mask = ~sum(1 << self.index[node] for node in self.nodes if node.op == "get_attr")
        self.memory: dict[object, object] = {}
        self.wrappers = self._wrappers()

    def _wrappers(self) -> frozenset[str]:
        """Modules whose `forward` does nothing but drop: they are dropouts to whoever calls them."""
        inside: dict[str, bool] = {}
        for node in self.nodes:
            owner = str(node.meta.get("owner") or "")
            if owner and node.op in ("call_function", "call_method", "call_module"):
                inside[owner] = inside.get(owner, True) and node in self.dropouts
        return frozenset(owner for owner, only in inside.items() if only)

    # what a node is

    def kind(self, node: fx.Node) -> Kind:
        """What a node is; plain where no data flows through it."""
        number = self.flow.index.get(node)
        return Kind.PLAIN if number is None else self.flow.kinds[number]

    def _of_kind(self, kind: Kind) -> tuple[fx.Node, ...]:
        return tuple(node for node in self.nodes if self.kind(node) & kind)

    def is_weight(self, node: fx.Node) -> bool:
        """Whether a node is a linear map with trained weights."""
        return Kind.WEIGHT in self.kind(node)

    def is_norm(self, node: fx.Node) -> bool:
        """Whether a node is a norm that remembers the training variance and still learns it."""
        return Kind.SHIFTING_NORM in self.kind(node)

    def is_pool(self, node: fx.Node) -> bool:
        """Whether a node pools all positions of a channel into one number."""
        return Kind.POOL in self.kind(node)

    def is_concat(self, node: fx.Node) -> bool:
        """Whether a node puts tensors side by side."""
        return Kind.CONCAT in self.kind(node)

    def is_gate(self, node: fx.Node) -> bool:
        """Whether a node multiplies."""
        return Kind.MULTIPLY in self.kind(node)

    # the way of the data

    def tensors(self, node: fx.Node) -> list[fx.Node]:
        """Inputs of a node that are tensors made by the model (no parameters, no shapes)."""
        return [
            parent for parent in node.all_input_nodes if parent.op != "get_attr" and returns_tensor(parent)
        ]

    def source(self, node: fx.Node) -> fx.Node | None:
        """The data input of a node: its first tensor input."""
        tensors = self.tensors(node)
        return tensors[0] if tensors else None

    def sides(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The inputs that an add, a subtraction or a concat joins, () for other nodes."""
        return self._sides[node]

    def _joined(self, node: fx.Node) -> tuple[fx.Node, ...]:
        kind = self.kind(node)
        if not kind & (Kind.ADD | Kind.CONCAT):
            return ()
        tensors = self.tensors(node)
        if Kind.ADD in kind and len({len(shape_of(item) or ()) for item in tensors}) > 1:
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
