"""What a fix decides: which dropout goes where, what is left to people, and what is said of it."""

from __future__ import annotations

import random

import pytest
import torch
from fix_graphs import codes, of, traced, worst
from torch import nn
from torch.nn import functional as F

from dropout_lint.analysis import analyse, analyse_trace
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.anchors import anchors_for
from dropout_lint.fixes.plan.info import plan
from dropout_lint.graph.ancestry import Ancestry
from dropout_lint.inputs.example import Inputs
from dropout_lint.trace import trace


def stack(order: str, p: float, depth: int = 3) -> nn.Sequential:
    """Blocks of convolution, norm, activation and dropout in the order of a string, pooling, classifier."""
    layers: list[nn.Module] = []
    for channels in (3, *[16] * (depth - 1)):
        parts = {"C": nn.Conv2d(channels, 16, 3, padding=1), "D": nn.Dropout(p)}
        parts |= {"N": nn.BatchNorm2d(16), "A": nn.ReLU()}
        layers += [parts[letter] for letter in order]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def order_of(model: nn.Module, inputs: Inputs) -> str:
    letters = {"Conv2d": "C", "Dropout": "D", "BatchNorm2d": "N", "ReLU": "A"}
    again = trace(model, inputs)
    kinds = [
        type(again.model.get_submodule(str(node.target))).__name__
        for node in again.graph.nodes
        if node.op == "call_module"
    ]
    return "".join(letters.get(kind, "") for kind in kinds)


@pytest.mark.parametrize(("order", "p"), [("CDNA", 0.1), ("CDNA", 0.4), ("CADN", 0.3)])
def test_blocks_that_drop_before_their_norm_drop_behind_it_all_alike(order: str, p: float) -> None:
    before = of(stack(order, p), 4, 3, 12, 12)
    fixed = fix_graph(analyse_trace(before))
    assert [item.action for item in fixed.applied] == ["move"] * 3
    assert order_of(fixed.model, before.inputs) == (order.replace("D", "") + "D") * 3
    assert "DL101" not in codes(fixed.model, before.inputs)
    assert worst(fixed.after) > worst(fixed.before) + 0.05


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_one_dropout_for_a_stack_of_blocks_is_for_people_to_decide(p: float) -> None:
    before = of(stack("CNAD", p), 4, 3, 12, 12)
    fixed = fix_graph(analyse_trace(before))
    assert not fixed.applied and {item.codes for item in fixed.skipped} == {("DL102",)}
    assert all("have weight layers between them" in item.reason for item in fixed.skipped)
    assert all("`--strategy move` would, with one dropout for all" in item.advice for item in fixed.skipped)
    asked = fix_graph(analyse_trace(before), strategy="move")
    assert len(trace(asked.model, before.inputs).dropouts) == 1 and not codes(asked.model, before.inputs)


