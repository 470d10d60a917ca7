"""Moves inside `forward`: statements, guarded statements and nested call expressions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import libcst as cst
from libcst import matchers as m

from dropout_lint.fixes.source.edits import Edits, first_argument
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.syntax import SourceFile, Statement

BY_HAND = "move the line by hand to the place that is named"


@dataclass(frozen=True)
class Call:
    """How a dropout is called, to be written at another place.

    Attributes:
        make: expression that drops an expression.
        statement: the statement (with its guards) that calls it now, None for a nested call.
        guarded: that statement stands under an `if` of its own.
        new: it is a new call, which is written as a statement where that needs no new variable.
    """

    make: Callable[[cst.BaseExpression], cst.BaseExpression]
    statement: Statement | None = None
    guarded: bool = False
    new: bool = False

    @property
    def commented(self) -> bool:
        """Whether the statement has a comment, which should move with it."""
        return self.statement is not None and bool(m.findall(self.statement, m.Comment()))

    def on(self, name: str) -> Statement:
        """`name = drop(name)`, with the guards of the old place."""
        value = self.make(cst.Name(name))
        new = cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(cst.Name(name))], value)])
        if self.statement is None:
            return new
        assert isinstance(new.body[0], cst.Assign)
        changer = _Renamer(new.body[0])
        moved = self.statement.visit(changer)
        assert isinstance(moved, (cst.SimpleStatementLine, cst.BaseCompoundStatement))
        comments = [line for line in moved.leading_lines if line.comment is not None]
        result: Statement = moved.with_changes(leading_lines=comments)
        return result


class _Renamer(cst.CSTTransformer):
    """Exchanges the one assignment of a (guarded) statement, and keeps comments and layout around it."""

    def __init__(self, new: Any) -> None:
        super().__init__()
        self.new = new

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        result: cst.Assign = self.new
        return result


def call_of(source: SourceFile, call: cst.Call) -> Call:
    """The way a dropout is called now, for writing it elsewhere in the same class."""

    def make(value: cst.BaseExpression) -> cst.BaseExpression:
        done = False
        arguments = []
        for argument in call.args:
            data = not done and argument.star == "" and argument.value is first_argument(call)
            arguments.append(argument.with_changes(value=value) if data else argument)
            done = done or data
        return call.with_changes(args=arguments)

    statement = source.statement(call)
    if statement is None or not is_drop_statement(statement, call):
        return Call(make)
    outer: Statement = statement
    guarded = False
    while (guard := guard_of(source, outer)) is not None:
        outer, guarded = guard, True
    return Call(make, outer, guarded)


def is_drop_statement(statement: cst.SimpleStatementLine, call: cst.Call) -> bool:
    """Whether a statement is `x = drop(x)` (or `y = drop(x)`) and nothing else."""
    if len(statement.body) != 1:
        return False
    (small,) = statement.body
    return (
        isinstance(small, cst.Assign)
        and len(small.targets) == 1
        and isinstance(small.targets[0].target, cst.Name)
        and small.value is call
        and isinstance(first_argument(call), cst.Name)
    )


def guard_of(source: SourceFile, statement: Statement) -> cst.If | None:
    """The `if` that holds nothing but this statement, without an `else`."""
    block = source.parent(statement)
    holder = source.parent(block) if block is not None else None
    if (
        isinstance(block, cst.IndentedBlock)
        and isinstance(holder, cst.If)
        and len(block.body) == 1
        and holder.orelse is None
        and not isinstance(source.parent(holder), cst.If)  # an elif
    ):
        return holder
    return None


def erase(edits: Edits, call: cst.Call) -> None:
    """Take a dropout call out of a function; a guard that has nothing left goes with it."""
    found = call_of(edits.source, call)
    if found.statement is not None and not _renames(found.statement):
        edits.remove(found.statement)
    else:
        edits.erase_call(call)


def _renames(statement: Statement) -> bool:
    """Whether the assignment binds another name than the one it reads: `y = drop(x)`."""
    (assign,) = m.findall(statement, m.Assign())
    assert isinstance(assign, cst.Assign) and isinstance(assign.value, cst.Call)
    data = first_argument(assign.value)
    return data is None or not data.deep_equals(assign.targets[0].target)


def drop_input(edits: Edits, call: cst.Call, dropout: Call) -> None:
    """Drop the data argument of `call` (for a method, what it is called on).

    Raises:
        CannotExpress: the call stands where no statement can be put, and the dropout has a guard.
    """
    source = edits.source
    data = data_of(source, call)
    if data is None:
        raise CannotExpress(f"`{source.code(call)}` has no argument that could be dropped", BY_HAND)
    statement = source.statement(call)
    if statement is None:
        if dropout.guarded:
            raise CannotExpress("the new place is inside a compound statement", BY_HAND)
        edits.change(data, dropout.make)
        return
    wants_statement = dropout.statement is not None
    if isinstance(data, cst.Name):
        if (wants_statement or dropout.new) and not lives_on(source, statement, data.value):
            edits.insert_before(statement, dropout.on(data.value))
            return
        if not dropout.guarded:
            edits.change(data, dropout.make)
            return
    elif not wants_statement or not (dropout.guarded or dropout.commented):
        edits.change(data, dropout.make)
        return
    name = whole_target(statement, call) or temporary_name(source, statement, dropout)
    _unnest(edits, statement, data, name, dropout)


def drop_output(edits: Edits, value: cst.BaseExpression, dropout: Call) -> None:
    """Drop the value of an expression, by a statement behind it or around it.

    Raises:
        CannotExpress: a guarded dropout cannot be written there.
    """
    source = edits.source
    statement = source.statement(value)
    if statement is None:
        if dropout.guarded:
            raise CannotExpress("the new place is inside a compound statement", BY_HAND)
        edits.change(value, dropout.make)
        return
    target = whole_target(statement, value)
    if target is not None and (dropout.statement is not None or dropout.new):
        edits.insert_after(statement, dropout.on(target))
    elif not dropout.guarded:
        edits.change(value, dropout.make)
    else:
        _unnest(edits, statement, value, target or temporary_name(source, statement, dropout), dropout)


def _unnest(edits: Edits, statement: cst.SimpleStatementLine, data: Any, name: str, dropout: Call) -> None:
    """`t = f(EXPR)` becomes `t = EXPR`, the dropout, `t = f(t)`."""
    held: list[cst.BaseExpression] = []

    def take(updated: cst.BaseExpression) -> cst.BaseExpression:
        held.append(updated)
        return cst.Name(name)

    def unfold(updated: cst.SimpleStatementLine) -> list[Statement]:
        first = cst.SimpleStatementLine(
            [cst.Assign([cst.AssignTarget(cst.Name(name))], held[-1])], leading_lines=updated.leading_lines
        )
        return [first, dropout.on(name), updated.with_changes(leading_lines=[])]

    edits.change(data, take)
    edits.unfold(statement, unfold)


def data_of(source: SourceFile, call: cst.Call) -> cst.BaseExpression | None:
    """What a call works on: its first argument, or what its method is called on (`x.mean(…)`)."""
    data = first_argument(call)
    function = call.func
    if isinstance(function, cst.Attribute) and not is_module_path(source, function):
        return function.value
    return data


def is_module_path(source: SourceFile, function: cst.Attribute) -> bool:
    """Whether `a.b(…)` calls a function of a module or a submodule of self, not a method of a tensor."""
    root: cst.BaseExpression = function
    while isinstance(root, (cst.Attribute, cst.Subscript)):
        root = root.value
    return isinstance(root, cst.Name) and (
        root.value in ("self", "torch", "F", "nn") or root.value in imported(source)
    )


def imported(source: SourceFile) -> set[str]:
    """Names that the file's imports bind."""
    names: set[str] = set()
    for node in m.findall(source.module, m.ImportAlias()):
        assert isinstance(node, cst.ImportAlias)
        alias = node.evaluated_alias or node.evaluated_name.split(".")[0]
        names.add(alias)
    return names


