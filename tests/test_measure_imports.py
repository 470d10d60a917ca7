"""No module of the room needs, while it is imported or later, one that needs it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import dropout_lint.measurement

FOLDER = Path(dropout_lint.measurement.__file__).parent
PACKAGE = "dropout_lint.measurement."
# `Shift.plot` draws with a module that only wants the type of what it draws
LAZY = {"shift": {"plot"}}


class Imports(ast.NodeVisitor):
    """The siblings that a module imports, type-only imports left out."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and node.module.startswith(PACKAGE):
            self.names.add(node.module.removeprefix(PACKAGE))


def graph() -> dict[str, set[str]]:
    found = {}
    for file in FOLDER.glob("*.py"):
        imports = Imports()
        imports.visit(ast.parse(file.read_text(encoding="utf-8")))
        found[file.stem] = imports.names
    return found


def test_the_imports_have_no_circle() -> None:
    needs = graph()
    assert needs["shift"] == LAZY["shift"]
    order = list(TopologicalSorter(needs).static_order())
    assert order.index("plot") < order.index("shift") < order.index("run") < order.index("validate")
