"""A small random graph: node features, edges between the nodes, and what belongs to either.

How wide features are is told by the layers that take them: those of `torch_geometric` say `in_channels`, and
of edges those whose name says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn

NODES, EDGES, GRAPHS = 16, 32, 2
_SEED = 0
_EDGE = re.compile(r"(^|[._])(edge|bond)", re.I)
_WIDTHS = ("in_channels", "in_features", "input_size")
_TRIED = 4


def is_graph(names: list[str]) -> bool:
    """Whether arguments or fields with these names are those of a graph with a list of edges."""
    return "edge_index" in names


def node_features(model: nn.Module) -> Iterator[tuple[torch.Tensor, str]]:
    """Features or codes of the nodes, with the layer that they are guessed from."""
    layers = [(name, module) for name, module in model.named_modules() if not _EDGE.search(name)]
    for name, module in _different(layers):
        origin = f"guessed from {name or type(module).__name__}"
        if isinstance(module, nn.Embedding):
            yield torch.zeros(NODES, dtype=torch.int64), origin
            yield torch.zeros((NODES, 1), dtype=torch.int64), origin
            yield torch.zeros((NODES, _embeddings(layers)), dtype=torch.int64), origin
        else:
            yield torch.empty((NODES, _width(module)), device="meta"), origin


def edges(nodes: int) -> torch.Tensor:
    """Ends of random edges, shape (2, 32), from a fixed seed; every graph of the batch has some."""
    generator = torch.Generator().manual_seed(_SEED)
    graph = torch.arange(EDGES) * GRAPHS // EDGES
    size = max(nodes // GRAPHS, 1)
    return torch.randint(size, (2, EDGES), generator=generator) + graph * (size if nodes >= GRAPHS else 0)


def graph_of(nodes: int) -> torch.Tensor:
    """Which graph of the batch each node belongs to."""
    return torch.arange(nodes) * GRAPHS // max(nodes, 1)


def edge_features(model: nn.Module, main: torch.Tensor) -> list[torch.Tensor | None]:
    """Features of the edges, likeliest first: as wide as what takes them, codes, one weight each, none."""
    found: list[torch.Tensor | None] = []
    for name, module in model.named_modules():
        if isinstance(dim := getattr(module, "edge_dim", None), int):
            found.append(torch.empty((EDGES, dim), device="meta"))
        if _EDGE.search(name) and isinstance(module, nn.Embedding):
            found.append(torch.zeros(EDGES, dtype=torch.int64))
        elif _EDGE.search(name) and _width(module):
            found.append(torch.empty((EDGES, _width(module)), device="meta"))
    weights = torch.empty(EDGES, device="meta")
    return [*found[:_TRIED], weights, torch.empty((EDGES, main.shape[-1]), device="meta"), None]


def _different(layers: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """The first layers that take features of different widths."""
    found: dict[object, tuple[str, nn.Module]] = {}
    for name, module in layers:
        kind = "codes" if isinstance(module, nn.Embedding) else _width(module)
        if kind:
            found.setdefault(kind, (name, module))
    return list(found.values())[:_TRIED]


def _embeddings(layers: list[tuple[str, nn.Module]]) -> int:
    return sum(isinstance(module, nn.Embedding) for _, module in layers)


def _width(module: nn.Module) -> int:
    for name in _WIDTHS:
        value = getattr(module, name, None)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, int) and value > 0 and not hasattr(module, "kernel_size"):
            return value
    return 0
