"""Guessed inputs of two fields: the codes and numbers of a table, and small random graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_project import run_in
from torch import nn

import dropout_lint as dl
from dropout_lint.inputs.guess import guess_inputs


class Columns(nn.Module):
    """As fastai writes it: a list of embeddings, a norm for the numbers."""

    def __init__(self, sizes: tuple[tuple[int, int], ...] = ((10, 6), (4, 3), (30, 10)), n_cont: int = 5):
        super().__init__()
        self.embeds = nn.ModuleList([nn.Embedding(*size) for size in sizes])
        self.bn_cont = nn.BatchNorm1d(n_cont)
        self.first = nn.Linear(sum(width for _, width in sizes) + n_cont, 20)
        self.drop, self.bn = nn.Dropout(0.5), nn.BatchNorm1d(20)

    def forward(self, x_cat: torch.Tensor, x_cont: torch.Tensor | None = None) -> torch.Tensor:
        codes = [embed(x_cat[:, i]) for i, embed in enumerate(self.embeds)]
        return self.bn(self.drop(self.first(torch.cat([*codes, self.bn_cont(x_cont)], 1))))


class TwoCodes(nn.Module):
    """Embeddings of their own, and numbers that only the first layer tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Embedding(5, 4), nn.Embedding(7, 3)
        self.first, self.bn, self.drop = nn.Linear(4 + 3 + 6, 16), nn.BatchNorm1d(16), nn.Dropout(0.3)

    def forward(self, cat: torch.Tensor, cont: torch.Tensor) -> torch.Tensor:
        return self.bn(self.drop(self.first(torch.cat([self.a(cat[:, 0]), self.b(cat[:, 1]), cont], 1))))


class NumbersFirst(nn.Module):
    """The numbers come first, and attributes say how many of each there are."""

    def __init__(self) -> None:
        super().__init__()
        self.n_num_features, self.num_categories = 3, 2
        self.offset = nn.Embedding(20, 8)
        self.weight = nn.Parameter(torch.ones(3, 8))
        self.bn, self.drop = nn.BatchNorm1d(40), nn.Dropout(0.3)

    def forward(self, x_num: torch.Tensor, x_cat: torch.Tensor) -> torch.Tensor:
        parts = torch.cat([x_num[..., None] * self.weight, self.offset(x_cat)], 1)
        return self.bn(self.drop(parts.flatten(1)))


class InDict(TwoCodes):
    """The same, in a dict."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return super().forward(batch["x_cat"], batch["x_cont"])


@pytest.mark.parametrize(
    ("model", "described"),
    [
        (Columns(), ["x_cat=2x3:int64", "x_cont=2x5"]),
        (Columns(((3, 2),), 1), ["x_cat=2x1:int64", "x_cont=2x1"]),
        (TwoCodes(), ["cat=2x2:int64", "cont=2x6"]),
        (NumbersFirst(), ["x_num=2x3", "x_cat=2x2:int64"]),
        (InDict(), ["{x_cat: 2x2:int64, x_cont: 2x6}"]),
    ],
)
def test_codes_and_numbers_of_a_table(model: nn.Module, described: list[str]) -> None:
    target = dl.lint(model).target
    assert (target.status, target.inputs_guessed, target.inputs) == ("ok", True, described)
    assert any(finding.code == "DL101" for finding in target.findings)


class Linear(nn.Module):
    """A layer with `in_channels`, as those of torch_geometric have it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.weight = nn.Parameter(torch.ones(out_channels, in_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T


class Conv(nn.Module):
    """Sums what comes along the edges."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.lin = in_channels, Linear(in_channels, out_channels)

    def forward(
        self, x: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor | None = None
    ) -> torch.Tensor:
        sent = self.lin(x)[edge_index[0]]
        sent = sent if edge_attr is None else sent + edge_attr
        return torch.zeros(len(x), sent.shape[1]).index_add(0, edge_index[1], sent)


class Nodes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop, self.bn = Conv(12, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.bn(self.drop(self.conv(x, edge_index)))


class Molecules(nn.Module):
    """Codes of atoms, features of bonds, several graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.atoms, self.bonds = nn.Embedding(20, 8), nn.ModuleDict({"edge_encoder": nn.Linear(5, 8)})
        self.conv, self.drop, self.bn = Conv(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

    def forward(
        self, x: torch.Tensor, edge_index: torch.Tensor, edge_attr: torch.Tensor, batch: torch.Tensor
    ) -> torch.Tensor:
        x = self.conv(self.atoms(x), edge_index, self.bonds["edge_encoder"](edge_attr))
        pooled = torch.zeros(2, 8).index_add(0, batch, self.drop(x))
        return self.bn(pooled)


class Weighted(Nodes):
    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, edge_weight: torch.Tensor) -> torch.Tensor:
        return self.bn(self.drop(self.conv(x, edge_index, edge_weight[:, None])))


class Batched(Nodes):
    """An object that holds the graph, and how many nodes it has."""

    def forward(self, data):  # type: ignore[no-untyped-def]
        assert len(data.x) == data.num_nodes
        return self.bn(self.drop(self.conv(data.x, data.edge_index)))


@pytest.mark.parametrize(
    ("model", "described"),
    [
        (Nodes(), ["16x12", "2x32:int64"]),
        (Molecules(), ["16:int64", "2x32:int64", "32x5", "16:int64"]),
        (Weighted(), ["16x12", "2x32:int64", "32"]),
        (Batched(), ["SimpleNamespace(x=16x12, edge_index=2x32:int64)"]),
    ],
)
def test_a_small_random_graph(model: nn.Module, described: list[str]) -> None:
    target = dl.lint(model).target
    assert target.inputs_guessed
    assert target.inputs == described
    assert any(finding.code in ("DL101", "DL103") for finding in target.findings)


def test_the_edges_of_a_batch_of_graphs_stay_in_their_graph() -> None:
    first = next(guess_inputs(Molecules()))
    _, edges, _, batch = first.args
    assert set(batch.tolist()) == {0, 1}
    assert torch.equal(batch[edges[0]], batch[edges[1]])
    assert len({tuple(edge) for edge in edges.T.tolist()}) > 16  # random, and the same each time
    assert torch.equal(edges, next(guess_inputs(Molecules())).args[1])


def test_a_guess_that_does_not_fit_says_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.first = nn.Embedding(5, 4), nn.Linear(10, 3)\n"
        "    def forward(self, x_cat, x_cont):\n"
        "        if x_cat.shape[1] != 7 or x_cont.shape[1] % 11:\n"
        "            raise ValueError('seven codes, please')\n"
        "        return self.first(x_cont[:, :10])\n"
    )
    done = run_in(tmp_path, "odd:Net", "--no-cache")
    assert "tried (x_cat=2x1:int64, x_cont=2x6), " in " ".join((done.stdout + done.stderr).split())


def test_a_sparse_result_is_unknown_and_no_error_of_ours() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.fc, self.bn = nn.Dropout(0.5), nn.Linear(6, 6), nn.BatchNorm1d(6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sparse = self.drop(torch.ones(8, 8)).to_sparse_csr()
            return self.bn(self.fc(sparse @ x))

    (prediction,) = dl.lint(Net(), torch.randn(8, 6)).predictions
    assert prediction.delta is None or prediction.approximate
