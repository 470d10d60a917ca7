"""Elements of `nn.Sequential`: inline, in lists, in an `OrderedDict`, by `append` or by `add_module`."""

from __future__ import annotations

from typing import Any, Literal

import libcst as cst

from dropout_lint.fixes.source.edits import Edits
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.syntax import SourceFile, is_super

Form = Literal["item", "pair", "append", "add_module", "other"]
IDENTITY = "Identity()"


def form_of(source: SourceFile, call: cst.CSTNode) -> tuple[Form, cst.CSTNode]:
    """How an element is written, and the node that is the whole element.

    `item` is an element of a list or an argument of a call, `pair` a ("name", layer) tuple or a
    `"name": layer` of a dict, `append` and `add_module` are statements.
    """
    parent = source.parent(call)
    if isinstance(parent, cst.DictElement):
        return "pair", parent
    if isinstance(parent, (cst.Element, cst.Arg)):
        holder = source.parent(parent)
        if isinstance(holder, cst.Tuple) and isinstance(source.parent(holder), cst.Element):
            outer = source.parent(holder)
            assert outer is not None
            return "pair", outer
        if isinstance(holder, cst.Call) and isinstance(parent, cst.Arg):
            name = holder.func.attr.value if isinstance(holder.func, cst.Attribute) else ""
            statement = source.statement(holder)
            if name in ("append", "add_module", "register_module") and statement is not None:
                return ("append" if name == "append" else "add_module"), statement
            return ("item", parent) if _is_sequential(source, holder) else ("other", call)
        if isinstance(holder, (cst.List, cst.Tuple)):
            return "item", parent
    return "other", call


def gives_order(source: SourceFile, element: cst.CSTNode) -> bool:
    """Whether a named element stands in the order in which it runs, not in a dict to look it up in."""
    holder = source.parent(element)
    return not isinstance(holder, cst.Dict) or isinstance(source.parent(holder), cst.Arg)


def _is_sequential(source: SourceFile, call: cst.Call) -> bool:
    """Whether a call makes a Sequential of its arguments: `super().__init__(…)` of a subclass does."""
    if is_super(call, "__init__"):
        klass = source.klass(call)
        bases = [] if klass is None else [source.code(base.value) for base in klass.bases]
        return any(base.endswith("Sequential") for base in bases)
    return isinstance(call.func, (cst.Name, cst.Attribute)) and source.code(call.func).endswith("Sequential")


def named_beside(source: SourceFile, call: cst.CSTNode, near: cst.CSTNode) -> tuple[Form, cst.CSTNode]:
    """The element that stands for `name = call` in the list that holds the element `near`."""
    assign = source.parent(call)
    _, element = form_of(source, near)
    holder = source.parent(element)
    if not isinstance(assign, cst.Assign) or len(assign.targets) != 1:
        return "other", call
    target = assign.targets[0].target
    for item in (*getattr(holder, "elements", ()), *getattr(holder, "args", ())):
        if isinstance(target, cst.Name) and target.deep_equals(item.value):
            return "item", item
    return "other", call


