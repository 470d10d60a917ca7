"""The model as a drawing: which nodes there are, what feeds what, and where the noise runs. Plain data."""

from __future__ import annotations

from typing import Literal

from dropout_lint.report.schema import Struct

Kind = Literal["input", "output", "dropout", "norm", "weight", "merge", "other"]


class Box(Struct, frozen=True, kw_only=True):
    """One operation.

    Attributes:
        name: qualified name of the module, or the function's name.
        label: its class or function.
        kind: what it is to this tool.
        shape: of its output, "" where it is no single tensor.
        delta: predicted Δ, for norms.
        noisy: noise of an active dropout runs out of it.
    """

    name: str
    label: str
    kind: Kind
    shape: str = ""
    delta: float | None = None
    noisy: bool = False


class Drawing(Struct, frozen=True, kw_only=True):
    """Boxes in the order of the data, and edges between them as pairs of indices."""

    boxes: list[Box]
    edges: list[tuple[int, int]]
