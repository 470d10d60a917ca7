"""Edits where a dropout is constructed: swap the class, lower the ratio, add an attribute, take one away."""

from __future__ import annotations

import re
from typing import Any

import libcst as cst

from dropout_lint.fixes.source.edits import Edits, is_docstring
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.forward import imported
from dropout_lint.fixes.source.syntax import SourceFile, is_name, nodes_in
from dropout_lint.layers import DropoutSpec


def ratio_argument(call: cst.Call) -> cst.Arg | None:
    """The argument of a dropout's constructor that holds its ratio."""
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value in ("p", "beta", "drop_prob", "alpha"):
            return argument
    first = call.args[0] if call.args else None
    return first if first is not None and first.keyword is None and first.star == "" else None


def number(value: float) -> cst.BaseExpression:
    """A number as one writes it."""
    return cst.parse_expression(f"{value:g}")


def is_number(node: cst.BaseExpression) -> bool:
    """Whether an expression is a literal number."""
    return isinstance(node, (cst.Float, cst.Integer))


def swap_for_uout(edits: Edits, call: cst.Call, beta: float, spec: DropoutSpec) -> None:
    """`nn.Dropout(p)` → `Uout(beta)`; where p is an argument, p = 0 still means no noise."""
    argument = ratio_argument(call)
    value = number(beta) if argument is None else switched(argument.value, beta)
    edits.replace(call, new_dropout(edits, "Uout", value, spec))


def switched(old: cst.BaseExpression, value: float) -> cst.BaseExpression:
    """`value` where the old ratio is more than 0."""
    if is_number(old):
        return number(value)
    test = old.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()]) if _is_choice(old) else old
    return cst.IfExp(test=test, body=number(value), orelse=cst.Float("0.0"))


def _is_choice(node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.IfExp) and not node.lpar


def lower_ratio(call: cst.Call, value: float) -> cst.Call:
    """`nn.Dropout(0.5)` → `nn.Dropout(0.03)`.

    Raises:
        CannotExpress: today's ratio is no number that stands there.
    """
    return with_lower(call, ratio_argument(call), value, cst.Arg(number(value)))


def with_lower(call: cst.Call, argument: cst.Arg | None, value: float, new: cst.Arg) -> cst.Call:
    """A call with a lower number in the argument that holds the ratio, or with a new one where none does.

    Raises:
        CannotExpress: today's ratio is no number that stands there.
    """
    if argument is not None:
        return call.with_deep_changes(argument, value=lowered(argument.value, value))
    if any(item.star for item in call.args):
        raise CannotExpress("its ratio comes from `**kwargs`", "lower it where these are made")
    return call.with_changes(args=[*call.args, new] if new.keyword else [new, *call.args])


def lowered(old: cst.BaseExpression, value: float) -> cst.BaseExpression:
    """A lower ratio, where today's is a number that stands there.

    Raises:
        CannotExpress: it is an argument or a setting, which would be capped without a word.
    """
    if not is_number(old):
        raise CannotExpress(
            f"its ratio is `{cst.Module([]).code_for_node(old)}`, which is yours to lower",
            f"hand it a ratio of at most {value:g}",
        )
    return number(value)


def without_inplace(call: cst.Call) -> cst.Call:
    """A dropout constructor or call that does not overwrite its input."""
    last = call.func.attr if isinstance(call.func, cst.Attribute) else call.func
    position = 1 if isinstance(last, cst.Name) and re.match("[A-Z]", last.value) else 3
    kept = [
        argument
        for index, argument in enumerate(call.args)
        if not (argument.keyword is not None and argument.keyword.value == "inplace")
        and not (argument.keyword is None and index == position)
    ]
    if len(kept) == len(call.args):
        return call
    if kept:
        kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
    return call.with_changes(args=kept)


def rename_class(edits: Edits, call: cst.Call, kind: str) -> cst.Call:
    """`nn.Dropout2d(p)` → `nn.Dropout(p)`; a bare name that the file does not import is written in full."""
    if isinstance(call.func, cst.Attribute):
        return call.with_changes(func=call.func.with_changes(attr=cst.Name(kind)))
    known = kind in imported(edits.source)
    return call.with_changes(func=cst.parse_expression(kind if known else f"{nn_prefix(edits)}.{kind}"))


def nn_prefix(edits: Edits) -> str:
    """How the file writes `torch.nn`; imports it where it does not."""
    names = imported(edits.source)
    if "nn" in names:
        return "nn"
    if "torch" in names:
        return "torch.nn"
    edits.imports.add(("torch", "nn"))
    return "nn"


