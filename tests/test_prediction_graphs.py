"""Networks on graphs whose edges are an input: predicted Δ against what plain torch measures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from brute_force import measured, untrained
from torch import Tensor, nn

NODES, DEGREE, WIDTH, HEADS = 600, 5, 16, 4
EDGES = torch.stack([torch.randint(NODES, (NODES * DEGREE,)), torch.randint(NODES, (NODES * DEGREE,))])


class Net(nn.Module):
    """x → linear → dropout → what the graph makes of it → norm."""

    def __init__(self, passed: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.score = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, HEADS)
        self.drop, self.norm, self.passed = nn.Dropout(0.5), nn.BatchNorm1d(WIDTH), passed

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.drop(self.fc(x))
        return self.norm(self.passed(h, edge_index, self.score(h)))  # type: ignore[no-any-return]


class OnOneGraph(nn.Module):
    """The network on `EDGES`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, EDGES)  # type: ignore[no-any-return]  # a module's call is Any


def total(rows: Tensor, to: Tensor) -> Tensor:
    """Sums of rows by the node that they go to."""
    index = to.view(-1, *[1] * (rows.dim() - 1)).expand_as(rows)
    return rows.new_zeros(NODES, *rows.shape[1:]).scatter_add_(0, index, rows)


def most(rows: Tensor, to: Tensor) -> Tensor:
    index = to.view(-1, 1).expand_as(rows)
    return rows.new_zeros(NODES, rows.shape[1]).scatter_reduce_(0, index, rows, "amax", include_self=False)


def with_self_loops(edges: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    loops = torch.arange(0, nodes, device=edges.device).view(1, -1).repeat(2, 1)
    both = torch.cat([edges[:, edges[0] != edges[1]], loops], 1)
    return both[0], both[1]


def plain_sum(h: Tensor, edges: Tensor, _: Tensor) -> Tensor:
    return total(h[edges[0]], edges[1])


def normalised_by_degree(h: Tensor, edges: Tensor, _: Tensor) -> Tensor:
    source, to = with_self_loops(edges, h.shape[0])
    root = total(torch.ones(len(to), dtype=h.dtype, device=h.device), to).pow(-0.5)
    return total(h[source] * (root[source] * root[to])[:, None], to)


def softmax_over_groups(score: Tensor, to: Tensor) -> Tensor:
    e = (score - most(score.detach(), to).index_select(0, to)).exp()
    return e / (total(e, to) + 1e-16).index_select(0, to)


def attention(h: Tensor, edges: Tensor, score: Tensor) -> Tensor:
    source, to = with_self_loops(edges, h.shape[0])
    weights = softmax_over_groups(score[source] + score[to], to)
    rows = h.view(NODES, HEADS, -1)[source] * weights[..., None]
    return total(rows, to).flatten(1)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("passed", [plain_sum, normalised_by_degree, attention])
def test_edges_that_are_an_input_keep_their_places(
    passed: Callable[[Tensor, Tensor, Tensor], Tensor], real: bool
) -> None:
    net, x = Net(passed), torch.randn(NODES, WIDTH)
    shift = untrained(net, x, EDGES, real=real)["norm"]
    assert not shift.unknown
    assert shift.delta == pytest.approx(measured(OnOneGraph(net), x, 16)["net.norm"], abs=0.05)
