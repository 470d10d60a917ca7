"""Take a dropout call out of a function, with all that has nothing left to do without it."""

from __future__ import annotations

import libcst as cst

from dropout_lint.fixes.source.edits import Edits, first_argument
from dropout_lint.fixes.source.forward import (
    assigned,
    call_of,
    choice_between,
    choice_of,
    comments_in,
    end_comments,
    is_drop_statement,
    lives_on,
    readings,
    whole_target,
    without,
    without_value,
)
from dropout_lint.fixes.source.scopes import Reader
from dropout_lint.fixes.source.syntax import SourceFile, Statement, nodes_in


def erase(edits: Edits, call: cst.Call, *, moved: bool) -> None:
    """Take a dropout call out of a function; a guard that has nothing left goes with it.

    A comment on a line of its own above a statement goes with it. One behind the statement moves with it
    (`moved`); where nothing moves it stays, on a line of its own. So does one inside of a nested call.
    """
    source = edits.source
    found, statement = call_of(source, call), source.statement(call)
    if found.statement is not None and not _renames(found.statement, call):
        edits.remove(found.statement)
        if not moved:
            edits.keep_comments(found.statement, end_comments(found.statement))
        return
    value = choice_of(source, call)
    edits.erase_call(call, value)
    if statement is None:
        return
    bare_call = call.with_changes(args=[without_value(item) for item in call.args], lpar=[], rpar=[])
    edits.keep_comments(statement, comments_in(bare_call))
    left: Statement | None = statement
    choice = choice_between(source, statement, call)
    if choice is not None:
        left = choice
        edits.collapse(choice)
        if not moved:
            edits.keep_comments(choice, comments_in(choice.body.children[0]))
    elif found.statement is not None and found.statement is not statement:
        left = _default(source, found.statement, statement, call)
        if left is not None:
            edits.remove(found.statement)
    if left is not None and is_drop_statement(statement, call, value):
        name, data = whole_target(statement, value), first_argument(call)
        assert name is not None and data is not None
        edits.renames.append((left, name, data))


def _default(
    source: SourceFile, guard: Statement, statement: cst.SimpleStatementLine, call: cst.Call
) -> cst.SimpleStatementLine | None:
    """The line `y = x` right before an `if` that holds `y = drop(x)` alone."""
    block = source.parent(guard)
    body = block.body if isinstance(block, cst.IndentedBlock) else ()
    before = body[body.index(guard) - 1] if guard in body[1:] else None
    if isinstance(before, cst.SimpleStatementLine) and without(statement, call, before):
        return before
    return None


def pass_on(edits: Edits) -> None:
    """Where `y = drop(x)` would leave `y = x`, for a y that one statement alone reads, that reads x.

    Called once everything is erased.
    """
    source = edits.source
    for whole, name, data in edits.renames:
        reader = _reader(edits, whole, name, data)
        if reader is None or len(reader.body) > 1:
            continue
        uses = readings(source, reader, name)
        if (
            len(uses) == 1
            and uses[0] not in edits.changes
            and isinstance(reader.body[0], (cst.Assign, cst.Return))
            and not lives_on(source, reader, name)
            and not (whole in edits.after or reader in edits.before or nodes_in(whole, cst.Comment))
        ):
            edits.replace(uses[0], data)
            edits.remove(whole)


def _reader(
    edits: Edits, whole: Statement, name: str, data: cst.BaseExpression
) -> cst.SimpleStatementLine | None:
    """The first statement behind one that has to do with a name, or binds what stands for it anew."""
    block = edits.source.parent(whole)
    body = block.body if isinstance(block, cst.IndentedBlock) else ()
    behind = [item for item in body[body.index(whole) + 1 :] if item not in edits.removed]
    for item in behind:
        if not isinstance(item, cst.SimpleStatementLine):
            return None
        beside = item in edits.before or item in edits.after
        bound = assigned(item) & {name, *Reader.of(data)}
        if readings(edits.source, item, name) or bound or beside or not isinstance(data, cst.Name):
            return item
    return None


def _renames(statement: Statement, call: cst.Call) -> bool:
    """Whether the assignment binds another name than the one it reads: `y = drop(x)`."""
    (assign,) = nodes_in(statement, cst.Assign)
    data = first_argument(call)
    return data is None or not data.deep_equals(assign.targets[0].target)
