"""Where in source a step takes a dropout away and where it puts one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import libcst as cst
from torch import fx

from dropout_lint.fixes.modules import module_at
from dropout_lint.fixes.plan.steps import Anchor
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.forward import own_guards
from dropout_lint.fixes.source.guards import apart, may_be_skipped
from dropout_lint.fixes.source.locate import Sources
from dropout_lint.fixes.source.syntax import SourceFile
from dropout_lint.graph.ancestry import returns_tensor
from dropout_lint.inputs.example import Location
from dropout_lint.trace.traced import DropoutSite

BY_HAND = "make the move by hand, or use `dropout_lint.fix(model, inputs)`"


@dataclass(frozen=True)
class Old:
    """Where a dropout is now.

    Attributes:
        key: equal for all calls that one expression makes.
        source: the file.
        call: the call in `forward`, or the constructor of an element.
        holder: the Sequential that runs it, None for a call in `forward`.
        site: one of the calls.
    """

    key: tuple[object, ...]
    source: SourceFile
    call: cst.Call
    holder: str | None
    site: DropoutSite


@dataclass(frozen=True)
class New:
    """Where a dropout goes.

    Attributes:
        key: equal for all places that one expression makes.
        form: in forward `input` of a call, `operand` of a call or sum, `output` of an expression; `before` or
            `behind` an element of a Sequential, `end` of a Sequential.
        source: the file.
        node: the call or operand, or with a Sequential the constructor of the element beside it.
        graph: the graph node that the place belongs to.
        holder: the Sequential, for `before`, `behind` and `end`.
        owner: qualified name of the module whose class is edited.
    """

    key: tuple[object, ...]
    form: Literal["input", "operand", "output", "before", "behind", "end"]
    source: SourceFile
    node: cst.CSTNode
    graph: fx.Node
    holder: str | None
    owner: str


def holder_of(sources: Sources, site: DropoutSite) -> str | None:
    """The Sequential that runs a dropout module, None for a call in the user's forward."""
    if site.functional or site.module is None or sources.container(site.node) is None:
        return None
    return site.module.rpartition(".")[0]


def old_key(sources: Sources, site: DropoutSite) -> tuple[object, ...]:
    """What all calls of one expression share."""
    if holder_of(sources, site) is not None and site.module is not None:
        return ("made", sources.trace.constructed.get(site.module) or site.module)
    return ("called", site.call, site.module is None)


def old_place(sources: Sources, site: DropoutSite) -> Old:
    """Where a dropout is now.

    Raises:
        CannotExpress: no single expression of the user's can be told to be it.
    """
    holder = holder_of(sources, site)
    if holder is not None and site.module is not None:
        source, call = sources.construction(site.module)
    else:
        source, call = sources.call(site.node)
    return Old(old_key(sources, site), source, call, holder, site)


def new_place(sources: Sources, anchor: Anchor, site: DropoutSite) -> New:
    """Where an anchor is in source, for a dropout that goes there.

    At the border of two modules it is in the one that calls the dropout now: other users of a class keep
    what they have of it.

    Raises:
        CannotExpress: no single expression of the user's can be told to be it.
    """
    user, old_holder = anchor.users[0], holder_of(sources, site)
    if _ends(sources, anchor, site):
        with suppress(CannotExpress):  # then before its reader
            return _always(sources, _output_place(sources, anchor), site)
    joined = (
        len([item for item in user.all_input_nodes if item.op != "get_attr"]) > 1 and user.op != "call_module"
    )
    several = _several_readers(anchor)
    if joined and not several and sources.user_owner(anchor.producer) != sources.user_owner(user):
        with suppress(CannotExpress):  # what another module makes is dropped where it is joined
            return _always(sources, _operand_place(sources, anchor), site)
    if joined or user.op == "output" or several:
        return _always(sources, _output_place(sources, anchor), site)
    place = _input_place(sources, user, old_holder)
    try:
        return _always(sources, place, site)
    except CannotExpress:
        with suppress(CannotExpress):
            return _always(sources, _output_place(sources, anchor), site)
        raise


