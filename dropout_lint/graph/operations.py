"""What a node of the graph is to the survey: weight layer, activation, pooling, add, concat, …"""

from __future__ import annotations

import math
from enum import IntFlag, auto
from typing import Any

from torch import fx, nn

from dropout_lint.layers import WEIGHT_FUNCTIONS, is_weight_layer
from dropout_lint.trace.traced import TensorInfo, module_of, shape_of


class Kind(IntFlag):
    """What a node does; one node may be several things."""

    PLAIN = 0
    WEIGHT = auto()
    ACTIVATION = auto()
    PROBABILITY = auto()
    POOL = auto()
    ADD = auto()
    CONCAT = auto()
    MULTIPLY = auto()
    SHIFTING_NORM = auto()
    OTHER_NORM = auto()
    DROPOUT = auto()


ADDS = {"add", "iadd", "radd", "add_", "sub", "isub", "rsub", "sub_", "addcmul", "addcmul_", "lerp", "lerp_"}
CONCATS = {"cat", "concat", "concatenate", "hstack", "vstack", "dstack"}
MULTIPLIES = {"mul", "imul", "rmul", "mul_", "multiply"}
MATMULS = {"matmul", "rmatmul", "imatmul", "mm", "bmm", "einsum", "addmm", "baddbmm"}
ACTIVATIONS = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "rrelu_", "elu", "elu_", "selu",
    "selu_", "celu", "celu_", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "hardtanh_",
    "sigmoid", "sigmoid_", "tanh", "tanh_", "softplus", "softsign", "tanhshrink", "softshrink", "hardshrink",
    "threshold", "threshold_", "logsigmoid", "glu", "clamp", "clamp_", "clip", "square",
}  # fmt: skip
ACTIVATION_MODULES = "torch.nn.modules.activation"
PROBABILITIES = {"softmax", "log_softmax", "softmin", "gumbel_softmax"}
PROBABILITY_MODULES = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.AdaptiveLogSoftmaxWithLoss)
SIGMOIDS = {"sigmoid", "sigmoid_"}
REDUCTIONS = {"mean", "amax", "max", "sum", "logsumexp", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
              "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
              "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "lp_pool2d",
              "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d_with_indices"}  # fmt: skip
POOL_MODULES = (
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._LPPoolNd,
)
STEADY_NORMS = {"group_norm", "layer_norm", "rms_norm", "local_response_norm", "normalize", "instance_norm"}
# Values that say nothing about the data that they were made from.
BLIND = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros",
         "new_ones", "new_empty", "new_full", "new_tensor", "size", "dim", "numel", "bernoulli_", "stride",
         "get_device", "is_floating_point"}  # fmt: skip


def name_of(node: fx.Node) -> str:
    """The bare name of the function or method that `node` calls; empty for others."""
    if node.op == "call_method":
        return str(node.target).strip("_") if str(node.target).startswith("__") else str(node.target)
    if node.op == "call_function":
        name = str(getattr(node.target, "__name__", node.target)).rsplit(".", 1)[-1]
        return name.strip("_") if name.startswith("__") else name.lstrip("_")
    return ""


def is_parameter(node: Any) -> bool:
    """Whether `node` is a parameter or buffer, or a reshaping of one."""
    while isinstance(node, fx.Node) and node.op in ("call_method", "call_function") and node.all_input_nodes:
        if len(node.all_input_nodes) > 1:
            return False
        node = node.all_input_nodes[0]
    return isinstance(node, fx.Node) and node.op == "get_attr"


def is_global_pool(node: fx.Node, name: str, module: nn.Module | None) -> bool:
    """Whether `node` pools over all of its input's positions (image, sequence or points)."""
    if module is not None and not isinstance(module, POOL_MODULES):
        return False
    if module is None and name not in REDUCTIONS:
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
    kind = Kind.PLAIN
    if dropout:
        kind |= Kind.DROPOUT
    if norm:
        return kind | (Kind.SHIFTING_NORM if shifting else Kind.OTHER_NORM)
    name = name_of(node)
    if node.op == "call_module":
        return kind | module_kind(node, module_of(model, node))
    if node.op == "call_function" and node.target in WEIGHT_FUNCTIONS:
        return kind | Kind.WEIGHT
    if name in MATMULS:
        weighs = any(is_parameter(argument) for argument in node.all_input_nodes)
        return kind | (Kind.WEIGHT if weighs else Kind.PLAIN)
    for names, flag in (
        (ADDS, Kind.ADD),
        (CONCATS, Kind.CONCAT),
        (MULTIPLIES, Kind.MULTIPLY),
        (PROBABILITIES, Kind.PROBABILITY),
    ):
        if name in names:
            return kind | flag
    if name in ACTIVATIONS:
        kind |= Kind.ACTIVATION | (Kind.PROBABILITY if name in SIGMOIDS else Kind.PLAIN)
    elif is_global_pool(node, name, None):
        kind |= Kind.POOL
    elif name in STEADY_NORMS:
        kind |= Kind.OTHER_NORM
    return kind


def module_kind(node: fx.Node, module: nn.Module | None) -> Kind:
    """What a leaf module is."""
    if module is None or isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return Kind.PLAIN
    for matches, kind in (
        (is_weight_layer(module), Kind.WEIGHT),
        (isinstance(module, PROBABILITY_MODULES), Kind.PROBABILITY),
        (isinstance(module, nn.Sigmoid), Kind.ACTIVATION | Kind.PROBABILITY),
        (any(base.__module__ == ACTIVATION_MODULES for base in type(module).__mro__), Kind.ACTIVATION),
        (is_global_pool(node, "", module), Kind.POOL),
        (any(parameter.dim() >= 2 for parameter in module.parameters()), Kind.WEIGHT),
    ):
        if matches:
            return kind
    return Kind.PLAIN
