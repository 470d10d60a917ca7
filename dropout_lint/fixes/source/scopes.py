"""Which names code binds and reads, and what the parameters of a function are called with."""

from __future__ import annotations

import libcst as cst

from dropout_lint.fixes.source.syntax import SourceFile, is_name

WORDS = ("True", "False", "None")
PURE = ("abs", "bool", "float", "int", "max", "min", "round")
OPERATIONS = (cst.UnaryOperation, cst.BinaryOperation, cst.BooleanOperation, cst.Comparison, cst.IfExp)


def parameters_of(function: cst.FunctionDef) -> list[cst.Param]:
    """All parameters of a function that have a name."""
    params = function.params
    stars = [item for item in (params.star_arg, params.star_kwarg) if isinstance(item, cst.Param)]
    return [*params.posonly_params, *params.params, *params.kwonly_params, *stars]


def decorators(source: SourceFile, function: cst.FunctionDef) -> set[str]:
    """The decorators of a function, as they are written."""
    return {source.code(item.decorator) for item in function.decorators}


def own_name(source: SourceFile, node: cst.CSTNode) -> str | None:
    """What the method around a node calls its module, `self` as a rule; None where there is no method."""
    klass, function = source.klass(node), source.function(node)
    while function is not None and source.up(function, (cst.ClassDef, cst.FunctionDef)) is not klass:
        function = source.function(function)
    if klass is None or function is None or decorators(source, function) & {"staticmethod", "classmethod"}:
        return None
    params = [*function.params.posonly_params, *function.params.params]
    return params[0].name.value if params else None


def bindings(function: cst.FunctionDef | None) -> tuple[list[str], set[str]]:
    """The parameters of a function, and the names that its body binds in any way."""
    if function is None:
        return [], set()
    binder = Binder()
    function.body.visit(binder)
    return [item.name.value for item in parameters_of(function)], binder.names


class Binder(cst.CSTVisitor):
    """Collects every name that code binds; those of inner functions too, which is more than needed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def _bind(self, target: cst.CSTNode | None) -> None:
        if isinstance(target, cst.Name):
            self.names.add(target.value)
        elif isinstance(target, (cst.Tuple, cst.List)):
            for element in target.elements:
                self._bind(element.value)

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        self._bind(node.target)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        self._bind(node.target)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self._bind(node.target)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._bind(node.target)

    def visit_For(self, node: cst.For) -> None:
        self._bind(node.target)

    def visit_CompFor(self, node: cst.CompFor) -> None:
        self._bind(node.target)

    def visit_AsName(self, node: cst.AsName) -> None:
        self._bind(node.name)

    def visit_Param(self, node: cst.Param) -> None:
        self._bind(node.name)

    def visit_Del(self, node: cst.Del) -> None:
        self._bind(node.target)


class Reader(cst.CSTVisitor):
    """Collects the variables that code reads: no attributes, keywords or targets."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    @classmethod
    def of(cls, node: cst.CSTNode) -> set[str]:
        """The variables that a node reads."""
        reader = cls()
        node.visit(reader)
        return reader.names

    def visit_Name(self, node: cst.Name) -> None:
        self.names.add(node.value)

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        node.value.visit(self)
        return False

    def visit_Arg(self, node: cst.Arg) -> bool:
        node.value.visit(self)
        return False

    def visit_AssignTarget(self, node: cst.AssignTarget) -> bool:
        return False


def straight(function: cst.FunctionDef | None, name: str) -> cst.BaseExpression | None:
    """The value of a local variable that is assigned once, on the level of the function's own statements."""
    if function is None:
        return None
    found: list[cst.BaseExpression] = []
    for statement in function.body.body:
        for small in getattr(statement, "body", ()) if isinstance(statement, cst.SimpleStatementLine) else ():
            if isinstance(small, cst.Assign) and len(small.targets) == 1:
                target = small.targets[0].target
                if isinstance(target, cst.Name) and target.value == name:
                    found.append(small.value)
    counter = _Counter(name)
    function.body.visit(counter)
    return found[0] if len(found) == 1 and counter.count == 1 else None


class _Counter(Binder):
    """Counts how often one name is bound."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.count = 0

    def _bind(self, target: cst.CSTNode | None) -> None:
        if isinstance(target, cst.Name):
            self.count += target.value == self.name
        else:
            super()._bind(target)


def passed(
    call: cst.Call, function: cst.FunctionDef, name: str, *, method: bool
) -> cst.BaseExpression | None:
    """What a call gives a parameter, or its default; None where that cannot be told."""
    if any(argument.star for argument in call.args):
        return None
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value == name:
            return argument.value
    params = function.params
    names = [item.name.value for item in (*params.posonly_params, *params.params)][int(method) :]
    given = [argument.value for argument in call.args if argument.keyword is None]
    if name in names and names.index(name) < len(given):
        return given[names.index(name)]
    default = next((item.default for item in parameters_of(function) if item.name.value == name), None)
    return default


def enclosing(source: SourceFile, target: cst.CSTNode) -> bool:
    """Whether an expression is bound where it stands, not read."""
    holder = source.parent(target)
    if isinstance(holder, cst.Element):
        return source.up(target, cst.AssignTarget) is not None
    if isinstance(holder, cst.AssignTarget):
        return True
    return isinstance(holder, (cst.AnnAssign, cst.AugAssign)) and holder.target is target


def leaves(node: cst.CSTNode) -> list[cst.BaseExpression] | None:
    """The names and attributes of self that an expression reads; None where it does more than reckon."""
    if isinstance(node, (cst.BaseNumber, cst.BaseString)):
        return []
    if isinstance(node, cst.Name):
        return [] if node.value in WORDS else [node]
    if isinstance(node, cst.Attribute):
        return [node] if is_name(node.value, "self") else leaves(node.value)
    parts = _operands(node)
    names = [None] if parts is None else [leaves(part) for part in parts]
    if None in names:
        return None
    return [name for item in names if item is not None for name in item]


def _operands(node: cst.CSTNode) -> list[cst.BaseExpression] | None:
    """What an operation works on; None where it is none, or a call of unknown effect."""
    if isinstance(node, OPERATIONS):
        items = (
            item.comparator if isinstance(item, cst.ComparisonTarget) else item for item in node.children
        )
        return [item for item in items if isinstance(item, cst.BaseExpression)]
    if isinstance(node, cst.Subscript):
        index = [item.slice.value for item in node.slice if isinstance(item.slice, cst.Index)]
        return [node.value, *index] if len(index) == len(node.slice) else None
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in PURE:
        return [argument.value for argument in node.args]
    return None


class Replacer(cst.CSTTransformer):
    """Exchanges some nodes of an expression."""

    def __init__(self, known: dict[cst.BaseExpression, cst.BaseExpression]) -> None:
        super().__init__()
        self.known = known

    # libcst binds the two nodes' types together; any expression may stand here for any other
    def on_leave(  # type: ignore[override]  # any expression for any other
        self, original_node: cst.CSTNode, updated_node: cst.CSTNode
    ) -> cst.CSTNode:
        new = self.known.get(original_node) if isinstance(original_node, cst.BaseExpression) else None
        return updated_node if new is None else new