def _always(sources: Sources, place: New, site: DropoutSite) -> New:
    """A place, where it is come to whenever the dropout was.

    Raises:
        CannotExpress: it has a condition of its own, or a `return` is between.
    """
    inside = place.holder is not None
    try:
        source, call = sources.construction(site.module or "") if inside else sources.call(site.node)
    except CannotExpress:
        return place  # where it was is not told by one line
    if source is not place.source or source.function(call) is not source.function(place.node):
        return place
    if apart(source, place.node, call):
        raise CannotExpress("the order of the layers is not written where they are made", BY_HAND)
    tests = may_be_skipped(source, place.node, call)
    if place.form in ("output", "behind", "end"):
        tests = [test for test in tests if not any(test is own for own in own_guards(source, place.node))]
    if tests:
        raise CannotExpress(
            f"it would be left out unless `{source.code(tests[0])}`, which it does not ask for now", BY_HAND
        )
    return place


def new_places(sources: Sources, anchors: Sequence[tuple[Anchor, DropoutSite]]) -> list[New]:
    """Where the anchors of all calls of one expression are: at what one expression makes, if they can be.

    Raises:
        CannotExpress: no single expression of the user's can be told to be one of them.
    """
    try:
        places = [new_place(sources, anchor, site) for anchor, site in anchors]
    except CannotExpress:
        together = _made_by_one(sources, anchors)
        if together is None:
            raise
        return together
    if len({place.key for place in places}) > 1:
        return _made_by_one(sources, anchors) or places
    return places


def _made_by_one(sources: Sources, anchors: Sequence[tuple[Anchor, DropoutSite]]) -> list[New] | None:
    """The places behind one expression that a loop runs, each for all that reads its value; None without."""
    for anchor, _ in anchors:
        if any(user not in anchor.users and returns_tensor(user) for user in anchor.producer.users):
            return None
    for place_behind in (_output_place, _element_place):
        with suppress(CannotExpress):
            places = [_always(sources, place_behind(sources, anchor), site) for anchor, site in anchors]
            if len({place.key for place in places}) == 1:
                return places
    return None


def _element_place(sources: Sources, anchor: Anchor) -> New:
    """Behind a layer of a Sequential, whatever comes next there.

    Raises:
        CannotExpress: it is none, or its constructor is not known.
    """
    name = str(anchor.producer.target)
    holder = name.rpartition(".")[0]
    if anchor.producer.op != "call_module" or sources.container(anchor.producer) is None:
        raise CannotExpress("the place is behind no layer of a Sequential", BY_HAND)
    source, call = sources.construction(name)
    return New(("behind", source.path, call), "behind", source, call, anchor.producer, holder, holder)


def _ends(sources: Sources, anchor: Anchor, site: DropoutSite) -> bool:
    """Whether a place is at the end of what the dropout's own module, or its Sequential, computes."""
    home = sources.user_owner(site.node)
    if home == sources.user_owner(anchor.producer):
        if home not in {sources.user_owner(reader) for reader in anchor.users}:
            return True
        holder = holder_of(sources, site)
        readers = {str(reader.meta.get("owner") or "") for reader in anchor.users}
        return holder is not None and holder == anchor.producer.meta.get("owner") and holder not in readers
    return False


def _several_readers(anchor: Anchor) -> bool:
    """Whether the place is at a value for all that reads it, not at the input of one call.

    Raises:
        CannotExpress: some of several readers of the value are to see the noise, and others are not.
    """
    wanted = [user for user in anchor.users if returns_tensor(user)]
    if len(wanted) < 2:
        return False
    others = [user for user in anchor.producer.users if user not in anchor.users and returns_tensor(user)]
    if others:
        raise CannotExpress(
            f"{len(wanted)} readers of one value should see the noise, and {others[0].name} should not",
            BY_HAND,
        )
    return True


