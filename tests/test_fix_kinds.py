"""Each kind of fault in the spellings that people use: a fix does what it says, and nothing else.

What runs is counted by exchanging torch's functions, not by the tool's own words.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropout_lint.analysis import Analysis, analyse
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.planner import Plan
from dropout_lint.fixes.plan.steps import Applied, Fixed, Skipped
from dropout_lint.fixes.plan.trials import Trials
from dropout_lint.fixes.source.engine import draft_source, fix_source
from dropout_lint.inputs.example import Built
from dropout_lint.loading.resolving import resolve

NUMBERS = itertools.count()
FILE = """\
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 16),)


class Wrapper(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.{function}(x, self.p{flag})


class Sub(nn.{module}):
    pass


def free(x, training):
    return F.{function}(x, 0.4{free_flag})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6)
        self.conv2, self.bn2 = nn.Conv1d(6, 6, 3, padding=1), nn.BatchNorm1d(6)
        self.hidden, self.right, self.fc = nn.Linear(6, 6), nn.Dropout(0.1), nn.Linear(6, 2)
        self.use = True
        self.a = {made}

    def helper(self, x):
        return F.{function}(x, 0.4{flag})

    def forward(self, x):
{body}
        x = F.relu(self.hidden(x.mean(2)))
        return self.fc(self.right(x))
