"""The ratio of a dropout as an expression that another function can evaluate, with what guards it.

A ratio is followed to where it comes from: an attribute to its assignment in `__init__`, a parameter to the
argument that it is called with, a local variable to its value. It is found where it can be written when all
its names are parameters of the function that constructs the dropout anew, or constants of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose
from typing import Literal

import libcst as cst

from dropout_lint.fixes.graph.dropmodules import CLASSES
from dropout_lint.fixes.modules import module_at
from dropout_lint.fixes.source.constructor import init_of, is_number, number, ratio_argument
from dropout_lint.fixes.source.edits import in_parentheses
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.functional import ratio_of_call
from dropout_lint.fixes.source.guards import (
    asks_for,
    conditions,
    loop_names,
    lost_conditions,
    read_names,
    under,
)
from dropout_lint.fixes.source.locate import Sources
from dropout_lint.fixes.source.places import Old
from dropout_lint.fixes.source.scopes import Replacer, bindings, enclosing, leaves, passed, straight
from dropout_lint.fixes.source.syntax import SourceFile, is_own, nodes_in
from dropout_lint.trace.traced import DropoutSite
from dropout_lint.words import listed

DEPTH = 12  # assignments and calls that one name is followed through
ADVICE = "hand the ratio down to where the dropout should be, or use `dropout_lint.fix(model, inputs)`"


@dataclass(frozen=True)
class Scope:
    """Where an expression stands.

    Attributes:
        source: the file.
        function: the function, None at the top of the file.
        owner: qualified name of the module that `self` is, or that the function makes.
    """

    source: SourceFile
    function: cst.FunctionDef | None
    owner: str


@dataclass(frozen=True)
class Rate:
    """A ratio at its new place.

    Attributes:
        value: the expression; it is 0 where a guard of the old place does not hold.
        was: the source of the ratio at the old place, "" where that was a number.
        constant: the expression is a number.
    """

    value: cst.BaseExpression
    was: str
    constant: bool


class Rates:
    """Carries ratios from one function to another.

    Args:
        sources: the user's files, and the trace of the model that was linted.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.model = sources.trace.model

    def carried(self, old: Old, target: Scope) -> Rate:
        """The ratio of a dropout, and whether it drops at all, as an expression of another function.

        Raises:
            CannotExpress: the ratio or a condition of the old place cannot be evaluated there.
        """
        rate = self.ratio(old, target)
        tests = self._conditions(old, self._ratio(old)[1], target)
        value = under(rate.value, tests, target.function)
        return Rate(value, rate.was, is_number(value))

    def ratio(self, old: Old, target: Scope) -> Rate:
        """The ratio of a dropout as an expression of another function.

        Raises:
            CannotExpress: it cannot be evaluated there.
        """
        site = old.site
        ratio, scope = self._ratio(old)
        here = number(site.spec.p)
        was = "" if ratio is None or is_number(ratio) else scope.source.code(ratio)
        value = here if ratio is None or is_number(ratio) else self._express(ratio, scope, target)
        if isinstance(value, (cst.Float, cst.Integer)) and not isclose(value.evaluated_value, site.spec.p):
            raise CannotExpress(f"{site.name} got its ratio {site.spec.p:g} after it was made", ADVICE)
        return Rate(value, was, is_number(value))

    # moving as it is

    def fits(self, old: Old, node: cst.CSTNode) -> bool:
        """Whether a constructor can move as it is to another line of its function."""
        source = old.source
        if source.function(old.call) is not source.function(node):
            return False
        return not lost_conditions(source, old.call, node) and not loop_names(source, old.call, node)

    @staticmethod
    def check_names(old: Old, whole: cst.CSTNode, node: cst.CSTNode) -> None:
        """Refuse to move a call (with its guards, `whole`) to where its arguments mean something else.

        Raises:
            CannotExpress: an argument or guard reads a loop's variable, or another method's.
        """
        source = old.source
        names = read_names(whole, old.call)
        if source.function(whole) is source.function(node):
            local = names & loop_names(source, whole, node)
        else:
            parameters, bound = bindings(source.function(whole))
            local = names & ({*parameters, *bound} - {"self"})
        if local:
            raise CannotExpress(
                f"{listed(sorted(local))} of the call is not the same at the new place", ADVICE
            )

    # what is to be carried

    def _ratio(self, old: Old) -> tuple[cst.BaseExpression | None, Scope]:
        """The old ratio and where it stands; None where nothing is given.

        Raises:
            CannotExpress: it is handed in with `**kwargs`, or to a class that may take something else.
        """
        source, call, made = self._maker(old.site, old)
        argument = ratio_argument(call) if made else ratio_of_call(call)
        if argument is None and any(item.star for item in call.args):
            raise CannotExpress(f"the ratio of {old.site.name} comes from `**kwargs`", ADVICE)
        ratio = None if argument is None else argument.value
        name = old.site.module
        known = name is None or type(module_at(self.model, name)).__name__ in (*CLASSES, "Uout")
        if not (known or ratio is None or is_number(ratio)):  # it may be a keep probability
            kind = old.site.spec.kind
            raise CannotExpress(f"what a {kind} makes of `{source.code(ratio)}` is not known", ADVICE)
        inside = old.site.owner if name is None else name.rpartition(".")[0]
        return ratio, self.scope(source, call, inside)

    def _maker(self, site: DropoutSite, old: Old) -> tuple[SourceFile, cst.Call, bool]:
        """The call that holds the ratio, and whether it constructs a module."""
        if site.functional or site.module is None:
            made = old.call.func
            return old.source, made if isinstance(made, cst.Call) else old.call, isinstance(made, cst.Call)
        source, call = self.sources.construction(site.module)
        return source, call, True

    def _conditions(self, old: Old, scope: Scope, target: Scope) -> list[cst.BaseExpression]:
        """What must hold for the old dropout to drop, at its construction and at its call.

        Raises:
            CannotExpress: a condition cannot be evaluated in the target.
        """
        source, made, _ = self._maker(old.site, old)
        found = [(test, source, scope) for test in conditions(source, made)]
        if made is not old.call and old.holder is None and old.call.func is not made:
            here = self.scope(old.source, old.call, old.site.owner)
            name = old.source.code(old.call.func)
            found += [
                (test, old.source, here)
                for test in conditions(old.source, old.call)
                if not asks_for(old.source, test, name)
            ]
        tests = []
        for test, file, where in found:
            if file.code(test) != "self.training":  # a module follows the mode by itself
                tests.append(self._express(test, where, target))
        return tests

    # from one function to another

    def scope(self, source: SourceFile, node: cst.CSTNode, inside: str) -> Scope:
        """Where a node stands; `inside` is the module that its code runs for, or one below that."""
        klass = source.klass(node)
        owner = inside
        while klass is not None and owner and not self._is(owner, klass):
            owner = owner.rpartition(".")[0]
        return Scope(source, source.function(node), owner)

    def _is(self, owner: str, klass: cst.ClassDef) -> bool:
        return klass.name.value in {base.__name__ for base in type(module_at(self.model, owner)).__mro__}

    def _express(
        self, node: cst.BaseExpression, scope: Scope, target: Scope, depth: int = 0
    ) -> cst.BaseExpression:
        """An expression of one scope as one of another.

        Raises:
            CannotExpress: it has a name that the target cannot know.
        """
        refused = CannotExpress(
            f"`{scope.source.code(node)}` cannot be evaluated where the dropout should be", ADVICE
        )
        names = leaves(node)
        if names is None or depth > DEPTH:
            raise refused
        known = {}
        for name in names:
            value = self._leaf(name, scope, target, depth)
            if value is None:
                raise refused
            known[name] = value if name is node else in_parentheses(value)
        result = node.visit(Replacer(known))
        assert isinstance(result, cst.BaseExpression)
        return result

    def _leaf(
        self, name: cst.BaseExpression, scope: Scope, target: Scope, depth: int
    ) -> cst.BaseExpression | None:
        """The value of a name or of an attribute of self in the target, None where that cannot be told."""
        if isinstance(name, cst.Attribute):
            found = self._assigned(name.attr.value, scope)
            return None if found is None else self._express(*found, target, depth + 1)
        assert isinstance(name, cst.Name)
        match self._kind(name.value, scope):
            case "parameter":
                return self._parameter(name, scope, target, depth)
            case "local":
                value = straight(scope.function, name.value)
                return None if value is None else self._express(value, scope, target, depth + 1)
            case "global" if scope.source is target.source and self._kind(name.value, target) == "global":
                return name
        return None

    @staticmethod
    def _kind(name: str, scope: Scope) -> Literal["parameter", "local", "global", ""]:
        parameters, bound = bindings(scope.function)
        if name in bound:
            return "" if name in parameters else "local"
        if name in parameters:
            return "parameter"
        # a name of a function around this one is neither
        return "global" if name in scope.source.constants else ""

    def _parameter(
        self, name: cst.Name, scope: Scope, target: Scope, depth: int
    ) -> cst.BaseExpression | None:
        if scope.function is target.function:
            return name
        twin = self._twin(name.value, scope, target)
        if twin is not None:
            return twin
        values = [
            self._express(value, where, target, depth + 1) for value, where in self._given(name.value, scope)
        ]
        if not values or any(not value.deep_equals(values[0]) for value in values):
            return None
        return values[0]

    def _twin(self, name: str, scope: Scope, target: Scope) -> cst.Name | None:
        """The parameter of the target that gets the same as a parameter of the scope."""
        wanted = self._origins(name, scope)
        parameters, bound = bindings(target.function)
        for other in parameters:
            if other not in bound and wanted & self._origins(other, target):
                return cst.Name(other)
        return None

    def _origins(self, name: str, scope: Scope) -> set[tuple[int, str, str]]:
        """The parameters that a parameter is handed on from, as they are."""
        found: set[tuple[int, str, str]] = set()
        for _ in range(DEPTH):
            if scope.function is None or self._kind(name, scope) != "parameter":
                break
            found.add((id(scope.function), scope.owner, name))
            given = self._given(name, scope)
            if len(given) != 1 or not isinstance(given[0][0], cst.Name):
                break
            name, scope = given[0][0].value, given[0][1]
        return found

    def _given(self, name: str, scope: Scope) -> list[tuple[cst.BaseExpression, Scope]]:
        """What a parameter is called with, and where; the model's own arguments are the user's to give."""
        function, source = scope.function, scope.source
        assert function is not None
        calls: list[tuple[SourceFile, cst.Call, str]]
        klass = source.klass(function)
        if function.name.value == "__init__" and klass is not None:
            if not scope.owner or not self._inits(scope.owner, klass):
                return []
            try:
                calls = [(*self.sources.construction(scope.owner), scope.owner.rpartition(".")[0])]
            except CannotExpress:
                return []
        else:
            wanted = (function.name.value, f"self.{function.name.value}")
            calls = [(source, call, scope.owner) for call in source.calls if source.code(call.func) in wanted]
        found = []
        for file, call, inside in calls:
            value = passed(call, function, name, method=klass is not None)
            if value is None:
                return []
            default = value not in {argument.value for argument in call.args}
            found.append((value, Scope(source, None, "") if default else self.scope(file, call, inside)))
        return found

    def _inits(self, owner: str, klass: cst.ClassDef) -> bool:
        """Whether a module is initialised by the `__init__` of this class first."""
        bases = type(module_at(self.model, owner)).__mro__
        return next(base for base in bases if "__init__" in vars(base)).__name__ == klass.name.value

    def _assigned(self, name: str, scope: Scope) -> tuple[cst.BaseExpression, Scope] | None:
        """The only value that an attribute of self is given in the classes of the module, and where."""
        found: list[tuple[cst.BaseExpression | None, Scope]] = []
        for klass in nodes_in(scope.source.module, cst.ClassDef):
            if not self._is(scope.owner, klass):
                continue
            for target in (node for node in nodes_in(klass, cst.Attribute) if is_own(node, name)):
                holder = scope.source.parent(target)
                if isinstance(holder, (cst.Attribute, cst.Subscript)) or not enclosing(scope.source, target):
                    continue
                statement = scope.source.statement(target)
                init = init_of(klass)
                plain = (
                    init is not None and scope.source.parent(statement) is init.body if statement else False
                )
                value = scope.source.parent(holder) if holder is not None else None
                given = value.value if plain and isinstance(value, cst.Assign) else None
                found.append((given, Scope(scope.source, init, scope.owner)))
        if len(found) != 1 or found[0][0] is None:
            return None
        return found[0][0], found[0][1]
