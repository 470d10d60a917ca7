"""Put a dropout into a Sequential, or take it out, so that checkpoints find each layer where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import libcst as cst
from torch import nn

from dropout_lint.fixes.modules import module_at
from dropout_lint.fixes.plan.steps import Step
from dropout_lint.fixes.source import constructor, elements
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.forward import freed, guard_of
from dropout_lint.fixes.source.guards import loop_names, lost_conditions
from dropout_lint.fixes.source.places import BY_HAND, New, Old, old_key
from dropout_lint.fixes.source.syntax import Statement

if TYPE_CHECKING:
    from dropout_lint.fixes.source.edits import Edits
    from dropout_lint.fixes.source.express import Expression


def put_element(expression: Expression, step: Step, old: Old, place: New, used: set[int]) -> None:
    """Put a dropout into a Sequential, without moving the index of a layer that has parameters."""
    model, holder = expression.trace.model, place.holder
    assert holder is not None and isinstance(place.node, cst.Call)
    edits = expression.of(place.source)
    children = list(module_at(model, holder)._modules)
    key = str(place.graph.target).rpartition(".")[2]
    same = old.holder == holder and old.source is place.source
    form, element = elements.form_of(place.source, place.node)
    if form == "other" and same:
        form, element = elements.named_beside(place.source, place.node, old.call)
    if form == "pair" and not elements.gives_order(place.source, element):
        raise CannotExpress(
            "the order of the layers is not written where they are made",
            "change it where it is written, or use `dropout_lint.fix(model, inputs)`",
        )
    old_name = (step.site.module or "dropout").rpartition(".")[2]
    name = old_name if same and not old_name.isdigit() else "dropout"
    stays = not key.isdigit() or (same and _keeps_indices(expression, old_name, place))
    if place.form == "end":
        stays = children[-1] == key
    guarded = _guarded(old, place, element) if same and stays and form != "other" else None
    new = _made(expression, step, old, place, as_it_is=guarded is not None)
    here = elements.form_of(old.source, old.call)[1] if same else None
    if form != "other" and stays:
        if here is not None:
            elements.carry_comment(edits, here, element, place.form != "before")
        if guarded is not None:
            guarded.put(edits, new, after=place.form != "before")
        elif place.form == "before":
            elements.insert_element(edits, element, new, after=False, name=name)
        else:
            _append(edits, old, element, new, name)
        used |= {id(old.call)} if place.form == "before" else set()
        return
    if place.form == "before":
        previous = children[children.index(key) - 1]
        key = children[children.index(key) - 2] if same and previous == old_name else previous
    layer = _parameterless(expression, old, holder, key)
    if here is not None:
        elements.carry_comment(edits, here, elements.form_of(place.source, layer)[1], None)
    _wrap(expression, old, edits, layer, new)


def _made(expression: Expression, step: Step, old: Old, place: New, *, as_it_is: bool) -> cst.BaseExpression:
    """The constructor of a dropout at its new place: the old one where that means the same there."""
    edits = expression.of(place.source)
    same = old.holder == place.holder and old.source is place.source
    if not (as_it_is or (same and expression.rates.fits(old, place.node))):
        scope = expression.rates.scope(place.source, place.node, str(place.graph.target))
        return expression.made_anew(step, old, scope, edits)
    new: cst.BaseExpression = constructor.without_inplace(old.call)
    if step.value is not None and isinstance(new, cst.Call):
        new = constructor.lower_ratio(new, step.value)
    if step.kind is not None and isinstance(new, cst.Call):
        new = constructor.rename_class(edits, new, step.kind)
    return new


@dataclass(frozen=True)
class Guarded:
    """A statement that adds a dropout, with the `if`s of its own, and the one that it goes beside.

    Attributes:
        whole: the outermost `if`.
        call: the dropout's constructor in it.
        beside: the statement at the new place.
    """

    whole: Statement
    call: cst.Call
    beside: Statement

    def put(self, edits: Edits, new: cst.BaseExpression, *, after: bool) -> None:
        """Write it there with the constructor `new`."""
        moved = cst.ensure_type(self.whole.deep_replace(self.call, new), cst.If)
        comments = [line for line in moved.leading_lines if line.comment is not None]
        put = edits.insert_after if after else edits.insert_before
        put(self.beside, moved.with_changes(leading_lines=comments))


def _guarded(old: Old, place: New, element: cst.CSTNode) -> Guarded | None:
    """A dropout's own `if`s, where they can go with it: they ask the same at the new place, and suffice."""
    source = old.source
    adding = elements.adding_statement(source, elements.form_of(source, old.call)[1])
    beside = elements.adding_statement(source, element)
    if adding is None or beside is None or source.function(adding) is not source.function(beside):
        return None
    whole: Statement = adding
    while (guard := guard_of(source, whole)) is not None:
        whole = guard
    if whole is adding or loop_names(source, whole, beside) or lost_conditions(source, whole, beside):
        return None
    if place.form != "before":
        return Guarded(whole, old.call, freed(source, beside, old.call))
    return Guarded(whole, old.call, beside)


