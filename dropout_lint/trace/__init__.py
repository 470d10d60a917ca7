"""Tracing: a model in, one torch.fx graph of what its forward pass does out."""

from dropout_lint.trace.chain import trace
from dropout_lint.trace.traced import (
    DropoutSite,
    NormSite,
    Opaque,
    TensorInfo,
    Trace,
    UnusedDropout,
    module_of,
    shape_of,
    value_of,
)

__all__ = [
    "DropoutSite",
    "NormSite",
    "Opaque",
    "TensorInfo",
    "Trace",
    "UnusedDropout",
    "module_of",
    "shape_of",
    "trace",
    "value_of",
]
