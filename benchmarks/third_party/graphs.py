"""torch_geometric: graph networks, whose neighbours' features are gathered and added up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .data import graph, rows
from .entry import Entry, named

_NODES = 384


def _basic(name: str, **options: Any) -> nn.Module:
    from torch_geometric.nn import models

    options = {"dropout": 0.5, "norm": "batch_norm", **options}
    model: nn.Module = getattr(models, name)(20, 32, 3, 5, **options)
    return model


def _pna() -> nn.Module:
    return _basic(
        "PNA",
        aggregators=["mean", "max", "std"],
        scalers=["identity", "amplification"],
        deg=torch.tensor([0, 0, 0, 0, _NODES]),
    )


def _mlp() -> nn.Module:
    from torch_geometric.nn import MLP

    return MLP([20, 64, 64, 64, 5], dropout=0.4)


class _Gps(nn.Module):
    """Two layers of "Recipe for a general, powerful, scalable graph transformer"."""

    def __init__(self) -> None:
        from torch_geometric.nn import GINConv, GPSConv

        super().__init__()
        self.into = nn.Linear(20, 32)
        self.layers = nn.ModuleList(
            GPSConv(
                32, GINConv(nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))), 4, dropout=0.4
            )
            for _ in range(2)
        )
        self.out = nn.Linear(32, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.into(x)
        for layer in self.layers:
            x = layer(x, edge_index)
        return self.out(x)


class _DeepGcn(nn.Module):
    """The package's example of DeeperGCN, smaller."""

    def __init__(self) -> None:
        from torch_geometric.nn import DeepGCNLayer, GENConv

        super().__init__()
        self.node_encoder = nn.Linear(20, 32)
        self.layers = nn.ModuleList(
            DeepGCNLayer(
                GENConv(32, 32, aggr="softmax", learn_t=True, num_layers=2, norm="batch"),
                nn.BatchNorm1d(32),
                nn.ReLU(),
                block="res+",
                dropout=0.3,
            )
            for _ in range(4)
        )
        self.lin = nn.Linear(32, 5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.layers[0].conv(self.node_encoder(x), edge_index)
        for layer in self.layers[1:]:
            x = layer(x, edge_index)
        return self.lin(self.layers[0].act(self.layers[0].norm(x)))


class _OfData(nn.Module):
    """A network that is handed a `Data` object, as the package's introduction writes it."""

    def __init__(self) -> None:
        from torch_geometric.nn import BatchNorm, GCNConv

        super().__init__()
        self.conv1, self.conv2 = GCNConv(20, 32), GCNConv(32, 5)
        self.norm = BatchNorm(32)

    def forward(self, data: Any) -> Tensor:
        x = nn.functional.dropout(data.x, 0.5, training=self.training)
        x = self.norm(self.conv1(x, data.edge_index)).relu()
        return self.conv2(x, data.edge_index)


def _data(generator: torch.Generator) -> tuple[Any]:
    from torch_geometric.data import Data

    x, edge_index = graph(_NODES)(generator)
    return (Data(x=x, edge_index=edge_index),)


def _sgformer() -> nn.Module:
    from torch_geometric.nn.models import SGFormer

    return SGFormer(20, 32, 5, trans_dropout=0.3, gnn_dropout=0.4)


def _polynormer() -> nn.Module:
    from torch_geometric.nn.models import Polynormer

    return Polynormer(20, 32, 5, local_layers=3, dropout=0.3, local_attn=True)


def _batched(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    return *graph(_NODES)(generator), torch.zeros(_NODES, dtype=torch.int64)


def _linkx() -> nn.Module:
    from torch_geometric.nn import LINKX

    return LINKX(_NODES, 20, 32, 5, num_layers=3, num_edge_layers=2, num_node_layers=2, dropout=0.4)


def entries() -> dict[str, Entry]:
    """All of them."""
    return named("torch-geometric", _entries())


def _entries() -> Iterator[Entry]:
    batch = graph(_NODES)
    yield Entry("GCN", lambda: _basic("GCN"), batch)
    yield Entry("GCN-residual", lambda: _basic("GCN", jk="lstm", act_first=True), batch)
    yield Entry("GIN", lambda: _basic("GIN", train_eps=True), batch)
    yield Entry("GraphSAGE", lambda: _basic("GraphSAGE", jk="cat"), batch)
    yield Entry("GAT", lambda: _basic("GAT", heads=4, v2=True), batch)
    yield Entry("PNA", _pna, batch)
    yield Entry("EdgeCNN", lambda: _basic("EdgeCNN"), batch)
    yield Entry("MLP", _mlp, rows(_NODES))
    yield Entry("GPSConv", _Gps, batch)
    yield Entry("DeepGCNLayer", _DeepGcn, batch)
    yield Entry("Data", _OfData, _data)
    yield Entry("SGFormer", _sgformer, _batched)
    yield Entry("Polynormer", _polynormer, _batched)
    yield Entry("LINKX", _linkx, batch)
