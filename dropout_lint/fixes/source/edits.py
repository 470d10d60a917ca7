"""Edits on one syntax tree, collected first and applied in one pass, so that they may nest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import dropwhile
from typing import Any

import libcst as cst

from dropout_lint.fixes.source.syntax import SourceFile, Statement
from dropout_lint.fixes.source.vendor import UoutHome

Change = Callable[[Any], Any]
OPPOSITES: dict[type[cst.BaseCompOp], type[cst.BaseCompOp]] = {
    one: other
    for pair in ((cst.Is, cst.IsNot), (cst.Equal, cst.NotEqual), (cst.In, cst.NotIn))
    for one, other in (pair, pair[::-1])
}
PRAGMA = re.compile(r"#\s*(noqa|type:|pragma|pylint|fmt:|ruff:|mypy:|nosec)")


class Edits:
    """Edits of one file; Uout is imported from its `uout`.

    Nodes are those of `source.module`; each is changed after its parts were.
    """

    def __init__(self, source: SourceFile, uout: UoutHome) -> None:
        self.source = source
        self.uout = uout
        self.changes: dict[cst.CSTNode, list[Change]] = {}
        self.before: dict[cst.CSTNode, list[Statement]] = {}
        self.after: dict[cst.CSTNode, list[Statement]] = {}
        self.removed: set[cst.CSTNode] = set()
        self.maybe_idle: set[cst.CSTNode] = set()
        self.imports: set[tuple[str, str]] = set()
        self.unfolded: dict[cst.CSTNode, Change] = {}
        self.classes: set[cst.CSTNode] = set()
        self.kept: dict[cst.CSTNode, list[cst.Comment]] = {}
        self.collapsed: set[cst.CSTNode] = set()
        self.renames: list[tuple[Statement, str, cst.BaseExpression]] = []  # statements that leave `y = x`
        self.thinned: dict[cst.CSTNode, set[int]] = {}

    def __bool__(self) -> bool:
        return bool(self.changes or self.before or self.after or self.removed or self.unfolded)

    def change(self, node: cst.CSTNode, change: Change) -> None:
        """Change a node (an expression, an argument, …) by a function of its already changed self."""
        self.changes.setdefault(node, []).append(change)

    def replace(self, node: cst.CSTNode, new: cst.CSTNode) -> None:
        """Put another node in the place of one."""
        self.change(node, lambda _: new)

    def erase_call(self, call: cst.Call, whole: cst.BaseExpression) -> None:
        """Replace `drop(x, …)`, or `drop(x, …) if … else x` around it, by `x`; `x = x` goes."""
        self.change(call, bare)
        if isinstance(whole, cst.IfExp):
            first = whole.body is call
            self.change(whole, lambda updated: updated.body if first else updated.orelse)
        statement = self.source.statement(call)
        if statement is not None:
            self.maybe_idle.add(statement)

    def collapse(self, choice: cst.If) -> None:
        """Leave one of the two branches of an `if`, which are alike now."""
        self.collapsed.add(choice)

    def thin(self, statement: cst.SimpleStatementLine, assign: cst.Assign, number: int) -> None:
        """Take one target and its value out of `a, b = x, y`, which is alone in its statement."""
        taken = self.thinned.setdefault(assign, set())
        taken.add(number)
        if len(taken) == 1:
            self.change(assign, partial(_thinner, taken=taken))
        if isinstance(assign.value, cst.Tuple) and len(taken) == len(assign.value.elements):
            self.remove(statement)

    def unfold(self, statement: cst.CSTNode, change: Change) -> None:
        """Change a statement into several."""
        self.unfolded[statement] = change

    def insert_before(self, statement: cst.CSTNode, new: Statement) -> None:
        """Put a statement in front of another one."""
        self.before.setdefault(statement, []).append(new)

    def insert_after(self, statement: cst.CSTNode, new: Statement) -> None:
        """Put a statement behind another one."""
        self.after.setdefault(statement, []).append(new)

    def remove(self, statement: Statement) -> None:
        """Remove a statement; an empty line above it goes to the next statement, so that paragraphs stay, and
        one below it goes where it was the first of its block.
        """
        if statement in self.removed:
            return
        self.removed.add(statement)
        lines = statement.leading_lines
        body: Sequence[Statement] = getattr(self.source.parent(statement), "body", ())
        if len(body) > 1 and body[0] is statement:
            self.change(body[1], _without_empty_lines)
        if any(line.comment is None for line in lines):
            follower = self._follower(statement)
            if follower is not None and not follower.leading_lines:
                self.change(
                    follower, lambda node: node.with_changes(leading_lines=[cst.EmptyLine(indent=False)])
                )

    def _follower(self, statement: Statement) -> Statement | None:
        block = self.source.parent(statement)
        body = getattr(block, "body", None)
        if not isinstance(body, (list, tuple)) or statement not in body:
            return None
        position = body.index(statement) + 1
        return body[position] if position < len(body) and position > 1 else None

    def keep_comments(self, statement: cst.CSTNode, comments: Sequence[cst.Comment]) -> None:
        """Leave comments of code that goes on lines of their own; those that are for tools go with it."""
        self.kept.setdefault(statement, []).extend(
            comment for comment in comments if not PRAGMA.match(comment.value)
        )

    def _write_kept(self) -> None:
        """Put the comments that are kept above their statement, or above the next one that stays."""
        for statement, comments in self.kept.items():
            lines = [cst.EmptyLine(comment=comment) for comment in comments]
            block: Any = self.source.parent(statement)
            stays = [item for item in block.body[block.body.index(statement) :] if item not in self.removed]
            if not lines:
                continue
            if stays:
                self.change(stays[0], partial(_commented, lines=lines))
            else:
                self.change(block, partial(_footed, lines=lines))
        self.kept.clear()

    def result(self) -> str:
        """Text of the file after the edits."""
        self._write_kept()
        module = self.source.module.visit(_Applier(self))
        for package, name in sorted(self.imports):
            module = add_import(module, package, name)
        return module.code


def _thinner(assign: cst.Assign, *, taken: set[int]) -> cst.Assign:
    """`a, b = x, y` without the pairs of some numbers."""
    (target,) = assign.targets
    assert isinstance(target.target, cst.Tuple)
    assert isinstance(assign.value, cst.Tuple)
    new_target, new_value = _without(target.target, taken), _without(assign.value, taken)
    return assign.with_changes(targets=[target.with_changes(target=new_target)], value=new_value)


def _without(items: cst.Tuple, taken: set[int]) -> Any:
    """A tuple without some of its elements; of one that is left, the element."""
    left = [element for number, element in enumerate(items.elements) if number not in taken]
    if len(left) == 1:
        return left[0].value
    return items.with_changes(
        elements=[*left[:-1], left[-1].with_changes(comma=items.elements[-1].comma)]
        if left
        else items.elements
    )


class _Applier(cst.CSTTransformer):
    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self.edits = edits

    def on_leave(self, original_node: Any, updated_node: Any) -> Any:
        edits = self.edits
        result = updated_node
        for change in edits.changes.get(original_node, ()):
            result = change(result)
        if original_node in edits.maybe_idle:
            result = without_idle(original_node, result)
            if not result.body:
                edits.removed.add(original_node)
        if original_node in edits.collapsed:
            (only,) = result.body.body
            result = only.with_changes(leading_lines=result.leading_lines)
        if original_node in edits.removed:
            return self._with_neighbours(original_node, None)
        if isinstance(result, cst.If) and not result.body.body:
            if result.orelse is None:
                return self._with_neighbours(original_node, None)
            result = result.with_changes(body=passing(result.body))
        elif isinstance(result, BLOCKS) and not result.body.body:
            result = result.with_changes(body=passing(result.body))
        return self._with_neighbours(original_node, result)

    def _with_neighbours(self, original: Any, result: Any) -> Any:
        before, after = self.edits.before.get(original, []), self.edits.after.get(original, [])
        if original in self.edits.unfolded and result is not None:
            return cst.FlattenSentinel([*before, *self.edits.unfolded[original](result), *after])
        if not before and not after:
            return cst.RemovalSentinel.REMOVE if result is None else result
        if before and result is not None and result.leading_lines and not before[0].leading_lines:
            head = before[0].with_changes(
                leading_lines=[line for line in result.leading_lines if line.comment is None]
            )
            result = result.with_changes(
                leading_lines=[line for line in result.leading_lines if line.comment]
            )
            before = [head, *before[1:]]
        return cst.FlattenSentinel([*before, *([] if result is None else [result]), *after])


def passing(body: Any) -> Any:
    """A block with `pass` in it."""
    statement = cst.SimpleStatementLine([cst.Pass()])
    return body.with_changes(body=[statement] if isinstance(body, cst.IndentedBlock) else [cst.Pass()])


def _commented(statement: Any, lines: list[cst.EmptyLine]) -> Any:
    return statement.with_changes(leading_lines=[*statement.leading_lines, *lines])


def _footed(block: Any, lines: list[cst.EmptyLine]) -> Any:
    return block.with_changes(footer=[*lines, *block.footer])


def without_idle(
    original: cst.SimpleStatementLine, changed: cst.SimpleStatementLine
) -> cst.SimpleStatementLine:
    """A line without the assignments of a name to itself that the edits have made."""
    pairs = zip(original.body, changed.body, strict=True)
    kept = [new for old, new in pairs if idle(old) or not idle(new)]
    if kept and len(kept) < len(changed.body):
        kept[-1] = kept[-1].with_changes(semicolon=changed.body[-1].semicolon)
    return changed.with_changes(body=kept)


def idle(small: cst.CSTNode) -> bool:
    """Whether a small statement assigns a name to itself."""
    return (
        isinstance(small, cst.Assign)
        and len(small.targets) == 1
        and small.targets[0].target.deep_equals(small.value)
    )


def first_argument(call: cst.Call) -> cst.BaseExpression | None:
    """The data argument of a dropout call."""
    for argument in call.args:
        if argument.star == "" and (argument.keyword is None or argument.keyword.value in ("input", "x")):
            return argument.value
    return None


def bare(call: cst.Call) -> cst.BaseExpression:
    """The data argument of a dropout call as an expression that can stand in its place."""
    value = first_argument(call)
    if value is None:
        return call
    return in_parentheses(value)


BLOCKS = (cst.For, cst.While, cst.With, cst.Else, cst.FunctionDef, cst.ClassDef)
ATOMS = (
    cst.Name,
    cst.Attribute,
    cst.Call,
    cst.Subscript,
    cst.BaseNumber,
    cst.BaseString,
    cst.List,
    cst.Dict,
    cst.Tuple,
)


def in_parentheses(value: cst.BaseExpression) -> cst.BaseExpression:
    """An expression with parentheses where an operand needs them."""
    if isinstance(value, ATOMS) or value.lpar:
        return value
    return value.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _without_empty_lines(statement: Statement) -> Statement:
    """A statement without the empty lines above it and above its comments."""
    lines = list(dropwhile(lambda line: line.comment is None, statement.leading_lines))
    changed: Statement = statement.with_changes(leading_lines=lines)
    return changed


def negated(test: cst.BaseExpression) -> cst.BaseExpression:
    """A condition turned round, as one writes it: `x is not None` for `x is None`."""
    if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
        return test.expression
    if isinstance(test, cst.Comparison) and len(test.comparisons) == 1:
        (target,) = test.comparisons
        turned = OPPOSITES.get(type(target.operator))
        if turned is not None:
            return test.with_changes(comparisons=[target.with_changes(operator=turned())])
    return cst.UnaryOperation(cst.Not(), in_parentheses(test))


def add_import(module: cst.Module, package: str, name: str) -> cst.Module:
    """Add `from package import name` among the imports at the top of a module, if it is not there.

    It goes before the first `from …` of the last group that sorts behind it, else behind the last import.
    """
    group: list[int] = []
    for position, statement in enumerate(module.body):
        if not isinstance(statement, cst.SimpleStatementLine):
            continue
        for small in statement.body:
            if isinstance(small, cst.ImportFrom) and _source_of(module, small) == package:
                names = () if isinstance(small.names, cst.ImportStar) else small.names
                if any(alias.evaluated_name == name and alias.asname is None for alias in names):
                    return module
            if isinstance(small, (cst.Import, cst.ImportFrom)):
                apart = bool(statement.leading_lines) or (group and group[-1] != position - 1)
                group = [position] if apart else [*group, position]
    new: Any = cst.parse_statement(f"from {package} import {name}", config=module.config_for_parsing)
    body = list(module.body)
    if not group:
        start = 1 if body and is_docstring(body[0]) else 0
        body.insert(start, new)
        return module.with_changes(body=body)
    for position in group:
        statement = body[position]
        assert isinstance(statement, cst.SimpleStatementLine)
        small = statement.body[0]
        if isinstance(small, cst.ImportFrom) and _source_of(module, small) > package:
            first: Any = body[position]
            if first.leading_lines:
                new = new.with_changes(leading_lines=first.leading_lines)
                body[position] = first.with_changes(leading_lines=[])
            body.insert(position, new)
            return module.with_changes(body=body)
    body.insert(group[-1] + 1, new)
    return module.with_changes(body=body)


def _source_of(module: cst.Module, statement: cst.ImportFrom) -> str:
    dots = "." * len(statement.relative)
    return dots if statement.module is None else dots + module.code_for_node(statement.module)


def is_docstring(statement: cst.CSTNode) -> bool:
    """Whether a statement is a bare string."""
    return (
        isinstance(statement, cst.SimpleStatementLine)
        and len(statement.body) == 1
        and isinstance(statement.body[0], cst.Expr)
        and isinstance(statement.body[0].value, (cst.SimpleString, cst.ConcatenatedString))
    )