class ConvModule(nn.Module):
    """As in Conformers, with a dropout before the norm besides."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.bn = nn.LayerNorm(8), nn.BatchNorm1d(16)
        self.pw1, self.pw2 = nn.Conv1d(8, 16, 1), nn.Conv1d(16, 8, 1)
        self.first, self.last = nn.Dropout(0.3), nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn(self.first(self.pw1(self.norm(x).transpose(1, 2)))).sigmoid()
        out = self.last(self.pw2(out)).transpose(1, 2)
        return x + out


def test_one_of_two_that_stays_goes_where_both_belong() -> None:
    titles = [item.title for item in fix_graph(analyse_trace(of(ConvModule(), 4, 20, 8))).applied]
    assert [title.partition(" (")[0] for title in titles] == ["move last", "delete first"]
    assert "last goes where both belong, and one dropout is enough there" in titles[1]


def test_a_ratio_is_not_lowered_for_what_the_other_steps_do() -> None:
    """As in tabular models: once the dropout before the norm has moved, the one on the embeddings is fine."""
    layers = [nn.Linear(17, 32), nn.ReLU(), nn.Dropout(0.2), nn.BatchNorm1d(32)]
    layers += [nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.2), nn.BatchNorm1d(16), nn.Linear(16, 2)]
    analysis = analyse_trace(of(nn.Sequential(nn.Dropout(0.1), *layers), 32, 17))
    assert {item.dropout.name for item in analysis.findings if item.dropout is not None} == {"0", "3", "7"}
    fixed = fix_graph(analysis)
    assert [(item.dropout, item.action) for item in fixed.applied] == [("3", "move"), ("7", "move")]
    assert "0" not in {item.dropout for item in fixed.skipped}
    promises = [plan(analysis)[id(item)].title for item in analysis.findings]
    assert sum("the fixes of the other findings answer it" in title for title in promises) == 1


def test_a_dropout_does_not_pass_those_of_other_blocks() -> None:
    """The stem's place is behind the trunk, whose blocks have a dropout each; alone, it goes there."""

    def network(dropouts: int) -> nn.Sequential:
        model = stack("CNAD", 0.2, 4)
        drops = [name for name, module in model.named_children() if isinstance(module, nn.Dropout)]
        for number, name in enumerate(drops):
            p = 0.4 if number == 0 else 0.01 if number < dropouts else 0.0
            setattr(model, name, nn.Dropout(p) if p else nn.Identity())
        return model

    for dropouts, moves in ((1, True), (2, False), (4, False)):
        fixed = fix_graph(analyse_trace(of(network(dropouts), 4, 3, 12, 12)))
        assert bool(fixed.applied) is moves and bool(fixed.skipped) is not moves


def test_what_is_advised_answers_the_finding() -> None:
    for target in ("fixtures.vgg_bn:build(feature_dropout=0.3)", "fixtures.videopose:build"):
        before = traced(target)
        for left in fix_graph(analyse_trace(before)).skipped:
            for strategy in ("move", "uout", "reduce", "remove"):
                if f"--strategy {strategy}" in left.advice:
                    fixed = fix_graph(analyse_trace(before), strategy=strategy)  # type: ignore[arg-type]
                    unanswered = {(item.dropout, item.codes) for item in fixed.skipped}
                    assert (left.dropout, left.codes) not in unanswered


def test_other_noise_is_advised_and_written_where_it_is_asked_for() -> None:
    before = traced("fixtures.mlp_bn:build")
    left = fix_graph(analyse_trace(before)).skipped
    assert len(left) == 2 and all("--strategy uout" in item.advice for item in left)
    fixed = fix_graph(analyse_trace(before), strategy="uout")
    assert [item.action for item in fixed.applied] == ["uout"] * 2 and not fixed.skipped
    assert codes(fixed.model, before.inputs) == []


def test_no_dropout_is_moved_onto_what_may_be_the_predictions() -> None:
    vectors = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.BatchNorm1d(8))
    assert not fix_graph(analyse_trace(of(vectors, 4, 8))).applied
    features = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(0.3), nn.BatchNorm2d(8))
    assert [item.action for item in fix_graph(analyse_trace(of(features, 4, 3, 8, 8))).applied] == ["move"]