"""


@dataclass(frozen=True)
class Spelling:
    """How a dropout is written: what makes it, and what drops `x`."""

    called: str
    made: str = "None"

    def text(self, body: str, module: str, function: str, *, always: bool) -> str:
        """A file whose `forward` drops at each `DROP(…)` of `body`."""
        flag, free = ("", "") if always else (", training=self.training", ", training=training")
        names = {"module": module, "function": function, "flag": flag, "free_flag": free}
        called = self.called.format(**names)
        while "DROP(" in body:
            before, _, rest = body.partition("DROP(")
            depth = next(
                end for end in range(len(rest)) if rest[: end + 1].count(")") > rest[: end + 1].count("(")
            )
            body = before + called.replace("@", rest[:depth]) + rest[depth + 1 :]
        lines = "\n".join(f"        {line}" for line in body.splitlines())
        return FILE.format(**names, made=self.made.format(**names), body=lines)


SPELLINGS = {
    "module": Spelling("self.a(@)", "nn.{module}(0.4)"),
    "functional": Spelling("F.{function}(@, 0.4{flag})"),
    "keyword": Spelling("F.{function}(input=@, p=0.4{flag})"),
    "helper method": Spelling("self.helper(@)"),
    "free function": Spelling("free(@, self.training)"),
    "wrapper": Spelling("self.a(@)", "Wrapper(0.4)"),
    "subclass": Spelling("self.a(@)", "Sub(0.4)"),
    "in a Sequential": Spelling("self.a(@)", "nn.Sequential(nn.{module}(0.4))"),
    "conditional": Spelling(
        "(self.a(@) if self.a is not None else @)", "nn.{module}(0.4) if self.use else None"
    ),
}
"""`@` is what is dropped."""
RARE = ("keyword", "free function", "wrapper", "subclass", "in a Sequential")
WAYS = [pytest.param(way, marks=pytest.mark.slow) if way in RARE else way for way in SPELLINGS]
"""All of them, the rarer ones run by CI alone."""
ONLY_DROP = ("helper method", "free function", "wrapper")  # with nothing left to do once theirs is moved
SWITCHES = ("functional", "keyword", "helper method", "free function", "wrapper")  # those with a flag


def built_of(text: str, folder: Path) -> tuple[Built, Analysis]:
    file = folder / f"net_{next(NUMBERS)}.py"
    file.write_text(text)
    (built,) = resolve(f"{file}:Net", prefer_meta=False)
    return built, analyse(built.model, built.inputs, constructed=built.constructed)


def ran(model: nn.Module, *, train: bool) -> list[tuple[str, float, tuple[int, ...]]]:
    """What torch drops in one pass: the function, the ratio and the shape."""
    seen: list[tuple[str, float, tuple[int, ...]]] = []
    plain = {name: getattr(F, name) for name in ("dropout", "dropout1d", "dropout2d")}

    def watched(name: str) -> Any:
        def drop(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
            if training and p:
                seen.append((name, p, tuple(input.shape)))
            return input.clone()

        return drop

    for name in plain:
        setattr(F, name, watched(name))
    try:
        model.train(train)(torch.randn(4, 3, 16))
    finally:
        for name, function in plain.items():
            setattr(F, name, function)
    return seen


def both(text: str, folder: Path) -> list[tuple[nn.Module, tuple[Applied, ...], tuple[Skipped, ...]]]:
    """The model after the fix of its graph, and after that of its source, each of which may refuse."""
    built, analysis = built_of(text, folder)
    graph = fix_graph(analysis)
    source = fix_source(built, analysis)
    after = source.changes[0].after if source.changes else text
    return [
        (graph.model, graph.applied, graph.skipped),
        (built_of(after, folder)[0].model, source.applied, source.skipped),
    ]


PLAIN = """\
x = F.relu(self.bn1(self.conv1(x)))
x = F.relu(self.bn2(self.conv2(x)))"""
RIGHT = ("dropout", 0.1, (4, 6))


@pytest.mark.parametrize("way", list(SPELLINGS))
def test_one_before_a_norm_goes_behind_it(way: str, tmp_path: Path) -> None:
    body = PLAIN.replace("self.conv2(x)", "DROP(self.conv2(x))")
    for model, applied, skipped in both(
        SPELLINGS[way].text(body, "Dropout", "dropout", always=False), tmp_path
    ):
        assert ran(model, train=True) == [("dropout", 0.4, (4, 6, 16)), RIGHT] and not ran(model, train=False)
        assert [item.action for item in applied] == ["move"] or (not applied and skipped)


@pytest.mark.parametrize("way", SWITCHES)
def test_one_that_is_always_on_follows_the_mode(way: str, tmp_path: Path) -> None:
    body = PLAIN.replace("self.conv1(x)", "self.conv1(DROP(x))")
    for model, applied, skipped in both(
        SPELLINGS[way].text(body, "Dropout", "dropout", always=True), tmp_path
    ):
        assert ("dropout", 0.4, (4, 3, 16)) in ran(model, train=True) and ran(model, train=True)[-1] == RIGHT
        assert bool(ran(model, train=False)) == bool(skipped)
        assert [item.action for item in applied] == ([] if skipped else ["repair"])
        assert all("no method" in item.reason for item in skipped)


@pytest.mark.parametrize("way", list(SPELLINGS))
def test_one_of_the_wrong_rank_drops_channels(way: str, tmp_path: Path) -> None:
    body = PLAIN + "\nx = DROP(x)"
    text = SPELLINGS[way].text(body, "Dropout2d", "dropout2d", always=False)
    for model, applied, skipped in both(text, tmp_path):
        ways = [("dropout1d", 0.4, (4, 6, 16)), RIGHT]
        if not applied:
            ways[0] = ("dropout2d", 0.4, (4, 6, 16))
            assert skipped and all(item.reason and item.advice for item in skipped)
        assert ran(model, train=True) == ways and not ran(model, train=False)


@pytest.mark.parametrize("way", list(SPELLINGS))
def test_one_at_a_wrong_and_at_a_right_place_stays_at_the_right_one(way: str, tmp_path: Path) -> None:
    body = PLAIN.replace("self.conv1(x)", "DROP(self.conv1(x))") + "\nx = DROP(x)"
    for model, applied, skipped in both(
        SPELLINGS[way].text(body, "Dropout", "dropout", always=False), tmp_path
    ):
        dropped = ran(model, train=True)
        gone = sum(item.action == "merge" for item in applied)
        assert dropped[-2:] == [("dropout", 0.4, (4, 6, 16)), RIGHT] and len(dropped) == 3 - gone
        assert applied or skipped


@pytest.mark.parametrize("way", list(SPELLINGS))
def test_of_two_in_a_row_one_is_left(way: str, tmp_path: Path) -> None:
    """Moved to where one stands already, it would be written around it."""
    body = PLAIN.replace("self.bn2(self.conv2(x))", "DROP(self.bn2(DROP(self.conv2(x))))")
    for model, applied, skipped in both(
        SPELLINGS[way].text(body, "Dropout", "dropout", always=False), tmp_path
    ):
        assert [item.action for item in applied] == ["merge"] or (not applied and skipped)
        assert len(ran(model, train=True)) == 3 - len(applied)


TWO_READERS = (
    PLAIN.replace("self.conv2(x)", "DROP(self.conv2(x))")
    + """
