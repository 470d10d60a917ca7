"""What training is expected to lead to: Δ with its interval, one figure in every format."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from brute_force import predicted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dropout_lint.cli import run
from dropout_lint.prediction.interval import interval
from fixtures import densenet, mlp_bn, preresnet
from fixtures.noise import DropPath, Uout

unit = st.floats(0.01, 1.4)


@given(unit, unit, unit)
def test_the_interval_holds_delta(delta: float, weak: float, strong: float) -> None:
    low, high = interval(delta, math.inf, weak, strong)
    assert 0 <= low <= delta <= high
    assert interval(1.0, math.inf, 1.0, 1.0) == (1.0, 1.0)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["dense", "P0", "P3", "P7", "mlp"]),
    st.floats(0.05, 0.7),
)
def test_at_every_norm_of_a_network(name: str, p: float) -> None:
    with torch.device("meta"):
        if name == "mlp":
            model, x = mlp_bn.build(p), torch.randn(4, 20)
        elif name == "dense":
            model, x = densenet.build(p), torch.randn(2, 3, 8, 8)
        else:
            model, x = preresnet.build(name, p, depth=8, width=8), torch.randn(2, 3, 8, 8)
    prediction = predicted(model, x)
    assert any(shift.delta < 1 - p / 4 for shift in prediction.norms if shift.delta is not None)
    for shift in prediction.norms:
        assert shift.interval is not None
        assert shift.interval[0] <= shift.delta <= shift.interval[1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("noise", "most"),
    [
        (nn.Dropout(0.1), 0.9),
        (nn.Dropout1d(0.3), 0.7),
        (Uout(0.5), 1 / (1 + 0.25 / 3)),
        (nn.AlphaDropout(0.1), math.inf),  # it moves what it drops to where moments stay
        (DropPath(0.1), math.inf),  # a batch holds few of its draws
    ],
)
def test_no_training_raises_delta_above_what_a_mask_alone_leaves(noise: nn.Module, most: float) -> None:
    """Directly in front of the norm Δ = v/(v + s(c² + v)): at most 1/(1 + s), for data of mean 0."""
    model = nn.Sequential(nn.Conv1d(8, 16, 1), noise, nn.BatchNorm1d(16), nn.Conv1d(16, 4, 1))
    (shift,) = predicted(model, torch.randn(4, 8, 6)).norms
    assert shift.interval is not None
    assert shift.delta is not None
    low, high = shift.interval
    assert low < shift.delta <= high
    assert high == pytest.approx(most) if math.isfinite(most) else high > shift.delta + 0.05


def test_intervals_behind_alpha_dropout_hold_what_loud_data_lead_to() -> None:
    """Each takes the variance of data that are large to a²k of it, in training alone."""
    p, alpha = 0.3, -1.7580993408473766
    keeps = 1 / (1 + p * alpha**2)  # a²k, with a² = 1 / (k(1 + pα²))
    model = nn.Sequential(
        nn.Linear(16, 32), nn.SELU(), nn.AlphaDropout(p), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.SELU(),
        nn.AlphaDropout(p), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.Linear(32, 4),
    )  # fmt: skip
    ends = [shift.interval for shift in predicted(model, torch.randn(4, 16)).norms]
    for number, end in enumerate(ends, 1):
        assert end is not None
        assert end[1] == pytest.approx(keeps**-number + 0.16, abs=0.01)


def test_layers_between_soften_the_shift_of_trained_networks_alone() -> None:
    after = []
    for count in (1, 2, 3):
        layers = [nn.Linear(64, 64, bias=False) for _ in range(count)]
        model = nn.Sequential(nn.Dropout(0.5), *layers, nn.BatchNorm1d(64), nn.Linear(64, 4))
        (shift,) = predicted(model, torch.randn(4, 64)).norms
        assert shift.delta_initial == pytest.approx(0.5, abs=0.02)
        after.append(shift.delta)
    assert 0.55 < after[0] < after[1] < after[2] < 0.95


def test_wide_layers_soften_it_more() -> None:
    found = []
    for width in (16, 256, 2048):
        with torch.device("meta"):
            layers = (nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.BatchNorm1d(width))
            model = nn.Sequential(nn.Linear(8, width), *layers, nn.Linear(width, 4))
        found.append(predicted(model, torch.randn(4, 8)).norms[0].delta)
    assert found[0] < found[1] < found[2]


NET = """\
import torch
from torch import Tensor, nn

