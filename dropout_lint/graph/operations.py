"""The one table of operations: by name, what each does to the data. Free of torch, so that any room may ask.

An operation is one entry in one row. What only the module, the shapes or the arguments can tell (a
global pooling, a matmul with a weight, a gate) is decided by `kinds.py`, which starts from this table.
"""

from __future__ import annotations

from enum import IntFlag, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx


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
    # what a name alone says
    SUBTRACT = auto()
    MATMUL = auto()
    REDUCTION = auto()
    STEADY_NORM = auto()
    LAYOUT = auto()
    RESIZE = auto()
    BLIND = auto()
    CAST = auto()


def _table(*rows: tuple[Kind, str]) -> dict[str, Kind]:
    table: dict[str, Kind] = {}
    for kind, names in rows:
        for name in names.split():
            table[name] = table.get(name, Kind.PLAIN) | kind
    return table


OPERATIONS = _table(
    # where tensors meet
    (Kind.ADD, "add iadd radd addcmul lerp"),
    (Kind.ADD | Kind.SUBTRACT, "sub isub rsub subtract"),
    (Kind.CONCAT, "cat concat concatenate hstack vstack dstack"),
    (Kind.MULTIPLY, "mul imul rmul multiply"),
    (Kind.PLAIN, "stack logaddexp div divide idiv itruediv true_divide truediv rdiv rtruediv"),
    (Kind.PLAIN, "maximum minimum fmax fmin where masked_fill mask_fill masked_scatter"),
    # weights
    (Kind.MATMUL, "matmul rmatmul imatmul mm bmm einsum addmm baddbmm"),
    (Kind.PLAIN, "dot inner mv outer tensordot linear bilinear embedding embedding_bag"),
    (Kind.RESIZE, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (Kind.PLAIN, "scaled_dot_product_attention memory_efficient_attention"),
    # activations
    (Kind.ACTIVATION, "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardsigmoid"),
    (Kind.ACTIVATION, "hardtanh tanh softplus softsign tanhshrink softshrink hardshrink threshold"),
    (Kind.ACTIVATION, "logsigmoid glu clamp clip square"),
    (Kind.ACTIVATION | Kind.PROBABILITY, "sigmoid"),
    (Kind.PROBABILITY, "softmax log_softmax softmin gumbel_softmax"),
    (Kind.PLAIN, "sparsemax abs absolute atan ceil clamp_max clamp_min cos erf exp expm1 floor hard_sigmoid"),
    (Kind.PLAIN, "hard_swish log log1p neg negative pow reciprocal round rsqrt sign sin sqrt swish"),
    # norms without running statistics
    (Kind.STEADY_NORM, "group_norm layer_norm rms_norm local_response_norm normalize instance_norm"),
    (Kind.PLAIN, "batch_norm getattr"),
    # reductions and pooling
    (Kind.REDUCTION, "mean amax max sum logsumexp"),
    (Kind.PLAIN, "nanmean amin min norm vector_norm std std_mean var var_mean topk cumsum diff"),
    (Kind.REDUCTION | Kind.RESIZE, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
    (Kind.REDUCTION | Kind.RESIZE, "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"),
    (Kind.REDUCTION | Kind.RESIZE, "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d"),
    (Kind.REDUCTION | Kind.RESIZE, "lp_pool2d adaptive_max_pool1d_with_indices"),
    (Kind.REDUCTION | Kind.RESIZE, "adaptive_max_pool2d_with_indices"),
    (Kind.RESIZE, "adaptive_max_pool3d_with_indices lp_pool1d lp_pool3d max_pool1d_with_indices"),
    (Kind.RESIZE, "max_pool2d_with_indices max_pool3d_with_indices fractional_max_pool1d"),
    (Kind.RESIZE, "fractional_max_pool2d fractional_max_pool3d fractional_max_pool1d_with_indices"),
    (Kind.RESIZE, "fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices"),
    (Kind.RESIZE, "interpolate upsample upsample_bilinear upsample_bilinear2d upsample_nearest"),
    (Kind.RESIZE, "upsample_nearest2d"),
    (Kind.PLAIN, "grid_sample pixel_shuffle pixel_unshuffle"),
    # layout
    (Kind.LAYOUT, "transpose permute reshape view flatten squeeze unsqueeze contiguous swapaxes movedim"),
    (Kind.LAYOUT, "unflatten t T mT moveaxis swapdims flat ravel rearrange reshape_as view_as"),
    (
        Kind.PLAIN,
        "chunk split split_with_sizes tensor_split unbind gather getitem index_select narrow select",
    ),
    (Kind.PLAIN, "take take_along_dim constant_pad_nd pad fold unfold index_add index_copy index_fill"),
    (Kind.PLAIN, "index_put masked_select scatter scatter_add tril triu fill zero"),
    (Kind.PLAIN, "pack_padded_sequence pad_packed_sequence"),
    # the data as they are
    (Kind.PLAIN, "alias as_tensor broadcast_to channel_shuffle checkpoint clone copy"),
    (Kind.PLAIN, "contiguous_format cpu cuda data detach diagonal dropout_off expand expand_as flip"),
    (Kind.PLAIN, "identity nan_to_num real repeat repeat_interleave requires_grad roll sort tile"),
    (Kind.CAST, "to type type_as float double half bfloat16"),
    (Kind.PLAIN, "wrap mutated"),
    # truth values, indices and constants
    (
        Kind.PLAIN,
        "all and any bitwise_and bitwise_or isin logical_and logical_or or eq ge greater gt le less",
    ),
    (Kind.PLAIN, "lt ne bitwise_not invert logical_not bool argmax argmin empty eye full int isfinite isinf"),
    (Kind.PLAIN, "isnan long nonzero one_hot ones tensor zeros rand randn arange linspace"),
    # values that say nothing about the data that they were made from
    (Kind.BLIND, "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones"),
    (Kind.BLIND, "new_empty new_full new_tensor size dim numel bernoulli_ stride get_device"),
    (Kind.BLIND, "is_floating_point"),
)
MUTATED = "mutated"
"""The tensor after in-place changes: `mutated(tensor, *by)`, as the trace writes it."""
CHANNEL_STACKS = ("hstack",)
"""Concatenations that take no dimension and join channels."""


def name_of(node: fx.Node) -> str:
    """The bare name of the function or method that `node` calls; empty for others."""
    if node.op == "call_method":
        return str(node.target).strip("_") if str(node.target).startswith("__") else str(node.target)
    if node.op == "call_function":
        name = str(getattr(node.target, "__name__", node.target)).rsplit(".", 1)[-1]
        return name.strip("_") if name.startswith("__") else name.lstrip("_")
    return ""


def named(name: str) -> Kind:
    """What the table says of an operation; an in-place one (`add_`) is the one without its underscore."""
    kind = OPERATIONS.get(name)
    return OPERATIONS.get(name.rstrip("_"), Kind.PLAIN) if kind is None else kind


def joins(name: str) -> bool:
    """Whether an operation joins the tensors that it is given."""
    return bool(named(name.strip("_")) & (Kind.ADD | Kind.CONCAT | Kind.MULTIPLY)) or name == "stack"


def is_mutation(node: fx.Node) -> bool:
    """Whether a node is the trace's own `mutated`."""
    return name_of(node) == MUTATED


def concat_dim(node: fx.Node) -> Any:
    """The dimension that a concatenation joins, as it was given."""
    if name_of(node) in CHANNEL_STACKS:
        return 1
    return node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