def _append(edits: Edits, old: Old, element: cst.CSTNode, new: cst.BaseExpression, name: str) -> None:
    """Put a dropout behind the last element, and behind an `if` for that, where it had none."""
    adding = elements.adding_statement(edits.source, element)
    outer = None if adding is None else freed(edits.source, adding, old.call)
    if adding is None or outer is None or outer is adding:
        elements.insert_element(edits, element, new, after=True, name=name)
    else:
        edits.insert_after(outer, elements.like(adding, new, name))


def _wrap(expression: Expression, old: Old, edits: Edits, call: cst.Call, new: cst.BaseExpression) -> None:
    """Put a dropout behind a layer, once: a line that makes several layers makes their dropouts as well."""
    before = expression.wrapped.get(id(call))
    if before not in (None, old.key):
        raise CannotExpress("several lines would move to one place", BY_HAND)
    if before is None:
        expression.wrapped[id(call)] = old.key
        elements.wrap(edits, call, constructor.nn_prefix(edits), new)


def _parameterless(expression: Expression, old: Old, holder: str, key: str) -> cst.Call:
    """The constructor of a layer that a dropout can be put behind.

    Raises:
        CannotExpress: the layer has parameters, or is made where no dropout is.
    """
    name = f"{holder}.{key}" if holder else key
    sources = expression.sources
    if _has_state(expression.trace.model, name):
        raise CannotExpress(
            f"a layer behind {name} would move the index of the next one in checkpoints",
            "give the layers names (an OrderedDict), or use `dropout_lint.fix(model, inputs)`",
        )
    location = expression.trace.constructed.get(name)
    if location is not None:
        steps = [str(step.anchor.users[0].target) for step in expression.steps if step.anchor]
        made = [site.module or "" for site in expression.trace.dropouts if old_key(sources, site) == old.key]
        droppers = {layer.rpartition(".")[0] for layer in (*steps, *made)}
        without = [other for other in sources.made_at(location) if other.rpartition(".")[0] not in droppers]
        if without and name not in without:
            raise CannotExpress(f"the line that makes {name} makes {without[0]} as well", BY_HAND)
    return sources.construction(name)[1]


def _keeps_indices(expression: Expression, start: str, place: New) -> bool:
    """Whether no layer with a state changes its index where the dropout `start` of its Sequential moves."""
    model, (holder, _, end) = expression.trace.model, str(place.graph.target).rpartition(".")
    children = list(module_at(model, holder)._modules)
    if start not in children:
        return True
    first, last = children.index(start), children.index(end)
    # behind a layer it pulls that one up, and from behind it pushes the one that it is put before
    moved = children[first + 1 : last + (place.form == "behind")] if first < last else children[last:first]
    return not any(_has_state(model, f"{holder}.{key}" if holder else key) for key in moved)


def _has_state(model: nn.Module, name: str) -> bool:
    """Whether a layer has parameters or buffers, so that its index stands in checkpoints."""
    return bool(module_at(model, name).state_dict())


def take_element_out(expression: Expression, step: Step, old: Old, *, kept: bool) -> None:
    """Take a dropout out of a Sequential; `kept` where it is put in again by the same edit."""
    assert old.holder is not None
    model, edits = expression.trace.model, expression.of(old.source)
    name = step.site.module or ""
    key = name.rpartition(".")[2]
    children = list(module_at(model, old.holder)._modules)
    after = [
        f"{old.holder}.{child}" if old.holder else child for child in children[children.index(key) + 1 :]
    ]
    expression.sources.check_static(name, old.call)
    keeps = not kept and key.isdigit() and any(_has_state(model, name) for name in after)
    if keeps:
        expression.notes.append(
            "`nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it"
        )
    elements.take_out(edits, old.call, constructor.nn_prefix(edits), keeps)