def whole_target(statement: cst.SimpleStatementLine, value: cst.CSTNode) -> str | None:
    """`t` if the statement is `t = value` and nothing else."""
    if len(statement.body) != 1:
        return None
    (small,) = statement.body
    if (
        isinstance(small, cst.Assign)
        and len(small.targets) == 1
        and isinstance(small.targets[0].target, cst.Name)
        and small.value is value
    ):
        return small.targets[0].target.value
    return None


def lives_on(source: SourceFile, statement: cst.SimpleStatementLine, name: str) -> bool:
    """Whether the value that `name` has before a statement may be read elsewhere than once in it."""
    inside = m.findall(statement, m.Name(name))
    stores = assigned(statement)
    if len([node for node in inside if not _is_target(source, node)]) > 1:
        return True
    if name in stores:
        return False
    if source.up(statement, (cst.For, cst.While)) is not None:
        return True
    function = source.function(statement)
    if function is None:
        return True
    end = source.range_of(statement).end.line
    later = sorted(
        (node for node in m.findall(function, m.Name(name)) if source.range_of(node).start.line > end),
        key=lambda node: (source.range_of(node).start.line, source.range_of(node).start.column),
    )
    if not later:
        return False
    return not _is_target(source, later[0])


def assigned(statement: cst.SimpleStatementLine) -> set[str]:
    """Names that a statement binds anew."""
    names = set()
    for small in statement.body:
        if isinstance(small, cst.Assign):
            for target in small.targets:
                if isinstance(target.target, cst.Name):
                    names.add(target.target.value)
    return names


def _is_target(source: SourceFile, node: cst.CSTNode) -> bool:
    parent = source.parent(node)
    return isinstance(parent, cst.AssignTarget) and parent.target is node


def temporary_name(source: SourceFile, statement: cst.SimpleStatementLine, dropout: Call) -> str:
    """A name for the dropped value: the dropout's own before a `return`, else a new one."""
    if dropout.statement is not None and isinstance(statement.body[-1], cst.Return):
        (assign,) = m.findall(dropout.statement, m.Assign())
        assert isinstance(assign, cst.Assign)
        target = assign.targets[0].target
        assert isinstance(target, cst.Name)
        if len(m.findall(statement, m.Name(target.value))) <= 1:
            return target.value
    return fresh_name(source, statement)


def fresh_name(source: SourceFile, statement: cst.CSTNode) -> str:
    """A variable name that the function does not use yet."""
    function = source.function(statement)
    used = (
        {node.value for node in m.findall(function, m.Name()) if isinstance(node, cst.Name)}
        if function
        else set()
    )
    for name in ("out", "h", "hidden", "y", "dropped"):
        if name not in used:
            return name
    number = 1
    while f"hidden_{number}" in used:
        number += 1
    return f"hidden_{number}"