x = torch.cat([torch.amax(x[:, :3], 2), torch.mean(x[:, 3:], 2)], 1)[:, :, None]"""
)


@pytest.mark.parametrize("way", WAYS)
def test_all_that_the_noise_came_to_gets_it_at_the_new_place(way: str, tmp_path: Path) -> None:
    """Two poolings read two parts of the map: in front of one of them the other would be left without."""
    text = SPELLINGS[way].text(TWO_READERS, "Dropout", "dropout", always=False)
    for model, applied, skipped in both(text, tmp_path):
        assert [item.action for item in applied] == ["move"] or (not applied and skipped)
        assert not applied or not what_the_head_reads(model).any()


def what_the_head_reads(model: nn.Module) -> Tensor:
    """The input of the head in train mode, where dropout keeps nothing."""
    plain, seen = F.dropout, []

    def nothing(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return input * 0 if training else input

    hook = model.get_submodule("hidden").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    F.dropout = nothing
    try:
        model.train()(torch.randn(4, 3, 16))
    finally:
        F.dropout = plain
        hook.remove()
    (read,) = seen
    return read


@pytest.mark.parametrize("way", WAYS)
def test_of_several_calls_each_is_named(way: str, tmp_path: Path) -> None:
    body = "x = F.relu(self.bn1(DROP(self.conv1(x))))\nfor _ in range(2):\n    "
    body += "x = F.relu(self.bn2(DROP(self.conv2(x))))"
    for model, applied, skipped in both(
        SPELLINGS[way].text(body, "Dropout", "dropout", always=False), tmp_path
    ):
        gone = sum(item.action == "merge" for item in applied)
        assert len(ran(model, train=True)) == 4 - gone and (applied or skipped)


@pytest.mark.parametrize("way", WAYS)
def test_noise_of_channels_stays_that_of_channels(way: str, tmp_path: Path) -> None:
    body = PLAIN.replace("self.conv2(x)", "DROP(self.conv2(x))")
    built, analysis = built_of(SPELLINGS[way].text(body, "Dropout1d", "dropout1d", always=False), tmp_path)
    graph = fix_graph(analysis, strategy="uout")
    assert [
        (type(m).__name__, m.channelwise) for m in graph.model.modules() if hasattr(m, "channelwise")
    ] == [("Uout", True)]
    source = fix_source(built, analysis, strategy="uout")
    assert source.skipped if not source.changes else "channelwise=True" in source.changes[0].after


def planned(text: str, folder: Path) -> tuple[Fixed, Plan]:
    """The graph's fix, and what source would do, without its proofs."""
    _, analysis = built_of(text, folder)
    return fix_graph(analysis), draft_source(Trials(analysis), analysis.findings)


FLAGS = {
    "a parameter": "F.dropout(x, 0.4, on)",
    "by keyword": "F.dropout(x, p=0.4, training=on)",
    "an attribute": "F.dropout(x, 0.4, self.use)",
    "a free function": "free(x, on)",
    "a literal": "F.dropout(x, 0.4, True)",
    "under a condition": "F.dropout(x, 0.4, True) if on else x",
    "with the mode": "F.dropout(x, 0.4, self.training or self.use)",
}


@pytest.mark.parametrize("way", list(FLAGS))
def test_a_flag_of_the_user_is_asked_about(way: str, tmp_path: Path) -> None:
    text = SPELLINGS["functional"].text(f"{PLAIN}\nx = {FLAGS[way]}", "Dropout", "dropout", always=False)
    text = text.replace(
        "def forward(self, x):\n        x = F.relu", "def forward(self, x, on=True):\n        x = F.relu"
    )
    graph, source = planned(text, tmp_path)
    assert not graph.applied and not source.steps
    for left in (graph.skipped, source.skipped):
        assert len(left) == 1 and "by a flag of yours" in left[0].reason


ENCODERS = {
    "class": "Encoder()",
    "Sequential": "nn.Sequential(*Encoder().children(), nn.ReLU())",
    "subclass": "type('Mine', (Encoder,), {})()",
}
HEAD = """

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.out = nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.Conv1d(6, 6, 3)

    def forward(self, x):
        return self.out(F.relu(self.bn(self.conv(x))))
"""


@pytest.mark.parametrize(
    ("encoder", "way"),
    [*(("class", way) for way in SPELLINGS), ("Sequential", "module"), ("subclass", "module")],
)
def test_the_dropout_of_a_head_stays_out_of_the_encoder(encoder: str, way: str, tmp_path: Path) -> None:
    """Its place by the guidelines is in the encoder's last layer; it goes behind the head's own norm."""
    body = "x = self.encoder(x)\nx = self.bn1(DROP(x))"
    text = SPELLINGS[way].text(body, "Dropout", "dropout", always=False)
    text = text.replace("\n\nclass Net", f"{HEAD}\n\nclass Net")
    text = text.replace("self.use = True", f"self.use, self.encoder = True, {ENCODERS[encoder]}")
    graph, source = planned(text, tmp_path)
    assert [item.action for item in graph.applied] == ["move"] and not graph.skipped
    assert ran(graph.model, train=True) == [("dropout", 0.4, (4, 6, 12)), RIGHT]
    assert [step.action for step in source.steps] == ([] if way in ONLY_DROP else ["move"])
    assert all("nothing any more" in left.reason for left in source.skipped)
