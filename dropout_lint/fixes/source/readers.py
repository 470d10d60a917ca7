"""What a dropout's noise reached and does not reach any more once the dropout has moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import fx

from dropout_lint.fixes.plan.steps import Step
from dropout_lint.fixes.plan.words import target_name
from dropout_lint.graph.ancestry import returns_tensor
from dropout_lint.words import numbered


def reader_notes(steps: Sequence[Step]) -> list[str]:
    """Notes on the dropouts that move away from something that read their output."""
    lost: dict[str, list[str]] = {}
    for step in steps:
        if step.anchor is None or step.action not in ("move", "merge"):
            continue
        for node in lost_readers(step):
            lost.setdefault(step.site.name, []).append(
                "the output" if node.op == "output" else target_name(node)
            )
    together: dict[tuple[str, ...], list[str]] = {}
    for name, readers in lost.items():
        together.setdefault(tuple(dict.fromkeys(readers)), []).append(name)
    return [
        f"{numbered(names, 3)}: {numbered(readers, 3)} no longer {'sees' if len(readers) == 1 else 'see'} "
        f"{'its' if len(names) == 1 else 'their'} noise"
        for readers, names in together.items()
    ]


def lost_readers(step: Step) -> list[fx.Node]:
    """The first nodes on each way from a dropout that neither lead to its new place nor come from there.

    What lies between the old place and the new one is meant to lose the noise; these lose it besides.
    """
    assert step.anchor is not None
    into = step.into.node if step.into is not None else None
    between = {step.site.node, *_reached([step.anchor.producer], lambda node: node.all_input_nodes)}
    seen = _reached([*step.anchor.users, *([into] if into is not None else [])], _users)
    found: dict[fx.Node, None] = {}
    for node in _reached([step.site.node], _users):
        if node not in between:
            continue
        for user in node.users:
            if user not in between and user not in seen and _reads(user):
                found[user] = None
    return list(found)


def _reads(node: fx.Node) -> bool:
    """Whether a node makes a tensor of what it reads, or hands it out; a shape carries no noise."""
    return node.op == "output" or returns_tensor(node)


def _reached(nodes: Iterable[fx.Node], onwards: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    """Some nodes and all that are reached from them, one step being `onwards`."""
    found, waiting = set(nodes), list(nodes)
    while waiting:
        for node in onwards(waiting.pop()):
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def _users(node: fx.Node) -> Iterable[fx.Node]:
    return node.users
