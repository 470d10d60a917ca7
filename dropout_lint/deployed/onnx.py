"""ONNX files: what the operator set of a file says that its Dropout and BatchNormalization nodes do.

Modes by version, from the operators' specification: Dropout has an input `training_mode` from 12 on, never
drops from 7 to 11, and has an attribute `is_test` before; BatchNormalization has an attribute `training_mode`
from 14 on, trains from 7 to 13 where it has more than one output, and has `is_test` before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

from dropout_lint.deployed.program import Program, Reader, Step, source_line

MASKS = frozenset({"Bernoulli", "RandomUniform", "RandomUniformLike"})
"""What a dropout is made of where it was taken apart; a normal draw is no mask."""
_OWN = ("", "ai.onnx")


def read_onnx(stream: IO[bytes]) -> Program:
    """What an ONNX file says; weights beside the file are not needed.

    Raises:
        ImportError: onnx is not installed.
        Exception: whatever onnx raises for a file that it cannot read.
    """
    import onnx
    import onnx.inliner

    model = onnx.load(stream, load_external_data=False)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    version = next((entry.version for entry in model.opset_import if entry.domain in _OWN), 1)
    reader = Reader("ONNX")
    _Graph(onnx, version, reader).read(model.graph, {}, ())
    return reader.program()


class _Graph:
    def __init__(self, onnx: Any, version: int, reader: Reader) -> None:
        self._onnx = onnx
        self._version = version
        self._reader = reader

    def read(self, graph: Any, outside: Mapping[str, Any], feeds: Iterable[str]) -> None:
        """Read one graph; `outside` are the constants around it, `feeds` what its inputs carry."""
        constants = {**outside, **{tensor.name: tensor for tensor in graph.initializer}}
        for value in graph.input:
            self._reader.flow(feeds, [value.name])
        for node in graph.node:
            attributes = {item.name: self._onnx.helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                constants[node.output[0]] = attributes["value"]
            reads = list(node.input)
            for inner in (value for value in attributes.values() if isinstance(value, self._onnx.GraphProto)):
                self.read(inner, constants, node.input)
                reads += [value.name for value in inner.output]
            self._reader.count()
            self._reader.flow(reads, node.output, self._step(node, attributes, constants))

    def _step(self, node: Any, attributes: Mapping[str, Any], constants: Mapping[str, Any]) -> Step | None:
        if node.domain not in _OWN:
            return None
        kind, name = node.op_type, node.name or node.output[0]
        kept = {item.key: item.value for item in node.metadata_props}
        source = source_line(kept.get("pkg.torch.onnx.stack_trace"))
        if kind in MASKS:
            return Step(name, kind, False, True, source=source)
        if kind == "BatchNormalization":
            return Step(name, kind, True, self._norm_trains(node, attributes), source=source)
        if kind != "Dropout":
            return None
        p, trains = self._dropout(node, attributes, constants)
        return None if p == 0 else Step(name, kind, False, trains, p, source)

    def _norm_trains(self, node: Any, attributes: Mapping[str, Any]) -> bool:
        if self._version >= 14:
            return bool(attributes.get("training_mode", 0))
        if self._version >= 7:
            return sum(map(bool, node.output)) > 1
        return not attributes.get("is_test", 0)

    def _dropout(
        self, node: Any, attributes: Mapping[str, Any], constants: Mapping[str, Any]
    ) -> tuple[float, bool | None]:
        """The ratio, and whether it drops."""
        if self._version < 12:
            drops = self._version < 7 and not attributes.get("is_test", 0)
            return _rounded(attributes.get("ratio", 0.5)), drops
        given = dict(enumerate(node.input))
        ratio, mode = (self._number(given.get(place, ""), constants) for place in (1, 2))
        p = 0.5 if not given.get(1) else float("nan") if ratio is None else ratio
        return p, False if not given.get(2) else None if mode is None else bool(mode)

    def _number(self, name: str, constants: Mapping[str, Any]) -> float | None:
        if name not in constants:
            return None
        return _rounded(self._onnx.numpy_helper.to_array(constants[name]).reshape(-1)[0])


def _rounded(value: Any) -> float:
    """A float32 as it was written: 0.3 and not 0.30000001."""
    return float(f"{float(value):.6g}")
