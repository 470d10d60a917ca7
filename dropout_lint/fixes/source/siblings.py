"""Classes that share the edited code with the model and are not part of it: what the edits do to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst
from torch import nn

from dropout_lint.fixes.modules import module_at
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.syntax import SourceFile
from dropout_lint.words import listed


@dataclass(frozen=True)
class Method:
    """A method of a class of the user's."""

    klass: type
    name: str

    def runs_in(self, kind: type) -> bool:
        """Whether a class runs this very method: its own, an inherited one, or by way of `super()`.

        An `__init__` is taken to call the one that it overrides.
        """
        if self.klass not in kind.__mro__:
            return False
        for base in kind.__mro__:
            found = vars(base).get(self.name)
            if base is self.klass:
                return True
            if found is not None and self.name != "__init__" and not {"super", self.name} <= names_in(found):
                return False
        return False


def names_in(function: object) -> set[str]:
    """The attributes and globals that a function mentions."""
    code = getattr(function, "__code__", None)
    return set() if code is None else set(code.co_names)


def method_at(model: nn.Module, source: SourceFile, node: cst.CSTNode, inside: str) -> Method | None:
    """The method that a node stands in, None outside of one.

    Args:
        model: the model that was linted.
        source: the file.
        node: a node of it.
        inside: qualified name of the module whose method it is, or of one below that.
    """
    klass, function = source.klass(node), source.function(node)
    while function is not None and (outer := source.function(function)) is not None:
        function = outer
    if klass is None or function is None:
        return None
    names = inside.split(".") if inside else []
    for length in range(len(names), -1, -1):
        for base in type(module_at(model, ".".join(names[:length]))).__mro__:
            if base.__name__ == klass.name.value:
                return Method(base, function.name.value)
    return None


def check_siblings(model: nn.Module, name: str, old: Method | None, new: Method | None) -> list[str]:
    """Notes on the classes that a move from one method to another leaves with half of it.

    Args:
        model: the model that was linted; the classes of its modules are proven and need no note.
        name: the dropout.
        old: the method that loses it.
        new: the method that has it afterwards.

    Raises:
        CannotExpress: two methods of one class change together, and a subclass overrides one of them.
    """
    if old is None or new is None or old == new:
        return []
    losing, gaining = _halves(model, old, new)
    if old.klass is new.klass and (losing or gaining):
        halves = _overriding(losing, new.name) + _overriding(gaining, old.name)
        raise CannotExpress(
            f"{old.name} and {new.name} of {old.klass.__name__} would change together, and {listed(halves)}",
            "make the move by hand, in the subclasses as well",
        )
    notes = []
    if losing:
        verb = "loses" if len(losing) == 1 else "lose"
        notes.append(f"{name}: {_names(losing)}, outside of this model, {verb} the dropout that is moved")
    if gaining:
        verb = "gets" if len(gaining) == 1 else "get"
        notes.append(f"{name}: {_names(gaining)}, outside of this model, {verb} a dropout at the new place")
    return notes


def _overriding(classes: list[type], method: str) -> list[str]:
    if not classes:
        return []
    return [f"{_names(classes)} {'overrides' if len(classes) == 1 else 'override'} only {method}"]


def _halves(model: nn.Module, old: Method, new: Method) -> tuple[list[type], list[type]]:
    """The classes outside of the model that lose the dropout and do not get it again, and the reverse."""
    inside = {type(module) for module in model.modules()}
    family = dict.fromkeys([old.klass, *subclasses(old.klass), new.klass, *subclasses(new.klass)])
    outside = [kind for kind in family if kind not in inside]
    related = old.klass in new.klass.__mro__ or new.klass in old.klass.__mro__
    if not related:  # the block loses it, and the network that runs the block has it
        losing = [kind for kind in outside if old.runs_in(kind) or _overrides(new, kind)]
        return losing, []
    losing = [kind for kind in outside if old.runs_in(kind) and not new.runs_in(kind)]
    gaining = [kind for kind in outside if new.runs_in(kind) and not old.runs_in(kind)]
    return losing, gaining


def _overrides(method: Method, kind: type) -> bool:
    return method.klass in kind.__mro__ and not method.runs_in(kind)


def subclasses(klass: type) -> Iterator[type]:
    """All loaded subclasses of a class."""
    children: list[type] = type.__subclasses__(klass)
    for child in children:
        yield child
        yield from subclasses(child)


def read_by_subclasses(klass: type, attribute: str) -> bool:
    """Whether a method of a loaded subclass mentions an attribute, in whatever file it is written."""
    return any(attribute in names_in(value) for child in subclasses(klass) for value in vars(child).values())


def _names(classes: list[type]) -> str:
    return listed([kind.__name__ for kind in classes])