def new_dropout(edits: Edits, kind: str, value: cst.BaseExpression, spec: DropoutSpec) -> cst.Call:
    """`nn.Dropout(p)`, or `Uout(beta)`, which draws by channel where `spec` did."""
    if kind == "Uout":
        edits.imports.add((edits.uout.package(edits.source.path), "Uout"))
        words = "Uout(0, channelwise=True)" if spec.by_channel else "Uout(0)"
        made = cst.ensure_type(cst.parse_expression(words), cst.Call)
        return made.with_changes(args=[made.args[0].with_changes(value=value), *made.args[1:]])
    return cst.Call(cst.parse_expression(f"{nn_prefix(edits)}.{kind}"), [cst.Arg(value)])


def init_of(klass: cst.ClassDef) -> cst.FunctionDef | None:
    """The `__init__` of a class, None where it has none of its own."""
    for statement in klass.body.body:
        if isinstance(statement, cst.FunctionDef) and statement.name.value == "__init__":
            return statement
    return None


def new_init(source: SourceFile, klass: cst.ClassDef, attribute: cst.SimpleStatementLine) -> cst.FunctionDef:
    """An `__init__` for a class that inherits its own, handing on what the base class takes."""
    bases = {source.code(base.value) for base in klass.bases}
    known = [node for node in nodes_in(source.module, cst.ClassDef) if node.name.value in bases]
    inherited = next((init for base in known if (init := init_of(base)) is not None), None)
    plain = (
        inherited is not None and len(inherited.params.params) == 1 and inherited.params.star_kwarg is None
    )
    typed = inherited is not None and inherited.returns is not None
    taken = "self" if plain else "self, *args, **kwargs"
    handed = "" if plain else "*args, **kwargs"
    text = f"def __init__({taken}){' -> None' if typed else ''}:\n    super().__init__({handed})\n"
    made = cst.parse_statement(text, config=source.module.config_for_parsing)
    assert isinstance(made, cst.FunctionDef)
    body = made.body.with_changes(body=[*made.body.body, attribute])
    return made.with_changes(body=body)


def free_attribute(source: SourceFile, klass: cst.ClassDef, wish: str, taken: set[str]) -> str:
    """`wish`, or `wish_1`, …: the first attribute that the class does not mention."""
    used = {node.attr.value for node in nodes_in(klass, cst.Attribute)} | taken
    name, count = wish, 0
    while name in used:
        count += 1
        name = f"{wish}_{count}"
    return name


def add_attribute(
    edits: Edits, klass: cst.ClassDef, name: str, value: cst.BaseExpression, near: cst.Call | None
) -> None:
    """`self.name = value` in `__init__`, before the layer `near` if that is made there, else at its end."""
    source = edits.source
    init = init_of(klass)
    target = cst.Attribute(cst.Name("self"), cst.Name(name))
    statement = cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(target)], value)])
    if init is None:
        first: Any = next((item for item in klass.body.body if not is_docstring(item)), None)
        if not isinstance(klass.body, cst.IndentedBlock) or first is None or klass in edits.classes:
            raise CannotExpress(
                f"class {klass.name.value} has no __init__ of its own that a dropout could be added to",
                "give it one, with `super().__init__(…)` and the dropout",
            )
        edits.classes.add(klass)
        new = new_init(source, klass, statement)
        edits.insert_before(first, new.with_changes(leading_lines=first.leading_lines))
        if not first.leading_lines:
            blank = [cst.EmptyLine(indent=False)]
            edits.change(first, lambda node: node.with_changes(leading_lines=blank))
        return
    place = source.statement(near) if near is not None else None
    if place is not None and source.function(place) is init and source.parent(place) is init.body:
        edits.insert_before(place, statement)
    elif isinstance(init.body, cst.IndentedBlock):
        edits.insert_after(init.body.body[-1], statement)
    else:
        raise CannotExpress("its __init__ is written on one line", "add the dropout by hand")


def drop_attribute(edits: Edits, call: cst.Call, uses_left: int) -> bool:
    """Take away `self.drop = nn.Dropout(p)` if nothing uses it any more; False where it has to stay."""
    statement = edits.source.statement(call)
    if uses_left or statement is None or len(statement.body) != 1:
        return False
    (small,) = statement.body
    if not (isinstance(small, cst.Assign) and len(small.targets) == 1):
        return False
    target, value = small.targets[0].target, small.value
    if value is call or _or_none(value, call):
        edits.remove(statement)
        return True
    if isinstance(target, cst.Tuple) and isinstance(value, cst.Tuple):
        numbers = [number for number, element in enumerate(value.elements) if element.value is call]
        if len(target.elements) == len(value.elements) and numbers:
            edits.thin(statement, small, numbers[0])
            return True
    return False


def _or_none(value: cst.BaseExpression, call: cst.Call) -> bool:
    """Whether a value is a call, or None: `nn.Dropout(p) if p else None`."""
    if not isinstance(value, cst.IfExp):
        return False
    other = value.orelse if value.body is call else value.body
    return call in (value.body, value.orelse) and is_name(other, "None")
