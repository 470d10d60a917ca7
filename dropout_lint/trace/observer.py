"""What the witness saw of each node of the graph: the draws that came in, went out, and were lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from dropout_lint.trace.values import tensors_in
from dropout_lint.trace.witness import Draw, Witness
from dropout_lint.trace.writer import Writer


@dataclass(frozen=True)
class Sight:
    """What was seen in one recording: its draws, and by node what came in, what went out and what was lost.

    Sets of draws are bits of an integer, by their place in `draws`; the attributes are those of `Observer`.
    """

    draws: tuple[Draw, ...]
    came: Mapping[fx.Node, int]
    carried: Mapping[fx.Node, int]
    lost: Mapping[fx.Node, int]

    @property
    def by_hand(self) -> bool:
        """Whether something drew that is no layer."""
        return any(
            draw.node is None or draw.node.op != "call_module" for draw in self.draws if not draw.trial
        )


def arriving(node: fx.Node, bits: Mapping[fx.Node, int]) -> int:
    """The draws in what a node reads, given those in what each node returned."""
    reached = 0
    for source in node.all_input_nodes:
        reached |= bits.get(source, 0)
    return reached


class Observer:
    """Stands between the recorder and the witness, node by node. Sets of draws are bits, as in the witness.

    Attributes:
        came: node → the draws that reached what it read.
        carried: node → the draws in what it returned or wrote.
        lost: node → the draws that came to it by a way that the graph does not show.
    """

    def __init__(self, witness: Witness, writer: Writer) -> None:
        self.came: dict[fx.Node, int] = {}
        self.carried: dict[fx.Node, int] = {}
        self.lost: dict[fx.Node, int] = {}
        self._witness = witness
        self._writer = writer

    def sight(self) -> Sight:
        """All that was seen."""
        return Sight(tuple(self._witness.draws), self.came, self.carried, self.lost)

    def read(self, tensors: Sequence[torch.Tensor]) -> int:
        """The draws in what a node is about to read."""
        if self._witness.idle:
            return 0
        bits = 0
        for tensor in tensors:
            bits |= self._witness.of(tensor)
            unseen = self._writer.bindings.unseen(tensor)
            if unseen:
                node = self._writer.argument(tensor)
                if isinstance(node, fx.Node):
                    self._lose(node, unseen)
        return bits

    def note(
        self, node: fx.Node, since: int, came: int, results: Sequence[torch.Tensor], name: str = ""
    ) -> None:
        """Note what a node made of the draws that `came`, and that the draws since `since` are its own.

        Has to come before `results` are bound to the node.
        """
        witness = self._witness
        if witness.idle:
            return
        own = 0
        for place, draw in enumerate(witness.draws[since:], since):
            if not draw.trial:
                draw.node = node
                draw.operation = name or draw.operation
                own |= 1 << place
        if witness.behind:
            for tensor in results:
                witness.reach(tensor, witness.behind)
        carried = witness.of_all(list(results))
        self.came[node] = came | witness.behind
        self.carried[node] = carried
        self._lose(node, (carried & ~(came | own)) | witness.behind)

    def _lose(self, node: fx.Node, bits: int) -> None:
        if bits:
            self.lost[node] = self.lost.get(node, 0) | bits

    def leave(self, result: Any, behind: int) -> None:
        """A module's forward ends, in which chance decided: what it returns depends on that.

        What is no tensor hands it on to the code that called the module.
        """
        tensors = tensors_in(result)
        for tensor in tensors:
            self._witness.reach(tensor, behind)
        if not tensors or not _only_tensors(result):
            self._witness.behind |= behind


def _only_tensors(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_only_tensors(item) for item in value)
    if isinstance(value, dict):
        return all(_only_tensors(item) for item in value.values())
    return value is None or isinstance(value, torch.Tensor)
