"""What a node of the graph is, from the table of operations, its module, its shapes and its arguments."""

from __future__ import annotations

import math
from typing import Any

from torch import fx, nn

from dropout_lint.graph.operations import Kind, name_of, named
from dropout_lint.layers import WEIGHT_FUNCTIONS, is_weight_layer
from dropout_lint.trace.traced import TensorInfo, is_held, module_of, shape_of

ACTIVATION_MODULES = "torch.nn.modules.activation"
PROBABILITY_MODULES = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.AdaptiveLogSoftmaxWithLoss)
POOL_MODULES = (
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._LPPoolNd,
)
RESIZING_MODULES = (nn.modules.conv._ConvNd, nn.Upsample, *POOL_MODULES)
# What the name of an operation says besides what it is made into here.
BY_NAME = Kind.ADD | Kind.CONCAT | Kind.MULTIPLY | Kind.SUBTRACT | Kind.LAYOUT | Kind.RESIZE


def is_parameter(node: Any) -> bool:
    """Whether `node` is a parameter or buffer, or a reshaping of one."""
    while isinstance(node, fx.Node) and node.op in ("call_method", "call_function") and node.all_input_nodes:
        if len(node.all_input_nodes) > 1:
            return False
        node = node.all_input_nodes[0]
    return is_held(node)


def is_global_pool(node: fx.Node, name: str, module: nn.Module | None) -> bool:
    """Whether `node` pools over all of its input's positions (image, sequence or points)."""
    if module is not None and not isinstance(module, POOL_MODULES):
        return False
    if module is None and Kind.REDUCTION not in named(name):
        return False
    sources = node.all_input_nodes
    before = shape_of(sources[0]) if sources else None
    after = first_shape(node.meta.get("value"))
    if isinstance(module, POOL_MODULES[:2]):
        size = module.output_size
        sizes = size if isinstance(size, (tuple, list)) else (size,)
        return all(side == 1 for side in sizes)
    if before is None or after is None or len(before) < 3 or (name == "sum" and len(after) == len(before)):
        return False
    if len(after) >= len(before):
        return math.prod(after[2:]) == 1 and math.prod(before[2:]) > 1 and after[:2] == before[:2]
    # a reduction that drops dimensions: what is left is (batch, channels)
    return len(after) == 2 and after[0] == before[0] and after[1] in before[1:]


def first_shape(value: Any) -> tuple[int, ...] | None:
    """Shape of the tensor, or of the first tensor in a tuple."""
    if isinstance(value, TensorInfo):
        return value.shape
    if isinstance(value, (tuple, list)) and value:
        return first_shape(value[0])
    return None


def kind_of(model: nn.Module, node: fx.Node, *, shifting: bool, norm: bool, dropout: bool) -> Kind:
    """What `node` is, from its module or function and from what the trace says about it."""
    kind = Kind.DROPOUT if dropout else Kind.PLAIN
    if norm:
        return kind | (Kind.SHIFTING_NORM if shifting else Kind.OTHER_NORM)
    if node.op == "call_module":
        return kind | module_kind(node, module_of(model, node))
    name = name_of(node)
    said = named(name)
    kind |= said & BY_NAME
    if node.op == "call_function" and node.target in WEIGHT_FUNCTIONS:
        return kind | Kind.WEIGHT
    if Kind.MATMUL in said:
        weighs = any(is_parameter(argument) for argument in node.all_input_nodes)
        return kind | (Kind.WEIGHT if weighs else Kind.PLAIN)
    if said & (Kind.ACTIVATION | Kind.PROBABILITY):
        return kind | (said & (Kind.ACTIVATION | Kind.PROBABILITY))
    if is_global_pool(node, name, None):
        kind |= Kind.POOL
    elif Kind.STEADY_NORM in said:
        kind |= Kind.OTHER_NORM
    return kind


def module_kind(node: fx.Node, module: nn.Module | None) -> Kind:
    """What a leaf module is."""
    if module is None or isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return Kind.PLAIN
    extent = Kind.RESIZE if isinstance(module, RESIZING_MODULES) else Kind.PLAIN
    for matches, kind in (
        (is_weight_layer(module), Kind.WEIGHT),
        (isinstance(module, PROBABILITY_MODULES), Kind.PROBABILITY),
        (isinstance(module, nn.Sigmoid), Kind.ACTIVATION | Kind.PROBABILITY),
        (any(base.__module__ == ACTIVATION_MODULES for base in type(module).__mro__), Kind.ACTIVATION),
        (is_global_pool(node, "", module), Kind.POOL),
        (any(parameter.dim() >= 2 for parameter in module.parameters()), Kind.WEIGHT),
    ):
        if matches:
            return kind | extent
    return extent
