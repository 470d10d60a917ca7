"""The mode that code follows: `self.training` where there is a self, else that of whoever calls the code."""

from __future__ import annotations

import libcst as cst

from dropout_lint.fixes.source.edits import Edits, in_parentheses
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.scopes import bindings, decorators, own_name, passed, straight
from dropout_lint.fixes.source.syntax import SourceFile, is_name

ATTENTION_RATIO, ATTENTION_POSITION = "dropout_p", 4


def mode_at(source: SourceFile, node: cst.CSTNode) -> cst.Attribute:
    """`self.training`, by the name that the method around a node gives its module.

    Raises:
        CannotExpress: there is no method around it, whose mode it could follow.
    """
    name = own_name(source, node)
    if name is None:
        raise CannotExpress(
            "it is called in a function that is no method, so there is no mode that it could follow",
            "hand `training=self.training` down to that function",
        )
    return cst.Attribute(cst.Name(name), cst.Name("training"))


def follow_in_attention(edits: Edits, call: cst.Call) -> None:
    """`dropout_p=p` of an attention call → `dropout_p=p if self.training else 0.0`.

    Raises:
        CannotExpress: the ratio stands neither at the call nor in a dictionary of the function around it, or
            there is no mode that it could follow.
    """
    ratio = _ratio_of_attention(edits.source, call)
    if ratio is None:
        raise CannotExpress(
            "the attention call is handed its ratio from where it cannot be told",
            "let it be 0.0 where `self.training` is False",
        )
    zero_in_test_mode(edits, ratio)


def _ratio_of_attention(source: SourceFile, call: cst.Call) -> cst.BaseExpression | None:
    for position, argument in enumerate(call.args):
        if argument.star == "**" and isinstance(argument.value, cst.Name):
            return _item(straight(source.function(call), argument.value.value), ATTENTION_RATIO)
        if argument.star:
            return None
        keyword = None if argument.keyword is None else argument.keyword.value
        if keyword == ATTENTION_RATIO or (keyword is None and position == ATTENTION_POSITION):
            return argument.value
    return None


def _item(made: cst.BaseExpression | None, key: str) -> cst.BaseExpression | None:
    """The value of a key in `{"key": value}` or `dict(key=value)`."""
    if isinstance(made, cst.Call) and is_name(made.func, "dict"):
        keywords = {argument.keyword.value: argument.value for argument in made.args if argument.keyword}
        return keywords.get(key)
    elements = made.elements if isinstance(made, cst.Dict) else ()
    return next((item.value for item in elements if _key_of(item) == key), None)


def _key_of(element: cst.BaseDictElement) -> object:
    key = element.key if isinstance(element, cst.DictElement) else None
    return key.evaluated_value if isinstance(key, cst.SimpleString) else None


def zero_in_test_mode(
    edits: Edits, ratio: cst.BaseExpression, seen: frozenset[cst.FunctionDef] = frozenset()
) -> None:
    """`p` → `p if self.training else 0.0`; where a function without a mode takes it, at each of its callers.

    Args:
        edits: of the file.
        ratio: what is handed to a dropout.
        seen: the functions that it has come through.

    Raises:
        CannotExpress: there is no mode that it could follow, or functions hand it round in a circle.
    """
    try:
        mode = mode_at(edits.source, ratio)
    except CannotExpress as error:
        function, given = edits.source.function(ratio), _given(edits.source, ratio)
        if not given or function is None or function in seen:
            raise error from None
        for argument in given:
            zero_in_test_mode(edits, argument, seen | {function})
        return
    body = in_parentheses(ratio) if isinstance(ratio, (cst.IfExp, cst.Lambda, cst.NamedExpr)) else ratio
    edits.replace(ratio, cst.IfExp(test=mode, body=body, orelse=cst.Float("0.0")))


def _given(source: SourceFile, ratio: cst.BaseExpression) -> list[cst.BaseExpression]:
    """What the callers of a function in this file hand to it as a ratio; empty where that cannot be told."""
    function = source.function(ratio)
    parameters, bound = bindings(function)
    if function is None or not isinstance(ratio, cst.Name) or ratio.value not in {*parameters} - bound:
        return []
    owned = "classmethod" in decorators(source, function)
    given = []
    for call in source.calls:
        callee = call.func.attr if isinstance(call.func, cst.Attribute) else call.func
        if not is_name(callee, function.name.value):
            continue
        value = passed(call, function, ratio.value, method=owned)
        if value is None:
            return []
        if not any(argument.value is value for argument in call.args):  # the parameter's default
            if not is_name(value, "None") and source.code(value) not in ("0", "0.0"):
                return []
        else:
            given.append(value)
    return given
