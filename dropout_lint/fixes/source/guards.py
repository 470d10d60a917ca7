"""What must hold for code to run: its `if`s and loops, and a ratio that is 0 where they do not let it."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import libcst as cst

from dropout_lint.fixes.source.constructor import is_number
from dropout_lint.fixes.source.edits import first_argument, in_parentheses, negated
from dropout_lint.fixes.source.scopes import Binder, Reader, leaves
from dropout_lint.fixes.source.syntax import SourceFile, is_name, nodes_in


def conditions(source: SourceFile, node: cst.CSTNode) -> list[cst.BaseExpression]:
    """What holds in a function where a node runs: the tests of its `if`s, those of an `else` turned round."""
    found: list[cst.BaseExpression] = []
    child, holder = node, source.parent(node)
    while holder is not None and not isinstance(holder, (cst.FunctionDef, cst.ClassDef)):
        if isinstance(holder, (cst.If, cst.IfExp)) and child is not holder.test:
            if child is holder.orelse:
                found.append(negated(holder.test))
            else:
                found += parts(holder.test)
        child, holder = holder, source.parent(holder)
    return found


def apart(source: SourceFile, node: cst.CSTNode, other: cst.CSTNode) -> bool:
    """Whether two nodes stand in two branches of one `if`, of which one run takes one."""
    ways = []
    for start in (node, other):
        way: dict[cst.CSTNode, cst.CSTNode] = {}
        child, holder = start, source.parent(start)
        while holder is not None and not isinstance(holder, cst.FunctionDef):
            if isinstance(holder, cst.If) and child is not holder.test:
                way[holder] = child
            child, holder = holder, source.parent(holder)
        ways.append(way)
    return any(ways[1].get(choice, branch) is not branch for choice, branch in ways[0].items())


def lost_conditions(source: SourceFile, node: cst.CSTNode, other: cst.CSTNode) -> list[cst.BaseExpression]:
    """What holds where a node runs and may not hold where another does."""
    there = conditions(source, other)
    return [test for test in conditions(source, node) if not any(test.deep_equals(known) for known in there)]


def loop_names(source: SourceFile, node: cst.CSTNode, other: cst.CSTNode) -> set[str]:
    """Variables of the loops around a node that are not around another, as far as the node reads them."""
    around = set(loops(source, other))
    binder = Binder()
    for loop in loops(source, node):
        if loop not in around:
            loop.visit(binder)
    return binder.names & read_names(node, None)


def loops(source: SourceFile, node: cst.CSTNode) -> list[cst.CSTNode]:
    """The loops around a node; a comprehension stands for the `for` in it."""
    kinds = (cst.For, cst.While, cst.BaseComp)
    found = []
    holder = source.up(node, (*kinds, cst.FunctionDef))
    while holder is not None and not isinstance(holder, cst.FunctionDef):
        found.append(holder)
        holder = source.up(holder, (*kinds, cst.FunctionDef))
    return found


def may_be_skipped(source: SourceFile, node: cst.CSTNode, call: cst.CSTNode) -> list[cst.BaseExpression]:
    """What has to hold for a node and not for a call before it: its conditions, and no `return` between."""
    found = lost_conditions(source, node, call)
    function = source.function(node)
    first, last = source.range_of(call).end.line, source.range_of(node).start.line
    for item in () if function is None else source.leaving(function):
        if first < source.range_of(item).start.line < last:
            here = conditions(source, node)
            tests = lost_conditions(source, item, call)
            found += [negated(test) for test in tests if not any(test.deep_equals(known) for known in here)]
    return found


def run_together(source: SourceFile, node: cst.CSTNode, other: cst.CSTNode) -> bool:
    """Whether two nodes of one function run as often: under the same conditions, in the same loops."""
    same = source.function(node) is source.function(other) and loops(source, node) == loops(source, other)
    return same and not (lost_conditions(source, node, other) or lost_conditions(source, other, node))


def read_names(node: cst.CSTNode, call: cst.Call | None) -> set[str]:
    """Names in some code, without the data of a dropout call in it, which is another one elsewhere."""
    names = Reader.of(node)
    data = None if call is None else first_argument(call)
    return names if data is None else names - Reader.of(data)


def parts(test: cst.BaseExpression) -> list[cst.BaseExpression]:
    """The conditions that `and` joins."""
    if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.And):
        return [*parts(test.left), *parts(test.right)]
    return [test]


def asks_for(source: SourceFile, test: cst.BaseExpression, name: str) -> bool:
    """Whether a condition only asks whether the dropout was made: its constructor's own guards say that."""
    attribute = name.rpartition(".")[2]
    asked = (name, f"{name} is not None", f'hasattr(self, "{attribute}")', f"hasattr(self, '{attribute}')")
    return source.code(test) in asked


