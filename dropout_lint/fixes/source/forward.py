"""Moves inside `forward`: statements, guarded statements and nested call expressions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import libcst as cst

from dropout_lint.fixes.source.edits import Edits, bare, first_argument, negated
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.scopes import own_name
from dropout_lint.fixes.source.syntax import SourceFile, Statement, nodes_in

BY_HAND = "move the line by hand to the place that is named"


@dataclass(frozen=True)
class Call:
    """How a dropout is called, to be written at another place.

    Attributes:
        make: expression that drops an expression.
        whole: the node that goes: the statement with its guards, else the call or its conditional.
        statement: the statement (with its guards) that calls it now, None for a nested call.
        guarded: that statement stands under an `if` of its own, or the call is a side of a conditional.
        new: it is a new call, which is written as a statement where that needs no new variable.
        choice: the head of an `if` whose other side does the same without it, asking for it.
    """

    make: Callable[[cst.BaseExpression], cst.BaseExpression]
    whole: cst.CSTNode
    statement: Statement | None = None
    guarded: bool = False
    new: bool = False
    choice: cst.If | None = None

    @property
    def test(self) -> cst.BaseExpression | None:
        """What that `if` asks."""
        return None if self.choice is None else self.choice.test

    @property
    def commented(self) -> bool:
        """Whether the statement has a comment, which should move with it."""
        return self.statement is not None and bool(nodes_in(self.statement, cst.Comment))

    def on(self, name: str) -> Statement:
        """`name = drop(name)`, with the guards of the old place."""
        value = self.make(cst.Name(name))
        new = cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(cst.Name(name))], value)])
        if self.choice is not None:
            return self.choice.with_changes(body=self.choice.body.with_changes(body=[new]))
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


def call_of(source: SourceFile, call: cst.Call, adjust: Callable[[cst.Call], cst.Call] | None = None) -> Call:
    """The way a dropout is called now, for writing it elsewhere in the same class.

    Args:
        source: the file.
        call: the call; a conditional `drop(x) if … else x` around it is a guard of its own.
        adjust: changes the call on its way.
    """
    whole, statement = choice_of(source, call), source.statement(call)
    stands_alone = statement is not None and is_drop_statement(statement, call, whole)

    def make(value: cst.BaseExpression) -> cst.BaseExpression:
        done = False
        arguments = []
        for argument in call.args:
            data = not done and argument.star == "" and argument.value is first_argument(call)
            arguments.append(argument.with_changes(value=value) if data else argument)
            done = done or data
        made = call.with_changes(args=arguments)
        made = made if stands_alone else unwrapped(one_line(made))
        made = made if adjust is None else adjust(made)
        if not isinstance(whole, cst.IfExp):
            return made
        return whole.with_changes(
            body=made if whole.body is call else value, orelse=value if whole.body is call else made
        )

    guarded = whole is not call
    choice = choice_between(source, statement, call)
    if choice is not None:
        test = choice.test
        if statement is not None and source.parent(statement) is not choice.body:
            test = negated(test)
        head = choice.with_changes(test=test, orelse=None, leading_lines=[])
        return Call(make, whole, guarded=True, new=True, choice=head)
    if statement is None or not stands_alone:
        return Call(make, whole, guarded=guarded)
    outer: Statement = statement
    while (guard := guard_of(source, outer)) is not None:
        outer, guarded = guard, True
    return Call(make, outer, outer, guarded)


def choice_of(source: SourceFile, call: cst.Call) -> cst.Call | cst.IfExp:
    """`drop(x) if … else x` (or the other way round) around a dropout call, else the call."""
    holder, data = source.parent(call), first_argument(call)
    if isinstance(holder, cst.IfExp) and data is not None and holder.test is not call:
        other = holder.orelse if holder.body is call else holder.body
        if data.deep_equals(other):
            return holder
    return call


def one_line(call: cst.Call) -> cst.Call:
    """A call without the line breaks and comments between its arguments, which belong to the old place."""
    none, comma = cst.SimpleWhitespace(""), cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    bare = call.with_changes(args=[without_value(item) for item in call.args])
    if not nodes_in(bare, cst.ParenthesizedWhitespace):
        return call
    last = len(call.args) - 1
    arguments = [
        item.with_changes(
            whitespace_after_arg=none, comma=cst.MaybeSentinel.DEFAULT if number == last else comma
        )
        for number, item in enumerate(call.args)
    ]
    return call.with_changes(whitespace_before_args=none, args=arguments)


def unwrapped(call: cst.Call) -> cst.Call:
    """`drop((⏎ x ⏎))` → `drop(⏎ x ⏎)`: parentheses over several lines become those of the call."""
    value = call.args[0].value if len(call.args) == 1 else None
    if value is None or isinstance(value, (cst.Tuple, cst.GeneratorExp)) or len(value.lpar) != 1:
        return call
    first, last = value.lpar[0].whitespace_after, value.rpar[0].whitespace_before
    argument = call.args[0].with_changes(
        value=value.with_changes(lpar=[], rpar=[]), whitespace_after_arg=last
    )
    return call.with_changes(whitespace_before_args=first, args=[argument])


def without_value(argument: cst.Arg) -> cst.Arg:
    return argument.with_changes(value=cst.Name("x"))


def is_drop_statement(statement: cst.SimpleStatementLine, call: cst.Call, whole: cst.BaseExpression) -> bool:
    """Whether a statement is `x = drop(x)` (or `y = drop(x)`) and nothing else."""
    if len(statement.body) != 1:
        return False
    (small,) = statement.body
    return (
        isinstance(small, cst.Assign)
        and len(small.targets) == 1
        and isinstance(small.targets[0].target, cst.Name)
        and small.value is whole
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


def own_guards(source: SourceFile, node: cst.CSTNode) -> list[cst.BaseExpression]:
    """What the `if`s ask that hold nothing but the statement of a node, which others may stand behind."""
    statement: Statement | None = source.statement(node)
    tests: list[cst.BaseExpression] = []
    while statement is not None and (guard := guard_of(source, statement)) is not None:
        tests.append(guard.test)
        statement = guard
    return tests


def choice_between(source: SourceFile, statement: Statement | None, call: cst.Call) -> cst.If | None:
    """The `if` whose branches are alike without the drop: `y = drop(x)` and `y = x`."""
    block = None if statement is None else source.parent(statement)
    holder = None if block is None else source.parent(block)
    choice = source.parent(holder) if isinstance(holder, cst.Else) else holder
    data = first_argument(call)
    if not isinstance(choice, cst.If) or not isinstance(choice.orelse, cst.Else) or data is None:
        return None
    if isinstance(source.parent(choice), cst.If):  # an elif
        return None
    bodies = (choice.body, choice.orelse.body)
    if any(len(body.body) != 1 for body in bodies):
        return None
    other = bodies[1] if block is bodies[0] else bodies[0]
    return choice if without(statement, call, other.body[0]) else None


def without(statement: cst.CSTNode | None, call: cst.Call, other: cst.CSTNode) -> bool:
    """Whether a line without its dropout call is another one, but for comments and empty lines."""
    if not isinstance(statement, cst.SimpleStatementLine) or not isinstance(other, cst.SimpleStatementLine):
        return False
    left = statement.deep_replace(call, bare(call))
    assert isinstance(left, cst.SimpleStatementLine)
    pairs = zip(left.body, other.body, strict=False)
    return len(left.body) == len(other.body) and all(one.deep_equals(two) for one, two in pairs)


def end_comments(statement: Statement) -> list[cst.Comment]:
    """The comments behind the lines of a statement."""
    return comments_in(*nodes_in(statement, cst.TrailingWhitespace))


def comments_in(*nodes: cst.CSTNode) -> list[cst.Comment]:
    """The comments in some code."""
    return [item for node in nodes for item in nodes_in(node, cst.Comment)]


def drop_input(edits: Edits, call: cst.Call, dropout: Call) -> None:
    """Drop the data argument of `call` (for a method, what it is called on).

    Raises:
        CannotExpress: the call stands where no statement can be put, and the dropout has a guard.
    """
    source = edits.source
    data = data_of(source, call)
    if data is None:
        raise CannotExpress(f"`{source.code(call)}` has no argument that could be dropped", BY_HAND)
    drop_operand(edits, data, dropout, whole=call)


def drop_operand(
    edits: Edits, data: cst.BaseExpression, dropout: Call, whole: cst.BaseExpression | None = None
) -> None:
    """Drop what an expression reads, in front of its statement or in it.

    Args:
        edits: edits of the file.
        data: what is read.
        dropout: how it is dropped.
        whole: the call that reads it.

    Raises:
        CannotExpress: it stands where no statement can be put, and the dropout has a guard.
    """
    source = edits.source
    statement = source.statement(data)
    if statement is None:
        if dropout.guarded:
            raise CannotExpress("the new place is inside a compound statement", BY_HAND)
        edits.change(data, dropout.make)
        return
    wants_statement = dropout.statement is not None or dropout.guarded
    alone = len(statement.body) == 1
    if isinstance(data, cst.Name):
        if alone and (wants_statement or dropout.new) and not lives_on(source, statement, data.value):
            edits.insert_before(statement, dropout.on(data.value))
            return
        holder = source.parent(data)
        if isinstance(holder, cst.AugAssign) and holder.target is data:
            raise CannotExpress(f"`{source.code(statement)}` reads the place more than once", BY_HAND)
        if not dropout.guarded:
            _nest(edits, data, dropout)
            return
    elif not wants_statement or not (dropout.guarded or dropout.commented):
        edits.change(data, dropout.make)
        return
    if not alone:
        raise CannotExpress("the new place shares its line with other statements", BY_HAND)
    name = (whole and whole_target(statement, whole)) or temporary_name(source, statement, dropout)
    _unnest(edits, statement, data, name, dropout)


def _nest(edits: Edits, value: cst.BaseExpression, dropout: Call) -> None:
    """Put a dropout around an expression; a comment of its old statement cannot come along."""
    if dropout.statement is not None:
        edits.keep_comments(dropout.statement, end_comments(dropout.statement))
    edits.change(value, dropout.make)


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
    target, outer = whole_target(statement, value), freed(source, statement, dropout.whole)
    apart = dropout.statement is not None or dropout.guarded or dropout.new or outer is not statement
    if target is not None and apart:
        edits.insert_after(outer, dropout.on(target))
    elif outer is not statement:
        raise CannotExpress("the new place is under an `if` that it does not stand under now", BY_HAND)
    elif not dropout.guarded:
        _nest(edits, value, dropout)
    elif len(statement.body) > 1:
        raise CannotExpress("the new place shares its line with other statements", BY_HAND)
    else:
        _unnest(edits, statement, value, target or temporary_name(source, statement, dropout), dropout)


def freed(source: SourceFile, statement: Statement, whole: cst.CSTNode) -> Statement:
    """A statement, or the `if`s of its own around it that a dropout (`whole`) did not stand under before."""
    above: set[cst.CSTNode] = set()
    holder: cst.CSTNode | None = whole
    while holder is not None:
        above.add(holder)
        holder = source.parent(holder)
    while (guard := guard_of(source, statement)) is not None and guard not in above:
        statement = guard
    return statement


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
    named = {"torch", "F", "nn", own_name(source, function) or "self"} | imported(source)
    return isinstance(root, cst.Name) and root.value in named


def imported(source: SourceFile) -> set[str]:
    """Names that the file's imports bind."""
    names: set[str] = set()
    for node in nodes_in(source.module, cst.ImportAlias):
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
    stores = assigned(statement)
    if len(readings(source, statement, name)) > 1:
        return True
    if name in stores:
        return False
    if source.up(statement, (cst.For, cst.While)) is not None:
        return True
    function = source.function(statement)
    if function is None:
        return True
    end = source.range_of(statement).end.line
    named = (node for node in nodes_in(function, cst.Name) if node.value == name)
    later = sorted(
        (node for node in named if source.range_of(node).start.line > end),
        key=lambda node: (source.range_of(node).start.line, source.range_of(node).start.column),
    )
    if not later:
        return False
    return not _is_target(source, later[0])


