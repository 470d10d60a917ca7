"""One transfer function for each family of operations; importing this package fills the table."""

from dropout_lint.prediction.ops import (
    activation,
    attention,
    constant,
    dropout,
    linear,
    merge,
    norm,
    pairs,
    pooling,
    resampling,
    shape,
    softmax,
)
from dropout_lint.prediction.ops.base import (
    Call,
    Ledger,
    Parameter,
    find_function,
    find_module,
    function,
    function_name,
    module,
)

__all__ = [
    "Call",
    "Ledger",
    "Parameter",
    "activation",
    "attention",
    "constant",
    "dropout",
    "find_function",
    "find_module",
    "function",
    "function_name",
    "linear",
    "merge",
    "module",
    "norm",
    "pairs",
    "pooling",
    "resampling",
    "shape",
    "softmax",
]