net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.4), nn.BatchNorm2d(16),
    nn.Flatten(), nn.Linear(1024, 4),
)
example_inputs = (torch.randn(4, 3, 8, 8),)
"""


def test_one_figure_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    shown = {}
    for name in ("json", "text", "concise", "sarif", "markdown", "junit", "github", "html"):
        assert run(["net.py:net", "--output-format", name, "--show-predictions", "--no-cache"]) == 1
        shown[name] = capsys.readouterr().out
    target = json.loads(shown["json"])["targets"][0]
    (entry,) = target["predictions"]
    finding = target["findings"][0]
    assert entry["basis"] == finding["basis"] == "trained-estimate"
    assert [finding[key] for key in ("delta", "interval", "delta_initial")] == [
        entry[key] for key in ("delta", "interval", "delta_initial")
    ]
    low, high = entry["interval"]
    figure = f"{entry['delta']:.2f} ({low:.2f}–{high:.2f})"
    for name in ("text", "concise", "markdown", "junit", "github", "html"):
        assert figure in shown[name], name
    properties = json.loads(shown["sarif"])["runs"][0]["results"][0]["properties"]
    assert (properties["delta"], properties["interval"]) == (entry["delta"], entry["interval"])
    assert re.search(rf"{entry['delta_initial']:.2f}", shown["text"])


def test_alpha_dropout_shifts_the_other_way_once_the_network_is_trained() -> None:
    """What alpha dropout holds back of the data is there in test mode, and trained weights add it up."""
    layers: list[nn.Module] = [nn.Linear(30, 64)]
    for _ in range(2):
        layers += [nn.SELU(), nn.AlphaDropout(0.3), nn.Linear(64, 64), nn.BatchNorm1d(64)]
    first, second = predicted(nn.Sequential(*layers), torch.randn(64, 30)).norms
    assert first.delta is not None and second.delta is not None
    assert 1 < first.delta < second.delta
    assert first.delta_initial is not None and first.delta_initial < 1


class Own(nn.Module):
    """Layers that are no Linear: a GRU, attention, a matrix of the model's own, between dropout and norm."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.drop, self.norm, self.way = nn.Dropout(0.4), nn.BatchNorm1d(32), way
        self.gru, self.attention = (
            nn.GRU(32, 32, batch_first=True),
            nn.MultiheadAttention(32, 4, batch_first=True),
        )
        self.weight = nn.Parameter(torch.randn(32, 32) / 32**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        if self.way == "recurrent":
            x = self.gru(x)[0]
        elif self.way == "attention":
            x = self.attention(x, x, x, need_weights=False)[0]
        else:
            x = x @ self.weight
        result: Tensor = self.norm(x.transpose(1, 2))
        return result


@pytest.mark.parametrize("way", ["recurrent", "attention", "matrix"])
def test_all_layers_with_weights_learn_to_add_up_the_data(way: str) -> None:
    (shift,) = predicted(Own(way), torch.randn(8, 12, 32)).norms
    assert shift.delta is not None and shift.delta_initial is not None
    assert shift.delta_initial + 0.05 < shift.delta < 1


class Formed(nn.Module):
    """Parameters of the model's own that are given another form before they are used."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.first, self.drop, self.norm = nn.Linear(16, 16), nn.Dropout(0.4), nn.BatchNorm1d(16)
        self.scale, self.weight = nn.Parameter(torch.ones(16)), nn.Parameter(torch.randn(16, 16) / 4)
        self.form = FORMS[form][1]

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.drop(self.first(x))
        result: Tensor = self.norm(self.form(self, h, x))
        return result


FORMS: dict[str, tuple[str, Callable[[Any, Tensor, Tensor], Tensor]]] = {
    "scale": ("scale", lambda net, h, x: net.scale * h + x),
    "scale.view": ("scale", lambda net, h, x: net.scale.view(1, -1) * h + x),
    "scale[None]": ("scale", lambda net, h, x: x + h * net.scale[None]),
    "scale.expand_as": ("scale", lambda net, h, x: net.scale.unsqueeze(0).expand_as(h) * h + x),
    "divided": ("scale", lambda net, h, x: h / net.scale.reshape(1, 16) + x),
    "matrix": ("matrix", lambda net, h, x: h @ net.weight),
    "matrix.t": ("matrix", lambda net, h, x: h @ net.weight.t()),
    "matrix.T.contiguous": ("matrix", lambda net, h, x: h @ net.weight.T.contiguous()),
    "product and sum": ("product", lambda net, h, x: (h[:, None] * net.weight).sum(2)),
    "product and sum, expanded": (
        "product",
        lambda net, h, x: (h.unsqueeze(1) * net.weight.unsqueeze(0).expand(len(h), 16, 16)).sum(2),
    ),
}


def test_a_parameter_is_followed_through_its_forms() -> None:
    seen: dict[str, list[float]] = {}
    for form, (kind, _) in FORMS.items():
        (shift,) = predicted(Formed(form), torch.randn(32, 16)).norms
        assert shift.delta is not None, form
        seen.setdefault(kind, []).append(shift.delta)
    for kind, deltas in seen.items():
        assert deltas == pytest.approx([deltas[0]] * len(deltas)), kind
    assert seen["scale"][0] < 0.9 and seen["matrix"][0] < 0.9 and seen["product"][0] < 0.9
