"""What a dropout's noise reached and does not reach any more once the dropout has moved."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from dropout_lint.fixes.plan.steps import Step
from dropout_lint.fixes.plan.words import target_name
from dropout_lint.graph.ancestry import Ancestry, returns_tensor
from dropout_lint.words import numbered


def reader_notes(flow: Ancestry, steps: Sequence[Step]) -> list[str]:
    """Notes on the dropouts that move away from something that read their output."""
    lost: dict[str, list[str]] = {}
    for step in steps:
        if step.anchor is None or step.action not in ("move", "merge"):
            continue
        for node in lost_readers(flow, step):
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


def lost_readers(flow: Ancestry, step: Step) -> list[fx.Node]:
    """The first nodes on each way from a dropout that neither lead to its new place nor come from there.

    What lies between the old place and the new one is meant to lose the noise; these lose it besides.
    """
    assert step.anchor is not None
    site, producer = step.site.node, step.anchor.producer
    there = [*step.anchor.users, *([] if step.into is None else [step.into.node])]
    between = [
        node
        for node in flow.nodes[flow.index[site] : flow.index[producer] + 1]
        if flow.reaches(site, node) and flow.reaches(node, producer)
    ]
    found = {
        user: None
        for node in between or [site]
        for user in node.users
        if _reads(user)
        and not flow.reaches(user, producer)
        and not any(flow.reaches(place, user) for place in there)
    }
    return list(found)


def _reads(node: fx.Node) -> bool:
    """Whether a node makes a tensor of what it reads, or hands it out; a shape carries no noise."""
    return node.op == "output" or returns_tensor(node)
