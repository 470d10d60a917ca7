"""Functional dropouts and modules made in `forward`: follow the mode, become attributes, split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from dropout_lint.fixes.graph.dropmodules import FUNCTION_CLASSES, class_name
from dropout_lint.fixes.plan.steps import Step
from dropout_lint.fixes.source import constructor
from dropout_lint.fixes.source.edits import Edits, first_argument
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.mode import follow_in_attention, mode_at, zero_in_test_mode

if TYPE_CHECKING:
    from dropout_lint.fixes.source.express import Expression

NAMES = {kind: name for name, kind in reversed(FUNCTION_CLASSES.items())}


def adjusted(
    call: cst.Call,
    *,
    kind: str | None = None,
    mode: cst.BaseExpression | None = None,
    ratio: float | None = None,
) -> cst.Call:
    """A functional dropout as another function, out of place, with `training=` a mode and a lower ratio."""
    new = constructor.without_inplace(call)
    if ratio is not None:
        new = with_lower_ratio(new, ratio)
    if kind is not None:
        name = NAMES.get(kind, "dropout")
        function = (
            call.func.with_changes(attr=cst.Name(name))
            if isinstance(call.func, cst.Attribute)
            else cst.Name(name)
        )
        new = new.with_changes(func=function)
    return new if mode is None else with_training(new, mode)


def with_training(call: cst.Call, mode: cst.BaseExpression) -> cst.Call:
    """`F.dropout(x, p)` → `F.dropout(x, p, training=self.training)`; a given flag is exchanged."""
    arguments = list(call.args)
    for position, argument in enumerate(arguments):
        keyword = argument.keyword.value if argument.keyword is not None else None
        if keyword in ("training", "train") or (keyword is None and position == 2):
            arguments[position] = argument.with_changes(value=mode)
            return call.with_changes(args=arguments)
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    if arguments:
        arguments[-1] = arguments[-1].with_changes(comma=comma)
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    arguments.append(cst.Arg(mode, keyword=cst.Name("training"), equal=equal))
    return call.with_changes(args=arguments)


def repair(expression: Expression, step: Step) -> None:
    """Make a dropout follow the mode, drop out of place, or drop elements instead of channels.

    Raises:
        CannotExpress: the call is in a function that knows no `self`.
    """
    site = step.site
    if not site.functional:
        assert site.module is not None
        source, call = expression.sources.construction(site.module)
        edits = expression.of(source)
        if step.kind is not None:
            kind = step.kind
            edits.change(call, lambda updated: constructor.rename_class(edits, updated, kind))
        edits.change(call, constructor.without_inplace)
        return
    source, call = expression.sources.call(site.node)
    edits = expression.of(source)
    if isinstance(call.func, cst.Call):
        hoist(expression, step, call)
        return
    other = step.kind
    if site.inside:
        follow_in_attention(edits, call)
        return
    mode = _mode_of(edits, call) if "DL401" in step.codes else None
    if mode is not None or other is not None:
        edits.change(call, lambda updated: adjusted(updated, kind=other, mode=mode))


def _mode_of(edits: Edits, call: cst.Call) -> cst.Attribute | None:
    """The mode that a dropout is to be handed; None where its ratio was made to follow the mode instead.

    Raises:
        CannotExpress: there is no mode that it could follow.
    """
    try:
        return mode_at(edits.source, call)
    except CannotExpress:
        ratio = ratio_of_call(call)
        if ratio is None:
            raise
        zero_in_test_mode(edits, ratio.value)
        return None


def hoist(expression: Expression, step: Step, call: cst.Call) -> None:
    """`nn.Dropout(p)(x)` → `self.dropout(x)`, constructed in `__init__`.

    Raises:
        CannotExpress: the call is in no class, or p is a local variable of `forward`.
    """
    made = call.func
    assert isinstance(made, cst.Call)
    source = next(item for item in expression.sources.files.values() if call in item.calls)
    for argument in made.args:
        if not constructor.is_number(argument.value) and not source.code(argument.value).startswith("self."):
            raise CannotExpress(
                f"`{source.code(made)}` takes its ratio from inside forward",
                "construct the dropout in __init__ by hand",
            )
    new_made = made
    if step.kind is not None:
        new_made = constructor.rename_class(expression.of(source), made, step.kind)
    _attribute_for(expression, step, call, constructor.without_inplace(new_made))


def exchange(expression: Expression, step: Step) -> None:
    """Uout in place of a functional dropout, or a lower ratio for it."""
    source, call = expression.sources.call(step.site.node)
    edits = expression.of(source)
    assert step.value is not None
    value = step.value
    if step.action == "reduce":
        with_lower_ratio(call, value)  # raises now, for this step, what it cannot say
        edits.change(call, lambda updated: with_lower_ratio(cst.ensure_type(updated, cst.Call), value))
        return
    ratio = constructor.switched(expression.ratio_in_init(step), value)
    made = constructor.new_dropout(edits, "Uout", ratio, step.site.spec)
    _attribute_for(expression, step, call, made, wish="uout")


def with_lower_ratio(call: cst.Call, value: float) -> cst.Call:
    """`F.dropout(x, 0.5)` → `F.dropout(x, 0.03)`, `nn.Dropout(0.5)(x)` → `nn.Dropout(0.03)(x)`.

    Raises:
        CannotExpress: today's ratio is no number that stands there.
    """
    if isinstance(call.func, cst.Call):
        return call.with_changes(func=constructor.lower_ratio(call.func, value))
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    new = cst.Arg(constructor.number(value), keyword=cst.Name("p"), equal=equal)
    return constructor.with_lower(call, ratio_of_call(call), value, new)


def ratio_of_call(call: cst.Call) -> cst.Arg | None:
    """The argument of a functional dropout that holds its ratio."""
    for position, argument in enumerate(call.args):
        keyword = None if argument.keyword is None else argument.keyword.value
        if keyword == "p" or (keyword is None and position == 1):
            return argument
    return None


def split(expression: Expression, step: Step) -> None:
    """A dropout of its own for the one call of a shared module that is wrong.

    Raises:
        CannotExpress: the calls cannot be told apart in source.
    """
    site = step.site
    if expression.sources.container(site.node) is not None:
        raise CannotExpress(
            f"{site.name} runs in a Sequential, and its constructor makes other dropouts as well",
            "give it a constructor of its own, or use `dropout_lint.fix(model, inputs)`",
        )
    same_line = [
        other
        for other in expression.trace.dropouts
        if other.call == site.call and not expression._alike(step, expression.by_node.get(other.node))
    ]
    if same_line:
        raise expression.partly_wrong(
            [site, *(other for other in expression.trace.dropouts if other.call == site.call)]
        )
    source, call = expression.sources.call(site.node)
    edits = expression.of(source)
    assert step.value is not None
    kind = step.kind or class_name(site.spec) or "Dropout"
    ratio = expression.ratio_in_init(step)
    switch = constructor.switched if step.action == "uout" else constructor.lowered
    made = constructor.new_dropout(edits, kind, switch(ratio, step.value), site.spec)
    _attribute_for(expression, step, call, made, wish=(site.module or "dropout").rpartition(".")[2])


def _attribute_for(
    expression: Expression, step: Step, call: cst.Call, made: cst.BaseExpression, wish: str = "dropout"
) -> None:
    """Call a new attribute instead of what is called."""
    source = next(item for item in expression.sources.files.values() if call in item.calls)
    klass = source.klass(call)
    data = first_argument(call)
    if klass is None or data is None:
        raise CannotExpress("it is called outside a class", "make it a module by hand")
    edits = expression.of(source)
    name = constructor.free_attribute(
        source, klass, wish if wish.isidentifier() else "dropout", expression.taken
    )
    expression.taken.add(name)
    constructor.add_attribute(edits, klass, name, made, None)
    callee = cst.Attribute(cst.Name("self"), cst.Name(name))

    def exchange_call(updated: cst.Call) -> cst.Call:
        value = first_argument(updated)
        assert value is not None
        return cst.Call(callee, [cst.Arg(value)])

    edits.change(call, exchange_call)
