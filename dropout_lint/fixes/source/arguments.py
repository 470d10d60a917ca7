"""Arguments and settings that nothing reads any more once the dropout that they were for is gone."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dropout_lint.fixes.plan.steps import Step
from dropout_lint.fixes.source.errors import CannotExpress
from dropout_lint.fixes.source.locate import Sources
from dropout_lint.fixes.source.write import Change
from dropout_lint.words import listed

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Dead:
    """A parameter of a function, or an attribute that a class stores, which nothing reads any more.

    Attributes:
        name: its name; "" for a function that only hands on what it is given any more.
        of: the class or function that takes it.
    """

    name: str
    of: str

    @property
    def stored(self) -> bool:
        """Whether it is an attribute: harmless, but nothing to write by oneself."""
        return self.name.startswith("self.")

    def __str__(self) -> str:
        return f"`{self.name}` of {self.of} is taken and" if self.name else f"`{self.of}`"


def dead_arguments(changes: Sequence[Change]) -> list[Dead]:
    """What was read in the files as they were, and in the edited ones is taken or stored, but not read."""
    found: list[Dead] = []
    for change in changes:
        if change.raw is None:
            continue
        before, after = ast.parse(change.before), ast.parse(change.after)
        now = dict(_functions(after))
        for path, function in _functions(before):
            if path not in now:
                continue
            if _hands_on(now[path]) and not _hands_on(function):
                found.append(Dead("", path))
                continue
            owner = path.removesuffix(".__init__")
            read = _read(function) & _parameters(function)
            found += [Dead(name, owner) for name in sorted(read & _parameters(now[path]) - _read(now[path]))]
        lost = _attributes(before, ast.Load) - _attributes(after, ast.Load)
        stored = {
            Dead(f"self.{name}", path.rpartition(".")[0] or path)
            for path, item in now.items()
            for name in _stored_from_parameter(item) & lost
        }
        found += sorted(stored, key=str)
    return found


def refuse_dead(sources: Sources, steps: Sequence[Step], dead: Sequence[Dead]) -> None:
    """Refuse to leave arguments behind that do nothing.

    Raises:
        CannotExpress: there are some; the step is the first whose dropout takes one of them for its ratio.
    """
    if not dead:
        return
    names = [item.name.removeprefix("self.") for item in dead if item.name]
    words = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names) or r"\Z.")
    erased = [step for step in steps if step.action in ("merge", "move", "remove", "uout")]
    blamed = next((step for step in erased if words.search(_written(sources, step))), None)
    taken = [f"`{item.name}` of {item.of}" for item in dead if item.name]
    told = [f"{listed([f'`{item.of}`' for item in dead if not item.name])} would do nothing any more"]
    told = told if len(taken) < len(dead) else []
    if taken:
        told.append(
            f"{listed(taken)} would be taken and {'does' if len(taken) == 1 else 'do'} nothing any more"
        )
    raise CannotExpress(
        " and ".join(told),
        "take that away together with the dropout, where its callers are known",
        blamed or (erased or list(steps))[0],
    )


def _functions(tree: ast.AST, path: str = "") -> Iterator[tuple[str, Function]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{path}.{node.name}" if path else node.name
            if not isinstance(node, ast.ClassDef):
                yield name, node
            yield from _functions(node, name)
        else:
            yield from _functions(node, path)


def _hands_on(function: Function) -> bool:
    """Whether a function does nothing but return one of its parameters."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    last = body[0] if len(body) == 1 else None
    value = last.value if isinstance(last, ast.Return) else None
    return isinstance(value, ast.Name) and value.id in _parameters(function)


def _parameters(function: Function) -> set[str]:
    given = function.args
    return {item.arg for item in (*given.posonlyargs, *given.args, *given.kwonlyargs)}


def _read(function: Function) -> set[str]:
    return {
        node.id
        for part in function.body
        for node in ast.walk(part)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _attributes(tree: ast.AST, context: type[ast.expr_context]) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, context)
    }


def _stored_from_parameter(function: Function) -> set[str]:
    """`self.p = p`: attributes that hold a parameter as it is."""
    parameters = _parameters(function)
    return {
        target.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in parameters
        for target in node.targets
        if isinstance(target, ast.Attribute)
    }


def _written(sources: Sources, step: Step) -> str:
    """The source of a dropout's constructor and call, as far as they are known."""
    found = []
    with contextlib.suppress(CannotExpress):
        found.append(sources.call(step.site.node))
    if step.site.module is not None:
        with contextlib.suppress(CannotExpress):
            found.append(sources.construction(step.site.module))
    return "\n".join(source.code(call) for source, call in found)