def take_out(edits: Edits, call: cst.Call, prefix: str, keeps_index: bool) -> None:
    """Remove a dropout from its Sequential; `keeps_index` leaves `nn.Identity()` in its place."""
    source = edits.source
    form, element = form_of(source, call)
    if keeps_index or form == "other":
        edits.replace(call, cst.parse_expression(f"{prefix}.{IDENTITY}"))
        return
    if isinstance(element, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
        edits.remove(element)
        return
    holder = source.parent(element)
    if isinstance(holder, cst.List) and len(holder.elements) == 1:
        outer = source.parent(holder)
        if isinstance(outer, cst.BinaryOperation) and isinstance(outer.operator, cst.Add):
            edits.change(outer, lambda node: node.left if outer.right is holder else node.right)
            return
    remove_element(edits, element)


Side = bool | None
"""Where something is, seen from an element of a list: behind it, in front of it, or in it (None)."""


class ListEdit:
    """Elements taken out of one list and put into it, applied when all of its parts are done."""

    def __init__(self, source: SourceFile, holder: cst.CSTNode) -> None:
        self.field = "args" if isinstance(holder, cst.Call) else "elements"
        self.items: list[cst.CSTNode] = list(getattr(holder, self.field))
        self.removed: set[cst.CSTNode] = set()
        self.added: dict[tuple[cst.CSTNode, bool], tuple[cst.BaseExpression, str]] = {}
        self.carried: dict[tuple[cst.CSTNode, Side], cst.CSTNode] = {}  # whose comment goes where

    def __call__(self, updated: cst.CSTNode) -> cst.CSTNode:
        old = list(getattr(updated, self.field))
        own = {item: _comment_of(current) for item, current in zip(self.items, old, strict=True)}
        comments = {place: own[item] for place, item in self.carried.items() if not own.get(place[0])}
        leaving = {item for place, item in self.carried.items() if place in comments}
        comma, last = _between(old), old[-1].comma
        new: list[tuple[Any, cst.Comment | None]] = []
        for item, current in zip(self.items, old, strict=True):
            around: list[Side] = [False, None, True]
            for side in around:
                comment = comments.get((item, side))
                if side is None and item not in self.removed:
                    new.append((current, comment or (None if item in leaving else own[item])))
                elif side is not None and (item, side) in self.added:
                    new.append((_element_like(current, *self.added[item, side]), comment))
        result: list[Any] = []
        for position, (item, comment) in enumerate(new):
            changed = item
            if position == len(new) - 1:
                changed = item.with_changes(comma=last)
                if isinstance(item, cst.Arg):  # the line break before the bracket
                    changed = changed.with_changes(whitespace_after_arg=old[-1].whitespace_after_arg)
            elif not isinstance(item.comma, cst.Comma) or item is old[-1] or item not in old:
                changed = item.with_changes(comma=comma)
            result.append(_commented(changed, comment))
        return updated.with_changes(**{self.field: result})


def _comment_of(item: Any) -> cst.Comment | None:
    """The comment behind an element and its comma."""
    after = item.comma.whitespace_after if isinstance(item.comma, cst.Comma) else None
    return after.first_line.comment if isinstance(after, cst.ParenthesizedWhitespace) else None


def _commented(item: Any, comment: cst.Comment | None) -> Any:
    """An element with a comment behind its comma, or without one, where its line ends there."""
    after = item.comma.whitespace_after if isinstance(item.comma, cst.Comma) else None
    if not isinstance(after, cst.ParenthesizedWhitespace) or after.first_line.comment is comment:
        return item
    space = cst.SimpleWhitespace("" if comment is None else "  ")
    line = after.first_line.with_changes(comment=comment, whitespace=space)
    return item.with_changes(
        comma=item.comma.with_changes(whitespace_after=after.with_changes(first_line=line))
    )


def carry_comment(edits: Edits, old: cst.CSTNode, place: cst.CSTNode, side: Side) -> None:
    """Let the comment of an element go with its layer to another place in the list."""
    holder = edits.source.parent(place)
    if (
        isinstance(old, (cst.Arg, cst.BaseElement))
        and edits.source.parent(old) is holder
        and old is not place
    ):
        list_edit(edits, place).carried[place, side] = old


def list_edit(edits: Edits, element: cst.CSTNode) -> ListEdit:
    """The edit of the list that holds an element."""
    holder = edits.source.parent(element)
    assert holder is not None
    for change in edits.changes.get(holder, ()):
        if isinstance(change, ListEdit):
            return change
    edit = ListEdit(edits.source, holder)
    edits.change(holder, edit)
    return edit


def remove_element(edits: Edits, element: cst.CSTNode) -> None:
    """Take an element out of its list or argument list, with its comma and line."""
    list_edit(edits, element).removed.add(element)


def insert_element(
    edits: Edits, anchor: cst.CSTNode, new: cst.BaseExpression, *, after: bool, name: str
) -> None:
    """Put a new layer beside the element `anchor`, in the way in which that is written.

    Args:
        edits: edits of the file.
        anchor: a whole element, as `form_of` gives it.
        new: the layer's constructor.
        after: behind the anchor, not in front of it.
        name: its name where the elements have names.
    """
    if isinstance(anchor, cst.SimpleStatementLine):
        statement = like(anchor, new, name)
        (edits.insert_after if after else edits.insert_before)(anchor, statement)
        return
    list_edit(edits, anchor).added[anchor, after] = (new, name)


def _between(items: list[Any]) -> cst.Comma:
    """The comma that separates two elements of this list, with its line break and without its comments."""
    for item in items[:-1]:
        comma = item.comma
        if isinstance(comma, cst.Comma):
            after = comma.whitespace_after
            if isinstance(after, cst.ParenthesizedWhitespace):
                first = after.first_line.with_changes(comment=None, whitespace=cst.SimpleWhitespace(""))
                return comma.with_changes(
                    whitespace_after=after.with_changes(first_line=first, empty_lines=[])
                )
            return comma
    return cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))