def _deciding(tests: Sequence[cst.BaseExpression], value: cst.BaseExpression) -> list[cst.BaseExpression]:
    """The conditions that neither the ratio nor another one decides: one without names held when traced."""
    found: list[cst.BaseExpression] = []
    for test in tests:
        told = any(test.deep_equals(other) for other in found) or _code(test) in positive(value)[1:]
        if leaves(test) and not told and not any(_follows(test, other) for other in tests):
            found.append(test)
    return found


def _follows(test: cst.BaseExpression, other: cst.BaseExpression) -> bool:
    """Whether `x != 1` holds since `x == 2` does: the `elif`s that ask for one value after another."""
    if not (isinstance(test, cst.Comparison) and isinstance(other, cst.Comparison)):
        return False
    (one, *more), (two, *others) = test.comparisons, other.comparisons
    signs = isinstance(one.operator, cst.NotEqual) and isinstance(two.operator, cst.Equal)
    constants = all(isinstance(item.comparator, (cst.SimpleString, cst.Integer)) for item in (one, two))
    if more or others or not signs or not constants or not test.left.deep_equals(other.left):
        return False
    return bool(ast.literal_eval(_code(one.comparator)) != ast.literal_eval(_code(two.comparator)))


def positive(value: cst.BaseExpression) -> tuple[str, ...]:
    """How one asks whether a ratio is more than 0, which a dropout with this ratio answers itself."""
    text = _code(value)
    zeros = ("0", "0.0", "0.")
    return (
        text,
        *(f"{text} {sign} {zero}" for sign in (">", "!=") for zero in zeros),
        *(f"{z} < {text}" for z in zeros),
    )


def under(
    value: cst.BaseExpression, tests: Sequence[cst.BaseExpression], function: cst.FunctionDef | None
) -> cst.BaseExpression:
    """A ratio that is 0 unless some conditions hold."""
    zero = cst.Float("0.0")
    tests = _deciding(tests, value)
    rest = [test for test in tests if not test.deep_equals(value)]
    asked = len(rest) < len(tests) and _may_be_none(value, function)
    if asked and rest:
        rest.append(value)
    elif asked:
        space = cst.SimpleWhitespace(" ")
        value = cst.BooleanOperation(in_parentheses(value), cst.Or(space, space), zero)
    if not rest:
        return value
    joined = rest[0]
    for test in rest[1:]:
        joined = cst.BooleanOperation(_operand(joined), cst.And(), _operand(test))
    return cst.IfExp(test=joined, body=value, orelse=zero)


def _operand(test: cst.BaseExpression) -> cst.BaseExpression:
    """A condition as `and` takes it."""
    loose = isinstance(test, (cst.IfExp, cst.Lambda, cst.NamedExpr)) or (
        isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.Or)
    )
    return in_parentheses(test) if loose else test


def _may_be_none(value: cst.BaseExpression, function: cst.FunctionDef | None) -> bool:
    """Whether a ratio that is asked for may be None: a number is not, nor by its annotation a parameter."""
    if not isinstance(value, cst.Name) or function is None:
        return not is_number(value)
    parameters = function.params
    for parameter in (*parameters.params, *parameters.kwonly_params):
        if parameter.name.value == value.value:
            if parameter.annotation is None:
                return True
            annotated = {name.value for name in nodes_in(parameter.annotation, cst.Name)}
            return bool({"Optional", "None"} & annotated) or is_name(parameter.default, "None")
    return False


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node)