class Crowded(nn.Module):
    """Dropouts before and behind norms, one of them between the last norm and its activation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.bn3, self.drop4, self.drop5 = nn.BatchNorm2d(6), nn.Dropout(0.1), nn.Dropout(0.1)
        self.net6 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.conv7, self.bn8 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.drop9, self.drop10 = nn.Dropout(0.1), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.net6(F.relu(self.drop5(self.bn3(self.drop4(self.conv2(self.stem(x)))))))
        return x + self.drop10(self.drop9(self.bn8(self.conv7(x))).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(4))
def test_a_place_beside_a_dropout_that_goes_too(seed: int) -> None:
    torch.manual_seed(seed)
    fixed = fix_graph(analyse_trace(of(Crowded(), 4, 3, 8, 8)))
    assert fixed.applied and not fix_graph(analyse(fixed.model, Inputs((torch.randn(4, 3, 8, 8),)))).applied


def test_what_is_left_is_tried_again_where_the_others_have_moved() -> None:
    """Beside one that has moved, dropouts may be lowered; and it stays where it was moved to."""
    blocks = [
        layer
        for _ in range(3)
        for layer in (nn.Dropout(0.12), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    ]
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )
    fixed = fix_graph(analyse_trace(of(model, 4, 3, 8, 8)))
    assert sorted(item.action for item in fixed.applied) == ["move", "reduce", "reduce"]
    assert not fixed.skipped
    drops = [module.p for module in fixed.model.modules() if isinstance(module, nn.Dropout)]
    assert sorted(drops) == [0.07, 0.07, 0.12]
    assert not fix_graph(analyse(fixed.model, Inputs((torch.randn(4, 3, 8, 8),)))).applied


@pytest.mark.parametrize(("p", "severe"), [(0.2, False), (0.7, True)])
def test_what_leaving_a_severe_shift_costs_is_said(p: float, severe: bool) -> None:
    """Nothing is written that changes the noise itself, but the advice does not stop at what would."""
    blocks = [
        layer
        for _ in range(3)
        for layer in (nn.Dropout(p), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    ]
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )
    analysis = analyse_trace(of(model, 4, 3, 8, 8))
    deltas = {
        item.dropout.name: item.facts.delta for item in analysis.findings if item.dropout and item.facts
    }
    fixed = fix_graph(analysis)
    assert fixed.skipped and not any(item.action in ("uout", "remove") for item in fixed.applied)
    for left in fixed.skipped:
        delta = deltas[left.dropout or ""]
        assert delta is not None
        assert ("lost test error" in left.advice) == (delta < 0.5) == severe


class InTheWay(nn.Module):
    """The end of the branch is taken, by a dropout that the same fix deletes or moves behind the add."""

    def __init__(self, behind: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.branch = nn.Sequential(
            nn.Dropout(0.1), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.end = nn.Dropout(0.1)
        self.behind = nn.Sequential(*(nn.Dropout(0.1) for _ in range(behind)))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.behind(x + self.end(self.branch(x)))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]  # a module's call is Any


@pytest.mark.parametrize(("behind", "end"), [(2, "merge"), (1, "merge"), (0, "move")])
def test_a_dropout_that_the_fix_takes_away_is_in_nobodys_way(behind: int, end: str) -> None:
    """Judged as the network will be, not as it is: else a second fix finds room that the first one made."""
    fixed = fix_graph(analyse_trace(of(InTheWay(behind), 4, 3, 8, 8)))
    assert {item.dropout: item.action for item in fixed.applied} == {"branch.0": "move", "end": end}
    assert not fixed.skipped
    assert not fix_graph(analyse(fixed.model, Inputs((torch.randn(4, 3, 8, 8),)))).applied


class Bottleneck(nn.Module):
    """A layer of a DenseNet with a dropout behind each convolution; behind the first there is a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1, self.conv1, self.drop1 = (
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, 12, 1),
            nn.Dropout(0.3),
        )
        self.bn2, self.conv2, self.drop2 = nn.BatchNorm2d(12), nn.Conv2d(12, 3, 3, padding=1), nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop1(self.conv1(self.bn1(x).relu()))
        return torch.cat([x, self.drop2(self.conv2(self.bn2(y).relu()))], 1)


def test_a_dense_layer_keeps_both_of_its_dropouts() -> None:
    """The first goes behind its norm; the other, a convolution away, is not made one with it."""
    layers = nn.Sequential(*(Bottleneck(6 + 3 * number) for number in range(3)))
    model = nn.Sequential(
        layers, nn.BatchNorm2d(15), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(15, 2)
    )
    fixed = fix_graph(analyse_trace(of(model, 4, 6, 8, 8)))
    assert {item.dropout: item.action for item in fixed.applied} == {
        f"0.{number}.drop1": "move" for number in range(3)
    }
    assert worst(fixed.after) > worst(fixed.before)
    assert not fix_graph(analyse(fixed.model, Inputs((torch.randn(4, 6, 8, 8),)))).applied