def _element_like(like: cst.CSTNode, new: cst.BaseExpression, name: str) -> cst.CSTNode:
    if isinstance(like, cst.DictElement):
        return cst.DictElement(cst.SimpleString(f'"{name}"'), new)
    if isinstance(like, cst.Element) and isinstance(like.value, cst.Tuple):
        pair = cst.Tuple(
            [
                cst.Element(
                    cst.SimpleString(f'"{name}"'), comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
                ),
                cst.Element(new),
            ]
        )
        return cst.Element(pair)
    if isinstance(like, cst.Arg):
        return cst.Arg(new)
    return cst.Element(new)


def adding_statement(source: SourceFile, element: cst.CSTNode) -> cst.SimpleStatementLine | None:
    """The statement that adds an element and nothing else: `append(…)`, `add_module("…", …)`, `+= […]`."""
    if isinstance(element, cst.SimpleStatementLine):
        return element
    holder = source.parent(element)
    adds = source.parent(holder) if isinstance(holder, cst.List) and len(holder.elements) == 1 else None
    return source.statement(element) if isinstance(adds, cst.AugAssign) else None


def like(statement: cst.SimpleStatementLine, new: cst.BaseExpression, name: str) -> cst.SimpleStatementLine:
    """The statement `layers.append(…)`, `add_module("…", …)` or `layers += […]` with another layer."""
    (small,) = statement.body
    if isinstance(small, cst.AugAssign):
        assert isinstance(small.value, cst.List)
        return cst.SimpleStatementLine(
            [small.with_changes(value=small.value.with_changes(elements=[cst.Element(new)]))]
        )
    call = small.value if isinstance(small, cst.Expr) else None
    if isinstance(call, cst.Tuple) and len(call.elements) == 1:
        call = call.elements[0].value  # `add_module("…", …),`, as in the first DenseNets
    if not isinstance(call, cst.Call):
        raise CannotExpress("a layer beside it is no statement of its own", "put it on a line of its own")
    arguments = list(call.args)
    arguments[-1] = arguments[-1].with_changes(value=new)
    if len(arguments) > 1:
        arguments[0] = arguments[0].with_changes(value=cst.SimpleString(f'"{name}"'))
    changed = call.with_changes(args=arguments)
    return cst.SimpleStatementLine([cst.Expr(changed)])


def wrap(edits: Edits, call: cst.BaseExpression, prefix: str, new: cst.BaseExpression) -> None:
    """`nn.ReLU()` → `nn.Sequential(nn.ReLU(), nn.Dropout(p))`: one index, two layers."""
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    edits.change(
        call,
        lambda updated: cst.Call(
            cst.parse_expression(f"{prefix}.Sequential"), [cst.Arg(updated, comma=comma), cst.Arg(new)]
        ),
    )
