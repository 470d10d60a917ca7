"""A loop that drops after each of its layers, where the last alone should: the call goes behind the loop."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from dropout_lint.fixes.source import erasing, forward
from dropout_lint.fixes.source.edits import Edits
from dropout_lint.fixes.source.guards import read_names
from dropout_lint.fixes.source.scopes import Binder
from dropout_lint.fixes.source.syntax import SourceFile, Statement, nodes_in


@dataclass(frozen=True)
class Hoist:
    """A call that ends the body of a loop, `x = drop(…)`.

    Attributes:
        call: the call.
        dropout: how it is called.
        loop: the loop.
        name: the variable.
    """

    call: cst.Call
    dropout: forward.Call
    loop: cst.For
    name: str

    def write(self, edits: Edits) -> None:
        """Take it out of the loop, and put it behind."""
        erasing.erase(edits, self.call, moved=True)
        edits.insert_after(self.loop, self.dropout.on(self.name))


def hoisted(source: SourceFile, call: cst.Call) -> Hoist | None:
    """How a dropout call may go behind its loop, None where that would not be what the last pass does."""
    dropout, line = forward.call_of(source, call), source.statement(call)
    statement: Statement | None = dropout.statement or line
    block = None if statement is None else source.parent(statement)
    loop = None if block is None else source.parent(block)
    if line is None or not isinstance(block, cst.IndentedBlock) or not isinstance(loop, cst.For):
        return None
    if loop.orelse is not None or block.body[-1] is not statement or source.leaving(loop):
        return None
    name = forward.whole_target(line, forward.choice_of(source, call))
    bound = Binder()
    loop.visit(bound)
    if name is None or (read_names(call, call) | _asked(dropout)) & (bound.names - {name}):
        return None
    return Hoist(call, dropout, loop, name)


def _asked(dropout: forward.Call) -> set[str]:
    """Names that the `if`s of a call's own read."""
    tests = [guard.test for guard in nodes_in(dropout.whole, cst.If)]
    tests += [guard.test for guard in nodes_in(dropout.whole, cst.IfExp)]
    return {name for test in tests for name in read_names(test, None)}
