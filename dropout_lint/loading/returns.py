"""What a function's source says of what it returns: a module, something else, or nobody can tell."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from enum import IntEnum

from dropout_lint.loading.naming import calls_builder

Function = ast.FunctionDef | ast.Lambda


class May(IntEnum):
    """Whether something is a module."""

    NOT = 0
    PERHAPS = 1  # only calling it would tell
    LIKELY = 2  # it comes from something that is named like a builder of models
    SURELY = 3


Judge = Callable[[ast.expr], May]
"""Says of an expression whose names are those of the file, not of the function, what it is."""

# methods that give the module that they are called on
_SELF = {
    "eval", "train", "to", "cuda", "cpu", "half", "float", "double", "bfloat16", "apply", "requires_grad_",
    "share_memory", "xpu",
}  # fmt: skip
_WRAPPERS = {"compile", "script"}
_VALUES = (
    ast.Constant, ast.JoinedStr, ast.Compare, ast.BinOp, ast.UnaryOp, ast.Dict, ast.Set, ast.ListComp,
    ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.Await,
)  # fmt: skip


def what_returns(function: Function, judge: Judge, given: May = May.NOT) -> May:
    """The best that any of a function's returns can be; it may come in a tuple, or by a name.

    Args:
        function: its source.
        judge: what is known of the names of its file.
        given: what its parameters without a default are. What a caller has to give is the caller's model, not
            one that is built here.
    """
    body = _Body(function, judge, given)
    if isinstance(function, ast.Lambda):
        return body.value(function.body)
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in body.nodes):
        return May.NOT
    returned = [node.value for node in body.nodes if isinstance(node, ast.Return) and node.value is not None]
    return max((body.value(value) for value in returned), default=May.NOT)


def of_unknown_call(called: str) -> May:
    """What a call gives that only its dotted name tells of."""
    return May.LIKELY if calls_builder(called) else May.PERHAPS


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body; functions and classes inside are named, and not gone into."""
    todo: list[ast.AST] = [function.body] if isinstance(function, ast.Lambda) else [*function.body]
    while todo:
        node = todo.pop(0)
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)