class BesideAMaskByHand(nn.Module):
    """Two blocks that drop before their norm; what the second drops is written by hand, and stays."""

    def __init__(self, p: float, by_hand: float) -> None:
        super().__init__()
        self.conv1, self.drop, self.bn1 = nn.Conv2d(3, 16, 3, padding=1), nn.Dropout(p), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.fc, self.p = nn.Linear(16, 4), by_hand

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.bn1(self.drop(self.conv1(x))).relu())
        if self.training:
            y = y * torch.empty_like(y).bernoulli_(1 - self.p) / (1 - self.p)
        return self.fc(self.bn2(y).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("p", "by_hand", "moved"),
    [(0.3, 0.3, False), (0.5, 0.1, True), (0.1, 0.3, True)],
    ids=["the worst norm that it shifts stays", "that one comes nearer", "it hardly shifts that one"],
)
def test_a_dropout_moves_where_the_worst_norm_that_it_shifts_comes_nearer(
    p: float, by_hand: float, moved: bool
) -> None:
    fixed = fix_graph(analyse_trace(of(BesideAMaskByHand(p, by_hand), 4, 3, 12, 12)))
    assert [item.action for item in fixed.applied] == ["move"] * moved
    left = {item.dropout: item.reason for item in fixed.skipped}["drop"]
    assert ("the worst that its noise shifts is then bn2: Δ 0.6" in left) is not moved


class BeforeAMaskByHand(nn.Module):
    """At the end of its branch the dropout's noise comes to a norm that what stays shifts already."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.drop = nn.Conv2d(3, 16, 3, padding=1), nn.Dropout(0.3)
        self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = x + self.bn1(self.conv1(self.drop(x))).relu()
        if self.training:
            x = x * torch.empty_like(x).bernoulli_(0.85) / 0.85
        return self.fc(self.bn2(self.conv2(x)).relu().mean((2, 3)))  # type: ignore[no-any-return]


def test_what_is_won_at_one_norm_is_not_lost_at_the_next() -> None:
    fixed = fix_graph(analyse_trace(of(BeforeAMaskByHand(), 4, 3, 12, 12)))
    left = {item.dropout: item.reason for item in fixed.skipped}["drop"]
    assert not fixed.applied and "the worst that its noise shifts is then bn2: Δ 0.89 → 0.8" in left


class SkipOfADecoder(nn.Module):
    """What an encoder hands to the decoder is dropped, and put beside what that made."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.stem, self.drop = nn.Conv2d(3, 16, 3, padding=1), nn.Dropout(p)
        self.down, self.bn1 = nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.up, self.bn2 = nn.ConvTranspose2d(16, 16, 2, 2), nn.BatchNorm2d(16)
        self.conv, self.bn3 = nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.stem(x).relu()
        x = self.bn2(self.up(self.bn1(self.down(skip)).relu())).relu()
        x = self.bn3(self.conv(torch.cat([self.drop(skip), x], 1))).relu()
        return self.head(x)  # type: ignore[no-any-return]  # a module's call is Any


@pytest.mark.parametrize("p", [0.5, 0.7])
def test_noise_of_one_part_of_a_concatenation_is_not_moved_to_the_other(p: float) -> None:
    """Nor is its ratio lowered by a hundredth because a rule asks for less than 0.5."""
    trace = of(SkipOfADecoder(p), 4, 3, 12, 12)
    (site,) = trace.dropouts
    assert all(anchor.producer.name == "relu_3" for anchor in anchors_for(Ancestry(trace), site))
    fixed = fix_graph(analyse_trace(trace))
    assert not any(item.action == "reduce" for item in fixed.applied) or worst(fixed.before) < 0.95


class ScaledByChance(nn.Module):
    """What Δ is at the norm is not known as long as the dropout stands before it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.drop, self.bn = nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and random.random() < 0.3:
            return x
        return self.bn(self.drop(self.fc(x)) + random.random() * x)  # type: ignore[no-any-return]


def test_a_norm_of_which_nothing_is_known_decides_nothing() -> None:
    analysis = analyse(ScaledByChance(), torch.ones(16, 8))
    assert [shift.delta for shift in analysis.prediction.norms] == [None]
    assert analysis.findings
    plan(analysis)
