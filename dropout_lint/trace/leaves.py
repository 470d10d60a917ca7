"""Which modules are one node of the graph, and which of them keep the shape of their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dropout_lint.layers import Catalogue

# torch.nn containers whose forward calls other modules: always entered.
_CONTAINERS: tuple[type[nn.Module], ...] = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.AdaptiveLogSoftmaxWithLoss,
)

# Activations that return a new tensor of their input's shape.
SHAPE_KEEPING_MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Softplus,
    nn.Softmax,
    nn.LogSoftmax,
)

SHAPE_KEEPING_FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    {
        F.relu,
        torch.relu,
        torch.Tensor.relu,
        F.relu6,
        F.leaky_relu,
        F.elu,
        F.celu,
        F.selu,
        F.gelu,
        F.silu,
        F.mish,
        F.hardswish,
        F.hardsigmoid,
        F.hardtanh,
        F.softplus,
        F.sigmoid,
        torch.sigmoid,
        torch.Tensor.sigmoid,
        F.tanh,
        torch.tanh,
        torch.Tensor.tanh,
        F.batch_norm,
        F.instance_norm,
        F.layer_norm,
        F.group_norm,
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        F.alpha_dropout,
        F.feature_alpha_dropout,
    }
)


class Leaves:
    """Decides, by `isinstance`, which modules of one model are a single `call_module` node."""

    def __init__(self, model: nn.Module, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.dropouts: set[int] = set()
        self.norms: set[int] = set()
        holders: set[int] = set()
        modules = list(model.modules())
        for module in modules:
            if catalogue.dropout(module) is not None:
                self.dropouts.add(id(module))
            elif catalogue.norm(module) is not None:
                self.norms.add(id(module))
        marked = self.dropouts | self.norms
        # children come after their parents in modules(), so one walk backwards sees every holder
        for module in reversed(modules):
            if any(id(child) in marked or id(child) in holders for child in module.children()):
                holders.add(id(module))
        self._holders = holders

    def is_leaf(self, module: nn.Module) -> bool:
        """Whether `module` is one node: a dropout, a norm, or a torch.nn layer that holds neither."""
        if id(module) in self.dropouts or id(module) in self.norms:
            return True
        if isinstance(module, torch.jit.ScriptModule):
            return True
        if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
            return is_torchs(type(module).forward)
        if id(module) in self._holders or isinstance(module, _CONTAINERS):
            return False
        return is_torchs(type(module).forward)

    def keeps_shape(self, module: nn.Module) -> bool:
        """Whether `module` returns one new tensor with its first input's shape and dtype."""
        if id(module) in self.dropouts:
            return True
        if id(module) in self.norms:
            return not isinstance(module, nn.modules.lazy.LazyModuleMixin)
        return isinstance(module, SHAPE_KEEPING_MODULES)


def is_torchs(function: Callable[..., Any]) -> bool:
    module = getattr(function, "__module__", None) or ""
    return module.startswith(("torch.nn.", "torch.ao.nn.")) and not module.startswith("torch.nn.parallel")


def recurrent_output(module: nn.RNNBase, source: torch.Tensor) -> Any:
    """What a recurrent layer returns, by shape alone: on meta tensors its steps would be unrolled."""
    directions = 2 if module.bidirectional else 1
    projected = module.proj_size or module.hidden_size
    batch = (
        source.shape[0 if module.batch_first else 1 : 1 if module.batch_first else 2]
        if source.dim() == 3
        else ()
    )
    output = source.new_empty((*source.shape[:-1], directions * projected))
    hidden = source.new_empty((module.num_layers * directions, *batch, projected))
    if module.mode != "LSTM":
        return output, hidden
    return output, (hidden, source.new_empty((module.num_layers * directions, *batch, module.hidden_size)))