class _Body:
    """A function's own names, and what its expressions are by them.

    `bound` holds each name with what it is assigned; None stands for what is not known.
    """

    def __init__(self, function: Function, judge: Judge, required: May) -> None:
        self.judge = judge
        self.required = required
        self.nodes = list(own_nodes(function))
        self.bound: dict[str, list[ast.expr | None]] = {}
        self.given = _defaults(function)
        for node in self.nodes:
            for name, value in _bindings(node):
                self.bound.setdefault(name, []).append(value)

    def value(self, node: ast.expr, seen: frozenset[str] = frozenset()) -> May:
        """What an expression is."""
        if isinstance(node, ast.Name):
            return self._name(node, seen)
        if isinstance(node, ast.Call):
            return self._call(node, seen)
        if isinstance(node, ast.Attribute) and not self._is_own(node):
            return self.judge(node)
        parts = _one_of(node)
        if parts is None:
            return May.NOT if isinstance(node, _VALUES) else May.PERHAPS
        return max((self.value(item, seen) for item in parts), default=May.NOT)

    def _name(self, node: ast.Name, seen: frozenset[str]) -> May:
        if node.id in seen:
            return May.NOT
        if not self._is_own(node):
            return self.judge(node)
        found = [
            May.PERHAPS if item is None else self.value(item, seen | {node.id})
            for item in self.bound.get(node.id, ())
        ]
        if node.id in self.given:
            default = self.given[node.id]
            found.append(self.required if default is None else self.value(default, seen | {node.id}))
        return max(found, default=May.NOT)

    def _call(self, node: ast.Call, seen: frozenset[str]) -> May:
        found = self._called(node, seen)
        handed = max((self.value(item, seen) for item in node.args), default=May.NOT)
        if isinstance(node.func, ast.Attribute) and node.func.attr in _WRAPPERS:
            return max(found, handed)
        # a function of a model that may well give it back: `loaded(Net())`
        return May.LIKELY if found is May.PERHAPS and handed is May.SURELY else found

    def _called(self, node: ast.Call, seen: frozenset[str]) -> May:
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr in _SELF:
            on = self.value(called.value, seen)
            if on is not May.PERHAPS:
                return on
        if isinstance(called, ast.Call):
            return _looked_up_by_name(called)
        if self._is_own(called):
            return self._own_call(called, node, seen)
        return self.judge(node)

    def _own_call(self, called: ast.expr, node: ast.Call, seen: frozenset[str]) -> May:
        unknown = of_unknown_call(ast.unparse(called)) if _is_dotted(called) else May.PERHAPS
        if isinstance(called, ast.Name) and called.id not in seen:
            values = [*self.bound.get(called.id, ()), self.given.get(called.id)]
            known = [value for value in values if isinstance(value, (ast.Name, ast.Attribute))]
            through = [
                self._call(ast.Call(value, node.args, node.keywords), seen | {called.id}) for value in known
            ]
            return max(through, default=unknown)
        if isinstance(called, ast.Subscript) and isinstance(called.value, ast.Name):
            tables = [item for item in self.bound.get(called.value.id, ()) if isinstance(item, ast.Dict)]
            built = [
                self.value(ast.Call(value, node.args, node.keywords), seen)
                for table in tables
                for value in table.values
                if isinstance(value, (ast.Name, ast.Attribute))
            ]
            return max(built, default=unknown)
        if isinstance(called, ast.Attribute) and unknown is May.PERHAPS:
            # what a value that is no module has as methods gives none either, if not by name
            on = self.value(called.value, seen)
            return May.NOT if on is May.NOT else May.PERHAPS
        return unknown

    def _is_own(self, node: ast.expr) -> bool:
        while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
            node = node.func if isinstance(node, ast.Call) else node.value
        return isinstance(node, ast.Name) and (node.id in self.bound or node.id in self.given)


def _one_of(node: ast.expr) -> list[ast.expr] | None:
    """The parts of an expression that it is one of, or holds; None where it has no such parts."""
    if isinstance(node, (ast.Tuple, ast.List)):
        return node.elts
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.BoolOp):
        return node.values
    return [node.value] if isinstance(node, (ast.NamedExpr, ast.Starred)) else None


def _looked_up_by_name(called: ast.Call) -> May:
    """What `getattr(models, name)(…)` gives: it depends on what the name is looked up in."""
    if isinstance(called.func, ast.Name) and called.func.id == "getattr" and called.args:
        return of_unknown_call(f"{ast.unparse(called.args[0])}._")
    return May.PERHAPS


def _is_dotted(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _defaults(function: Function) -> dict[str, ast.expr | None]:
    """A function's parameters, each with its default; None where it has none."""
    given = function.args
    places = [*given.posonlyargs, *given.args]
    pairs: list[tuple[ast.arg, ast.expr | None]] = [(item, None) for item in places]
    first = len(places) - len(given.defaults)
    pairs[first:] = zip(places[first:], given.defaults, strict=True)
    pairs += zip(given.kwonlyargs, given.kw_defaults, strict=True)
    pairs += [(item, None) for item in (given.vararg, given.kwarg) if item is not None]
    return {item.arg: default for item, default in pairs}


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """The names that a statement or `:=` binds, each with its value, None where that is not known."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _bound(target, node.value)
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
        yield from _bound(node.target, node.value)
    elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
        yield from _bound(node.target, None)
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield from _bound(node.optional_vars, None)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0], None
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name, None


def _bound(target: ast.expr, value: ast.expr | None) -> Iterator[tuple[str, ast.expr | None]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Starred):
        yield from _bound(target.value, None)
    elif isinstance(target, (ast.Tuple, ast.List)):
        values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
        matched = len(values) == len(target.elts)
        for index, item in enumerate(target.elts):
            yield from _bound(item, values[index] if matched else None)