def assigned(statement: cst.SimpleStatementLine) -> set[str]:
    """Names that a statement binds anew."""
    names = set()
    for small in statement.body:
        targets = [item.target for item in small.targets] if isinstance(small, cst.Assign) else []
        targets += [small.target] if isinstance(small, cst.AugAssign | cst.AnnAssign) else []
        names |= {target.value for target in targets if isinstance(target, cst.Name)}
    return names


def readings(source: SourceFile, node: cst.CSTNode, name: str) -> list[cst.Name]:
    """Where some code reads a variable: no targets, attributes or keywords of that name."""
    found = []
    for item in (item for item in nodes_in(node, cst.Name) if item.value == name):
        holder = source.parent(item)
        labels = isinstance(holder, cst.Attribute) and holder.attr is item
        labels = labels or (isinstance(holder, cst.Arg) and holder.keyword is item)
        if isinstance(item, cst.Name) and not labels and not _is_target(source, item):
            found.append(item)
    return found


def _is_target(source: SourceFile, node: cst.CSTNode) -> bool:
    parent = source.parent(node)
    return isinstance(parent, cst.AssignTarget | cst.AnnAssign) and parent.target is node


def temporary_name(source: SourceFile, statement: cst.SimpleStatementLine, dropout: Call) -> str:
    """A name for the dropped value: the dropout's own before a `return`, else a new one."""
    if dropout.statement is not None and isinstance(statement.body[-1], cst.Return):
        (assign,) = nodes_in(dropout.statement, cst.Assign)
        target = assign.targets[0].target
        assert isinstance(target, cst.Name)
        if [item.value for item in nodes_in(statement, cst.Name)].count(target.value) <= 1:
            return target.value
    return fresh_name(source, statement)


def fresh_name(source: SourceFile, statement: cst.CSTNode) -> str:
    """A variable name that the function does not use yet."""
    function = source.function(statement)
    used = {node.value for node in nodes_in(function, cst.Name)} if function else set()
    for name in ("out", "h", "hidden", "y", "dropped"):
        if name not in used:
            return name
    number = 1
    while f"hidden_{number}" in used:
        number += 1
    return f"hidden_{number}"
