"""Dominators and counts along ways, against brute force over all ways of random graphs."""

from __future__ import annotations

import operator
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from dropout_lint.graph.flow import ROOT, Flow
from dropout_lint.graph.operations import Kind
from dropout_lint.inputs.example import Inputs
from dropout_lint.layers import NormSpec
from dropout_lint.survey.reach import Reach
from dropout_lint.trace.traced import NormSite, TensorInfo, Trace

VALUE = TensorInfo((2, 4, 8, 8), torch.float32)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()


Steps = list[tuple[str, tuple[int, int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Steps:
    """One or two inputs, then nodes that each read one or two earlier nodes."""
    steps: Steps = [("input", (0, 0))] * draw(st.integers(1, 2))
    for place in range(len(steps), draw(st.integers(3, 12))):
        earlier = st.integers(0, place - 1)
        kind = draw(st.sampled_from(("linear", "norm", "act", "add")))
        steps.append((kind, (draw(earlier), draw(earlier))))
    return steps


def record(steps: Steps) -> Trace:
    graph, model = fx.Graph(), Parts()
    nodes: list[fx.Node] = []
    norms = []
    for place, (kind, (one, other)) in enumerate(steps):
        if kind == "input":
            node = graph.placeholder(f"x{place}")
        elif kind == "add":
            node = graph.call_function(operator.add, (nodes[one], nodes[other]))
        else:
            node = graph.call_module(kind, (nodes[one],))
        node.meta["value"] = VALUE
        if kind == "norm":
            norms.append(NormSite(node, f"norm{place}", NormSpec("BatchNorm2d", "batch", True), "norm", ""))
        nodes.append(node)
    graph.output(tuple(nodes[len(nodes) // 2 :]))
    return Trace(model, graph, "fake", Inputs(), (), tuple(norms))


def ways_between(flow: Flow, start: int, end: int) -> list[list[int]]:
    """Every way from `start` to `end`, by enumeration."""
    if start == end:
        return [[end]]
    return [[start, *way] for user in flow.users[start] for way in ways_between(flow, user, end)]


def ways_from_inputs(flow: Flow, end: int) -> list[list[int]]:
    starts = [number for number, node in enumerate(flow.nodes) if node.op == "placeholder"]
    return [way for start in starts for way in ways_between(flow, start, end)]


@given(graphs())
def test_a_dominator_lies_on_every_way(steps: Steps) -> None:
    flow = Flow(record(steps))
    for below in range(len(flow.nodes)):
        ways = ways_from_inputs(flow, below)
        for above in range(len(flow.nodes)):
            assert flow.dominates(above, below) == all(above in way for way in ways)
        common = set.intersection(*map(set, ways)) - {below}
        assert flow.parent[below] == max(common, default=ROOT)
        assert set(flow.upwards(below)) == common


@given(graphs())
def test_counts_are_those_of_the_longest_and_shortest_ways(steps: Steps) -> None:
    flow = Flow(record(steps))
    for number in range(len(flow.nodes)):
        counts = [
            sum(1 for step in way if Kind.WEIGHT in flow.kinds[step])
            for way in ways_from_inputs(flow, number)
        ]
        assert (flow.weights[number], flow.fewest_weights[number]) == (max(counts), min(counts))


@given(graphs())
def test_between_a_node_and_one_that_it_dominates_counts_are_differences(steps: Steps) -> None:
    flow = Flow(record(steps))
    for below in range(len(flow.nodes)):
        for above in flow.upwards(below):
            counts = [
                sum(1 for step in way[1:] if Kind.WEIGHT in flow.kinds[step])
                for way in ways_between(flow, above, below)
            ]
            assert flow.weights[below] - flow.weights[above] == max(counts)
            assert flow.fewest_weights[below] - flow.fewest_weights[above] == min(counts)


@given(graphs())
def test_the_norms_reached_are_the_first_on_some_way(steps: Steps) -> None:
    flow = Flow(record(steps))
    reach = Reach(flow)
    norms = [number for number, kind in enumerate(flow.kinds) if Kind.SHIFTING_NORM in kind]
    for start in range(len(flow.nodes)):
        found = reach.ways(start)
        first: dict[int, int] = {}
        for norm in norms:
            clear = [
                way
                for way in ways_between(flow, start, norm)
                if norm != start and not any(step in norms for step in way[1:-1])
            ]
            if clear:
                first[norm] = min(sum(1 for s in way[1:-1] if Kind.WEIGHT in flow.kinds[s]) for way in clear)
        assert {way.norm: way.weights for way in found} == first
        for way in found:
            assert way.steps[0] == start and way.steps[-1] == way.norm
            assert all(b in flow.users[a] for a, b in pairwise(way.steps))
        if found:
            assert found[0].weights == min(first.values())
