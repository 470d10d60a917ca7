"""TorchScript: what the graph of a scripted or traced module says, its modes read off the module itself."""

from __future__ import annotations

from dataclasses import replace
from typing import IO, Any

import torch

from dropout_lint.deployed.aten import step_of
from dropout_lint.deployed.program import Program, Reader, Step

_OPEN = object()
"""A value that is not known before the program runs."""


def read_script(module: torch.jit.ScriptModule) -> Program:
    """What `forward` of a scripted or traced module says of its dropouts and norms.

    Flags that follow `.train()` and `.eval()` are read as after `.eval()`; the module is left as it is.
    """
    return _Script(module._c, as_saved=False).program()


def read_saved_script(stream: IO[bytes]) -> Program:
    """The same of a file, in the mode that it was saved in: who loads it need not know of modes."""
    # `torch.jit.load` needs the script compiler, which the tool's own process has not
    unit, saved = torch._C.CompilationUnit(), stream.read()
    load: Any = torch._C.import_ir_module_from_buffer  # declared with fewer arguments than it has
    module = load(unit, saved, torch.device("cpu"), {}, False)
    return _Script(module, as_saved=True).program()


class _Script:
    def __init__(self, module: torch._C.ScriptModule, *, as_saved: bool) -> None:
        self._module = module
        self._as_saved = as_saved
        self._reader = Reader("TorchScript")
        graph = module._get_method("forward").graph.copy()
        torch._C._jit_pass_inline(graph)
        self._self = next(iter(graph.inputs())).debugName()
        self._block(graph)

    def program(self) -> Program:
        return self._reader.program()

    def _block(self, block: Any) -> None:
        """The nodes of a graph or block; of a branch whose condition is known only the one that is taken."""
        for node in block.nodes():
            reads = [value.debugName() for value in node.inputs()]
            blocks = list(node.blocks())
            taken = self._taken(node, blocks)
            for inner in taken:
                for value in inner.inputs():  # a loop's variables carry what came in
                    self._reader.flow(reads, [value.debugName()])
                self._block(inner)
                reads += [value.debugName() for value in inner.outputs()]
            writes = [value.debugName() for value in node.outputs()]
            if node.kind().startswith("aten::"):
                self._reader.count()
                if node.kind().endswith("_"):
                    writes += reads[:1]
            self._reader.flow(reads, writes, self._step(node))

    def _taken(self, node: Any, blocks: list[Any]) -> list[Any]:
        if node.kind() != "prim::If":
            return blocks
        condition = self._value(next(iter(node.inputs())))
        return [blocks[not condition]] if isinstance(condition, bool) else blocks

    def _step(self, node: Any) -> Step | None:
        if not node.kind().startswith("aten::") or node.schema() == "(no schema)":
            return None
        inputs = list(node.inputs())
        names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
        values = dict(zip(names, inputs, strict=False))
        operation = node.kind().removeprefix("aten::")
        step = step_of(operation, {name: self._value(value) for name, value in values.items()}, "")
        return None if step is None else replace(step, name=self._name(node, values))

    def _name(self, node: Any, inputs: dict[str, Any]) -> str:
        """The module that it belongs to, else the value that it gives."""
        traced = node.scopeName().rpartition("/")[2].removeprefix("__module").lstrip(".")
        flag = inputs.get("train", inputs.get("running_mean"))
        owner = self._owner(flag) if flag is not None else ""
        return traced or owner or str(next(iter(node.outputs())).debugName())

    def _owner(self, value: Any) -> str:
        """The path of the module whose attribute a value is, "" where it is none."""
        path = []
        node = value.node()
        while node.kind() == "prim::GetAttr":
            path.append(node.s("name"))
            node = next(iter(node.inputs())).node()
        return ".".join(reversed(path[1:]))

    def _value(self, value: Any) -> Any:  # noqa: PLR0911 - one for each kind of node
        """What a value is known to be: a constant, an attribute of the module, or what follows from these."""
        if value.debugName() == self._self:
            return self._module
        node = value.node()
        inputs = list(node.inputs())
        match node.kind():
            case "prim::Constant":
                return value.toIValue()
            case "prim::GetAttr":
                name = node.s("name")
                if name == "training" and not self._as_saved:
                    return False
                owner = self._value(inputs[0])
                return _OPEN if owner is _OPEN else getattr(owner, name, _OPEN)
            case "prim::unchecked_cast":
                return self._value(inputs[0])
            case "aten::__is__" | "aten::__isnot__":
                one, other = map(self._value, inputs)
                open_ = one is _OPEN or other is _OPEN  # `in` would compare tensors
                return _OPEN if open_ else (one is other) == (node.kind() == "aten::__is__")
            case "aten::__not__":
                inner = self._value(inputs[0])
                return not inner if isinstance(inner, bool) else _OPEN
            case "prim::If":
                taken = self._taken(node, list(node.blocks()))
                place = [output.debugName() for output in node.outputs()].index(value.debugName())
                return self._value(list(taken[0].outputs())[place]) if len(taken) == 1 else _OPEN
        return _OPEN
