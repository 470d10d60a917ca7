"""The module that a graph fix hands back: a GraphModule that keeps everything a user has of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.fx.graph_module import _format_import_block, _forward_from_src
from torch.package.importer import sys_importer

from dropout_lint.guard.alone import LoneTracer

# What a module tree consists of, as `nn.Module` keeps it.
TREE = frozenset({"_modules", "_parameters", "_buffers", "_non_persistent_buffers_set", "training"})


class FixedModule(fx.GraphModule):
    """A GraphModule on the whole module tree of a model, not only on the parts that its graph names.

    `fx.GraphModule` drops unused submodules and turns non-persistent buffers into persistent ones when it is
    built, deep-copied or unpickled; that would change the state_dict. This one adopts the tree as it is, so
    keys, order, buffers, hooks on leaves and plain attributes (`config`, `num_classes`) stay.
    """

    @classmethod
    def adopt(cls, root: nn.Module, graph: fx.Graph) -> FixedModule:
        """The module that runs `graph` on the modules, parameters and buffers of `root` (not copied)."""
        self = cls(nn.Module(), fx.Graph())
        self.__class__.__name__ = type(root).__name__
        own = dict(self.__dict__)
        for key, value in root.__dict__.items():
            if (
                key in TREE
                or key.startswith("_load_state_dict")
                or key.startswith("_state_dict")
                or (key not in own and not hasattr(type(self), key))
            ):
                self.__dict__[key] = value
        self.graph = graph
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FixedModule:
        new = _blank(type(self).__name__)
        memo[id(self)] = new
        new.__dict__.update(
            {key: copy.deepcopy(value, memo) for key, value in self.__dict__.items() if key != "_graph"}
        )
        new.graph = copy.deepcopy(self._graph)
        return new

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        state = {key: value for key, value in self.__dict__.items() if key not in ("_graph", "_lineno_map")}
        python_code = self._graph.python_code(root_module="self")
        imports = _format_import_block(python_code.globals, sys_importer)
        return _revive, (type(self).__name__, state, imports, python_code.src)


def _blank(name: str) -> FixedModule:
    new: FixedModule = FixedModule.__new__(FixedModule)
    nn.Module.__init__(new)
    new.__class__.__name__ = name
    return new


class _Body(nn.Module):
    """The tree with the generated `forward`, for re-tracing after unpickling."""


class _LeafTracer(LoneTracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _revive(name: str, state: dict[str, Any], imports: str, source: str) -> FixedModule:
    """Rebuild from generated source, as `fx.GraphModule` does: source outlives versions, graphs do not."""
    body_class = type("_Body", (_Body,), {"forward": _forward_from_src(imports + source, {}, None)})
    body = body_class()
    body.__dict__.update(state)
    graph = _LeafTracer().trace(body)
    graph._tracer_cls = fx.Tracer
    new = _blank(name)
    new.__dict__.update(state)
    new.graph = graph
    return new
