"""What a lint run says about the fix of each finding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dropout_lint.analysis import analyse_trace
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.info import asked, plan
from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.resolving import resolve
from dropout_lint.report.schema import FixInfo
from dropout_lint.trace import trace


def planned(target: str) -> list[tuple[str, FixInfo]]:
    (built,) = resolve(target)
    traced = trace(built.model, built.inputs, constructed=built.constructed)
    analysis = analyse_trace(traced)
    findings, infos = analysis.findings, plan(analysis)
    return [(finding.rule.code, infos[id(finding)]) for finding in findings]


@pytest.mark.parametrize(
    ("target", "code", "strategy", "words"),
    [
        ('fixtures.preresnet:build(position="P4", depth=8)', "DL101", "move", "to P6, before layer1.0.conv2"),
        ("fixtures.written.reused:TwoPlaces", "DL101", "move", "delete one call of dropout"),
        ("fixtures.defects:ActiveInEval", "DL401", "repair", "follow train() and eval()"),
    ],
)
def test_automatic_fixes(target: str, code: str, strategy: str, words: str) -> None:
    found, info = planned(target)[0]
    assert (found, info.applicability, info.strategy) == (code, "automatic", strategy)
    assert words in info.title


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ('fixtures.heads:build(position="H5")', "DL301", "dropout-lint fix --select DL301"),
        ('fixtures.pairs:build(dropout="DropPath")', "DL104", "--strategy"),
    ],
)
def test_what_fix_does_not_do_by_itself_is_not_promised(target: str, code: str, words: str) -> None:
    found, info = planned(target)[0]
    assert (found, info.applicability, info.delta_after) == (code, "manual", None)
    assert words in info.title


def test_delta_after_is_that_of_the_fixed_network() -> None:
    _, info = planned('fixtures.pairs:build(norm="batch")')[0]
    assert info.delta_after == pytest.approx(1.0, abs=1e-6)
    _, info = planned('fixtures.preresnet:build(position="P4", depth=8)')[0]
    assert info.delta_after == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "target",
    [
        'fixtures.preresnet:build(position="P4", depth=8)',
        'fixtures.pairs:build(norm="batch")',
        'fixtures.heads:build(position="H1")',
        "fixtures.written.reused:TwoPlaces",
        "fixtures.defects:ActiveInEvalBeforeNorm",
        "fixtures.defects:InPlaceOnSkip",
    ],
)
def test_what_check_promises_is_what_fix_does(target: str) -> None:
    (built,) = resolve(target)
    analysis = analyse_trace(trace(built.model, built.inputs, constructed=built.constructed))
    infos = plan(analysis)
    fixed = fix_graph(analysis, asked(analysis.findings, "warning"))
    done = {(item.dropout, code): item for item in fixed.applied for code in item.codes}
    after = {shift.norm: shift.delta for shift in fixed.after.norms}
    for finding in analysis.findings:
        assert finding.dropout is not None
        info, item = infos[id(finding)], done.get((finding.dropout.name, finding.rule.code))
        assert (info.applicability == "automatic") == (item is not None)
        if item is not None:
            assert info.strategy == ("move" if item.action == "merge" else item.action)
            if finding.norm is not None:
                assert info.delta_after == pytest.approx(after[finding.norm.name], abs=1e-9)


@pytest.mark.parametrize(
    "target", ["fixtures.defects:DropsEverything", "fixtures.written.conditional:NeverCalled"]
)
def test_what_only_a_person_can_decide_is_manual(target: str) -> None:
    ((_, info),) = planned(target)
    assert info.applicability == "manual" and info.strategy is None and info.title


class Discriminator(nn.Module):
    """Dropout before each of several batch norms: moved to one place they still answer not all findings."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels in ((1, 16), (16, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(channels_in, channels, 3, 2, 1), nn.LeakyReLU(0.2), nn.Dropout2d(0.25)]
            if channels_in > 1:
                layers.append(nn.BatchNorm2d(channels))
        self.model = nn.Sequential(*layers)
        self.score = nn.Linear(128 * 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.model(x).flatten(1))  # type: ignore[no-any-return]  # a module's call is Any


def test_no_move_is_promised_that_the_graph_fix_does_not_make() -> None:
    traced = trace(Discriminator(), Inputs((torch.randn(4, 1, 32, 32),)))
    analysis = analyse_trace(traced)
    infos = plan(analysis)
    done = {item.dropout for item in fix_graph(analysis).applied}
    for finding in analysis.findings:
        assert finding.dropout is not None
        info = infos[id(finding)]
        assert (info.applicability == "automatic") == (finding.dropout.name in done)


def test_nothing_found_plans_nothing() -> None:
    assert planned('fixtures.heads:build(position="H4")') == []


class Attending(nn.Module):
    """Attention that is written out, with dropout on its weights, on its output, and on a weight matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.bn = nn.Linear(8, 24), nn.Linear(8, 8), nn.BatchNorm1d(6)
        self.weights, self.values, self.raw = nn.Dropout(0.2), nn.Dropout(0.2), nn.Dropout(0.2)
        self.late = nn.Dropout(0.4)
        self.head, self.norm, self.last = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.bn(x)).chunk(3, -1)
        scores = self.weights(torch.softmax(q @ k.transpose(1, 2), -1))
        x = x + self.values(self.out(scores @ v))
        h = nn.functional.linear(x.mean(1), self.raw(self.head.weight))
        result: torch.Tensor = self.last(self.norm(self.late(h)))
        return result


def test_attention_weights_and_dropped_weights_are_no_places() -> None:
    analysis = analyse_trace(trace(Attending(), Inputs((torch.randn(4, 6, 8),))))
    assert "DL204" not in {finding.rule.code for finding in analysis.findings}
    promised = plan(analysis)
    titles = [promised[id(finding)].title for finding in analysis.findings]
    assert any("late" in title for title in titles) and not any("weights" in title for title in titles)
