"""What moved and erased calls leave behind: constructors of modules that nothing calls any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libcst as cst

from dropout_lint.fixes.source import constructor
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.places import old_key
from dropout_lint.fixes.source.siblings import method_at, read_by_subclasses, subclasses
from dropout_lint.fixes.source.syntax import SourceFile

if TYPE_CHECKING:
    from dropout_lint.fixes.source.express import Expression


def take_away_unused(expression: Expression) -> None:
    """Take away the constructors of modules that nothing calls any more."""
    for old in expression.erased_calls:
        if old.site.functional or old.site.module is None or not isinstance(old.call.func, cst.Attribute):
            continue
        if old.site.module in expression.called_again:
            continue
        name = old.call.func.attr.value
        gone = {id(item.call.func) for item in expression.erased_calls if item.source is old.source}
        try:
            source, call = expression.sources.construction(old.site.module)
        except CannotExpress:
            continue
        if any(
            site.module == old.site.module and expression.stays(site) for site in expression.trace.dropouts
        ):
            continue
        left = [use for use in source.uses_of_attribute(name) if id(use) not in gone]
        edits = expression.of(source)
        left = [
            use
            for use in left
            if source.statement(use) not in edits.removed
            and not _stores(source, use)
            and not _guards(expression, source, use)
        ]
        kind = method_at(expression.trace.model, source, call, old.site.module)
        if kind is not None:
            family = {base.__name__ for base in (*kind.klass.__mro__, *subclasses(kind.klass))}
            left = [use for use in left if _may_be_of(source, use, family)]
        others = kind is not None and read_by_subclasses(kind.klass, name)
        if not constructor.drop_attribute(edits, call, len(left) + others):
            expression.orphans |= {
                step.site.module
                for step in expression.steps
                if step.site.module is not None and old_key(expression.sources, step.site) == old.key
            }


def _may_be_of(source: SourceFile, use: cst.Attribute, family: set[str]) -> bool:
    """Whether an attribute may be one of some classes: `self.drop` of an unrelated class is not."""
    klass = source.klass(use)
    own = isinstance(use.value, cst.Name) and use.value.value == "self"
    return not own or klass is None or klass.name.value in family


def _guards(expression: Expression, source: SourceFile, use: cst.Attribute) -> bool:
    """Whether a use stands in the head of an `if` that goes with its call."""
    holder = source.up(use, (cst.If, cst.SimpleStatementLine))
    edits = expression.of(source)
    return isinstance(holder, cst.If) and (holder in edits.removed or holder in edits.collapsed)


def _stores(source: SourceFile, use: cst.Attribute) -> bool:
    holder = source.parent(use)
    if isinstance(holder, cst.Element):  # of `self.a, self.b = …`
        holder = source.parent(source.parent(holder) or holder)
    return isinstance(holder, cst.AssignTarget)
