"""One source file as a concrete syntax tree, with the places of its calls."""

from __future__ import annotations

import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from dropout_lint.errors import FixError
from dropout_lint.inputs.example import Location

Node = TypeVar("Node", bound=cst.CSTNode)
Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement


@dataclass(frozen=True)
class RawText:
    """Text of a file with what is needed to write it back as it was."""

    text: str
    encoding: str
    bom: bytes = b""

    def to_bytes(self, text: str) -> bytes:
        """Bytes of a changed text in the file's own encoding."""
        return self.bom + text.encode(self.encoding)


def read_raw(path: Path) -> RawText:
    """Read a Python file without touching its line ends.

    Raises:
        FixError: it cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
        with path.open("rb") as stream:
            encoding, _ = tokenize.detect_encoding(stream.readline)
        bom = b""
        if encoding == "utf-8-sig":
            encoding, bom = "utf-8", b"\xef\xbb\xbf"
            data = data.removeprefix(bom)
        return RawText(data.decode(encoding), encoding, bom)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise FixError(f"{path} cannot be read: {error}") from error


class SourceFile:
    """A parsed file.

    Raises:
        FixError: the file cannot be read or is no Python that libcst knows.
    """

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        self.raw = read_raw(path)
        self.text = self.raw.text if text is None else text
        try:
            self.wrapper = MetadataWrapper(cst.parse_module(self.text), unsafe_skip_copy=True)
        except cst.ParserSyntaxError as error:
            raise FixError(f"{path} cannot be parsed: {error.message}") from error
        self.module = self.wrapper.module
        self._positions = self.wrapper.resolve(PositionProvider)
        self._parents = dict(_held_in(self.module))
        self._leaving: dict[cst.CSTNode, list[cst.CSTNode]] = {}

    # walking

    def range_of(self, node: cst.CSTNode) -> CodeRange:
        """Where a node begins and ends; lines from 1, columns from 0 in characters."""
        return self._positions[node]

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """The node that holds a node."""
        return self._parents.get(node)

    def up(self, node: cst.CSTNode, kinds: type | tuple[type, ...]) -> cst.CSTNode | None:
        """The nearest holder of one of some kinds."""
        holder = self.parent(node)
        while holder is not None and not isinstance(holder, kinds):
            holder = self.parent(holder)
        return holder

    def statement(self, node: cst.CSTNode) -> cst.SimpleStatementLine | None:
        """The simple statement that holds an expression; None in the head of a compound one or a lambda."""
        holder = self.up(node, (cst.SimpleStatementLine, cst.BaseCompoundStatement, cst.Lambda))
        return holder if isinstance(holder, cst.SimpleStatementLine) else None

    def function(self, node: cst.CSTNode) -> cst.FunctionDef | None:
        """The function that holds a node."""
        holder = self.up(node, cst.FunctionDef)
        return holder if isinstance(holder, cst.FunctionDef) else None

    def klass(self, node: cst.CSTNode) -> cst.ClassDef | None:
        """The class that holds a node."""
        holder = self.up(node, cst.ClassDef)
        return holder if isinstance(holder, cst.ClassDef) else None

    def leaving(self, tree: cst.CSTNode) -> list[cst.CSTNode]:
        """What leaves a function or a loop early in a part of the file, in order."""
        if tree not in self._leaving:
            self._leaving[tree] = nodes_in(tree, cst.Return, cst.Continue, cst.Break)
        return self._leaving[tree]

    def code(self, node: cst.CSTNode) -> str:
        """Source text of a node."""
        return self.module.code_for_node(node)

    # finding

    @cached_property
    def calls(self) -> list[cst.Call]:
        """All calls, in the order of their places."""
        found = [node for node in self._positions if isinstance(node, cst.Call)]
        return sorted(found, key=self._start)

    def _start(self, node: cst.CSTNode) -> tuple[int, int]:
        start = self._positions[node].start
        return start.line, start.column

    def column(self, location: Location) -> int:
        """Column of a location in characters from 0 (Python counts UTF-8 bytes)."""
        lines = self.text.split("\n")
        line = lines[location.line - 1] if location.line <= len(lines) else ""
        return len(line.encode()[: location.column - 1].decode(errors="ignore"))

    def call_at(self, location: Location, callees: tuple[str, ...]) -> cst.Call | None:
        """The call at a place whose callee ends in one of `callees`; None where it cannot be told.

        `callees` are source texts (`self.conv2`) or bare names (`dropout`), the best first.
        """
        here = [call for call in self.calls if self._start(call)[0] == location.line]
        if not here:
            here = [
                call
                for call in self.calls
                if self._positions[call].start.line <= location.line <= self._positions[call].end.line
            ]
        if location.column > 1:
            column = self.column(location)
            exact = [call for call in here if self._start(call)[1] == column]
            matching = [call for call in exact if any(self._named(call, name) for name in callees)]
            for found in (matching, exact):
                outer = [call for call in found if isinstance(call.func, cst.Call)]
                if len(found) == 1 or len(outer) == 1:
                    return (outer or found)[0]
        for name in callees:
            named = [call for call in here if self._named(call, name)]
            if len(named) == 1:
                return named[0]
            if named:
                return None
        return None

    def only_call(self, location: Location) -> cst.Call | None:
        """The call that a line consists of: `return self.act(x)`, whatever function the attribute holds."""
        here = [call for call in self.calls if self._start(call)[0] == location.line]
        if len(here) != 1 or not all(isinstance(item.value, cst.Name) for item in here[0].args):
            return None
        holder = self.parent(here[0])
        return here[0] if isinstance(holder, (cst.Return, cst.Assign)) else None

    def operand(
        self, location: Location, callees: tuple[str, ...], path: tuple[int, ...]
    ) -> cst.BaseExpression | None:
        """An operand of a call or sum at a place, by its number; of a list of tensors, by its number in that.

        None where it cannot be told.
        """
        call = self.call_at(location, callees)
        if call is not None:
            plain = [item.value for item in call.args if item.keyword is None and not item.star]
            if not any(
                self._named(call, f"{module}.{name}") for module in ("torch", "F") for name in callees
            ):
                plain = [call.func.value, *plain] if isinstance(call.func, cst.Attribute) else plain
            return _part(plain, path)
        sums = [
            node
            for node in self._positions
            if isinstance(node, (cst.BinaryOperation, cst.AugAssign))
            and isinstance(node.operator, (cst.Add, cst.AddAssign))
            and self._positions[node].start.line == location.line
        ]
        if len(sums) != 1:
            return None
        (found,) = sums
        sides = (
            [found.left, found.right]
            if isinstance(found, cst.BinaryOperation)
            else [found.target, found.value]
        )
        return _part(sides, path)

    def _named(self, call: cst.Call, name: str) -> bool:
        callee = call.func.func if isinstance(call.func, cst.Call) else call.func
        text = self.code(callee)
        return text == name or ("." not in name and text.rpartition(".")[2] == name)

    @cached_property
    def constants(self) -> set[str]:
        """Names that the top of the file binds, by an import or once by a plain assignment."""
        names = {
            alias.evaluated_alias or alias.evaluated_name.partition(".")[0]
            for alias in nodes_in(self.module, cst.ImportAlias)
            if self.function(alias) is None
        }
        targets = [
            node.target.value
            for node in nodes_in(self.module, cst.AssignTarget)
            if isinstance(node.target, cst.Name) and self.up(node, (cst.FunctionDef, cst.ClassDef)) is None
        ]
        return names | {name for name in targets if targets.count(name) == 1}

    def assignment_to_self(self, klass: cst.ClassDef, name: str) -> list[cst.SimpleStatementLine]:
        """Statements `self.name = …` of a class."""
        statements = (
            self.statement(node)
            for node in nodes_in(klass, cst.Assign)
            if len(node.targets) == 1 and is_own(node.targets[0].target, name)
        )
        return [statement for statement in statements if statement is not None]

    def uses_of_attribute(self, name: str) -> list[cst.Attribute]:
        """Every `….name` of the file."""
        return [
            node for node in self._positions if isinstance(node, cst.Attribute) and node.attr.value == name
        ]


def _part(values: Sequence[cst.BaseExpression], path: tuple[int, ...]) -> cst.BaseExpression | None:
    """The value at a path of numbers; None where there is none, or it is within what a star hands on."""
    number, *rest = path
    if number >= len(values):
        return None
    value = values[number]
    if not rest:
        return value
    if not isinstance(value, (cst.List, cst.Tuple)):
        return None
    if any(isinstance(item, cst.StarredElement) for item in value.elements):
        return None
    return _part([item.value for item in value.elements], tuple(rest))


def _held_in(tree: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """Each node below `tree` with its holder; libcst's own search makes the whole tree anew for it."""
    left = [tree]
    while left:
        holder = left.pop()
        parts = [getattr(holder, name) for name in _fields(type(holder))]
        for part in parts:
            for node in part if isinstance(part, (list, tuple)) else (part,):
                if isinstance(node, cst.CSTNode):
                    yield node, holder
                    left.append(node)


@cache
def _fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def nodes_in(tree: cst.CSTNode, *kinds: type[Node]) -> list[Node]:
    """The nodes of some kinds in a tree, itself included, in the order of the source."""
    found: list[Node] = []

    class Visitor(cst.CSTVisitor):
        def on_visit(self, node: cst.CSTNode) -> bool:
            if isinstance(node, kinds):
                found.append(node)
            return True

    tree.visit(Visitor())
    return found


def is_name(node: cst.CSTNode | None, name: str) -> bool:
    """Whether a node is a name, and this one."""
    return isinstance(node, cst.Name) and node.value == name


def is_own(node: cst.CSTNode, name: str) -> bool:
    """Whether a node is `self.name`."""
    return isinstance(node, cst.Attribute) and is_name(node.value, "self") and node.attr.value == name


def is_super(call: cst.Call, method: str) -> bool:
    """Whether a call is `super().method(…)`, in the old spelling (`super(Class, self)`) too."""
    of = call.func.value if isinstance(call.func, cst.Attribute) else None
    named = isinstance(call.func, cst.Attribute) and call.func.attr.value == method
    return named and isinstance(of, cst.Call) and is_name(of.func, "super")