def _input_place(sources: Sources, user: fx.Node, old_holder: str | None) -> New:
    container = sources.container(user)
    owner = sources.user_owner(user)
    if container is None or user.op != "call_module":
        source, call = sources.call(user)
        return New(("input", source.path, call), "input", source, call, user, None, owner)
    holder, _, key = str(user.target).rpartition(".")
    if _is_first(sources, holder, key) and holder != old_holder:
        if holder == container:
            source, call = sources.call(user)
            return New(("input", source.path, call), "input", source, call, user, None, owner)
        raise CannotExpress(f"the place is before the first layer of {holder}", BY_HAND)
    source, call = sources.construction(str(user.target))
    return New(("before", source.path, call), "before", source, call, user, holder, holder)


def _operand_place(sources: Sources, anchor: Anchor) -> New:
    """The place where a call or a sum reads the value of an anchor.

    Raises:
        CannotExpress: its operand cannot be told.
    """
    user, location = anchor.users[0], anchor.users[0].meta.get("call")
    source = sources.file(location)
    paths = [path for path, item in _operands(user.args) if item is anchor.producer]
    if location is None or len(paths) != 1 or anchor.producer in user.kwargs.values():
        raise CannotExpress("the place is read more than once by one expression", BY_HAND)
    operand = source.operand(location, sources.callees(user), paths[0])
    if operand is None:
        raise CannotExpress(
            f"line {location.line} of {source.path.name} reads the place more than once", BY_HAND
        )
    return New(
        ("operand", source.path, operand), "operand", source, operand, user, None, sources.user_owner(user)
    )


def _operands(args: Sequence[object]) -> Iterator[tuple[tuple[int, ...], object]]:
    """What a node reads, with its number among the arguments, and in a list of tensors."""
    for number, item in enumerate(args):
        if isinstance(item, (tuple, list)):
            yield from (((number, *path), part) for path, part in _operands(item))
        else:
            yield (number,), item


def _is_first(sources: Sources, holder: str, key: str) -> bool:
    return next(iter(module_at(sources.trace.model, holder)._modules)) == key


def _output_place(sources: Sources, anchor: Anchor) -> New:
    producer = anchor.producer
    if producer.op == "placeholder":
        raise CannotExpress("the place is the model's input", BY_HAND)
    container = sources.container(producer)
    owner = sources.user_owner(producer)
    if container is not None and producer.op == "call_module":
        holder, _, key = str(producer.target).rpartition(".")
        if holder == container:
            children = module_at(sources.trace.model, holder)._modules
            after = list(children.values())[list(children).index(key) + 1 :]
            if any(module is not None and len(module.state_dict()) for module in after):
                raise CannotExpress(f"the place is in the middle of {holder or 'the model'}", BY_HAND)
        source, call = sources.construction(str(producer.target))
        return New(("end", source.path, call), "end", source, call, producer, holder, holder)
    if producer.op in ("call_module", "call_function", "call_method"):
        source, call = sources.call(producer)
        return New(("output", source.path, call), "output", source, call, producer, None, owner)
    location: Location | None = producer.meta.get("call")
    source = sources.file(location)
    assert location is not None
    raise CannotExpress(
        f"line {location.line} of {source.path.name} makes the place in more than one step", BY_HAND
    )


def users_at(sources: Sources, place: New) -> list[fx.Node]:
    """All nodes of the graph that one place in source makes."""
    if place.holder is not None:
        location = sources.trace.constructed.get(str(place.graph.target))
        names = sources.made_at(location) if location is not None else {str(place.graph.target)}
        return [
            node
            for node in sources.trace.graph.nodes
            if node.op == "call_module" and str(node.target) in names
        ]
    call = place.graph.meta["call"]
    target, module = place.graph.target, place.graph.op == "call_module"
    same: Sequence[fx.Node] = [
        node
        for node in sources.trace.graph.nodes
        if node.meta.get("call") is not None
        and node.op == place.graph.op
        and (node.meta["call"].file, node.meta["call"].line) == (call.file, call.line)
    ]
    if module:
        callees = sources.callees(place.graph)
        return [node for node in same if sources.callees(node) == callees or node is place.graph]
    return [node for node in same if node.target == target]
