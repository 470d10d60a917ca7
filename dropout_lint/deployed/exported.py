"""Graphs of ATen operations: what torch.export, make_fx and pt2e quantisation hand on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx, nn

from dropout_lint.deployed.aten import step_of
from dropout_lint.deployed.program import Program, Reader, Step, source_line


def is_aten_graph(module: nn.Module) -> bool:
    """Whether a module is a graph of ATen operations, in which no layer is left."""
    if not isinstance(module, fx.GraphModule):
        return False
    nodes = list(module.graph.nodes)
    layers = any(node.op == "call_module" and node.target != "_guards_fn" for node in nodes)
    return not layers and any(_is_aten(node) for node in nodes)


def _is_aten(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"


def read_graph(module: fx.GraphModule) -> Program:
    """What a graph of ATen operations says of its dropouts and norms, those of its inner graphs included."""
    reader = Reader("torch.export")
    _read(module, reader, ())
    return reader.program()


def _read(module: fx.GraphModule, reader: Reader, feeds: Iterable[fx.Node]) -> None:
    """Read one graph; its inputs carry what `feeds` do."""
    for node in module.graph.nodes:
        reads = list(node.all_input_nodes)
        if node.op == "placeholder":
            reads += feeds
        for inner in [_inner_graph(module, before) for before in node.all_input_nodes]:
            if inner is not None:  # a branch, or a region with a setting of its own
                _read(inner, reader, node.all_input_nodes)
                reads += [last for last in inner.graph.nodes if last.op == "output"]
        if node.op == "call_function":
            reader.count()
        reader.flow(reads, [node, *_overwritten(node)], _step(node))


def _inner_graph(module: fx.GraphModule, node: fx.Node) -> fx.GraphModule | None:
    held = getattr(module, str(node.target), None) if node.op == "get_attr" else None
    return held if isinstance(held, fx.GraphModule) else None


def _step(node: fx.Node) -> Step | None:
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    schema = node.target._schema
    given = {argument.name: argument.default_value for argument in schema.arguments}
    given |= dict(zip(given, node.args, strict=False)) | dict(node.kwargs)
    operation = schema.name.rpartition("::")[2]
    return step_of(operation, given, node.name, source_line(node.meta.get("stack_trace")))


def _overwritten(node: fx.Node) -> list[fx.Node]:
    """The inputs that an operation writes to."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    arguments = zip(node.target._schema.arguments, node.args, strict=False)
    return [
        given
        for argument, given in arguments
        if isinstance(given, fx.Node) and argument.alias_info is not None and argument.alias_info.is_write
    ]
