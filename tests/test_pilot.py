"""`measure --pilot` and `dl.pilot`: a copy is trained, then measured; the user's model stays as it was."""

from __future__ import annotations

import copy
import itertools
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from sklearn.datasets import load_digits
from test_measure_untouched import fingerprint, generators
from torch import Tensor, nn
from torch.nn import functional as F

import dropout_lint as dl
from dropout_lint.cli import run
from dropout_lint.report.schema import Report
from dropout_lint.terms import STRATEGIES

MODEL = """
import signal

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, p=0.5, frozen=False):
        super().__init__()
        self.fc1, self.drop, self.fc2 = nn.Linear(64, 32), nn.Dropout(p), nn.Linear(32, 32)
        self.bn, self.head = nn.BatchNorm1d(32), nn.Linear(32, 10)
        self.requires_grad_(not frozen)

    def forward(self, x):
        return self.head(self.bn(self.fc2(self.drop(self.fc1(x).relu()))).relu())


def digits(batches=12, labels=True):
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32) / 16
    y = torch.tensor(data.target)
    return [(x[i::batches], y[i::batches]) if labels else x[i::batches] for i in range(batches)]


def empty():
    return []


def far(batches=3):
    return [(x, y + 7) for x, y in digits(batches)]


def smoothed(output, batch):
    return F.cross_entropy(output, batch[1], label_smoothing=0.1)


def no_scalar(output, batch):
    return F.cross_entropy(output, batch[1], reduction="none")


def not_finite(output, batch):
    return F.cross_entropy(output, batch[1]) / 0


def no_gradient(output, batch):
    return F.cross_entropy(output, batch[1]).detach()


def a_number(output, batch):
    return F.cross_entropy(output, batch[1]).item()


def alone(output):
    return output.mean()


def failing(output, batch):
    return output[batch["labels"]]


def interrupted(output, batch):
    signal.raise_signal(signal.SIGINT)
    return output.mean()
"""


class Net(nn.Module):
    """Dropout in front of a weight layer and a norm."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.fc1, self.drop, self.fc2 = nn.Linear(64, 32), nn.Dropout(p), nn.Linear(32, 32)
        self.bn, self.head = nn.BatchNorm1d(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.bn(self.fc2(self.drop(self.fc1(x).relu()))).relu())
        return out


Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> list[Batch]:
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    return [(x[i::12], y[i::12]) for i in range(12)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "shop_under_test.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("shop_under_test", None)


NET, DATA = "shop_under_test:Net", ("--data", "shop_under_test:digits")


def measured(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = run(["measure", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def as_json(*arguments: str, capsys: pytest.CaptureFixture[str]) -> Any:
    status, out, err = measured(*arguments, "--output-format", "json", capsys=capsys)
    assert status == 0, err
    msgspec.json.decode(out, type=Report, strict=True)
    (target,) = json.loads(out)["targets"]
    return target


# what is measured


def test_after_a_pilot_the_shift_is_another_one_and_is_labelled(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained = as_json(NET, *DATA, capsys=capsys)
    assert untrained["measured"]["pilot"] is None
    assert untrained["measurements"][0]["pilot_steps"] == 0
    target = as_json(NET, *DATA, "--pilot", "60", capsys=capsys)
    (row,) = target["measurements"]
    assert row["norm"] == "bn"
    assert (row["basis"], row["pilot_steps"]) == ("measured", 60)
    assert abs(row["delta"] - untrained["measurements"][0]["delta"]) > 0.1
    assert target["measured"]["statistics"] == "measured"
    pilot = target["measured"]["pilot"]
    assert (pilot["steps"], pilot["optimizer"], pilot["loss"]) == (60, "AdamW", "cross-entropy")
    assert (pilot["held_back_batches"], pilot["held_back_samples"]) == (2, 299)
    (only,) = pilot["candidates"]
    assert only["deltas"] == {"bn": row["delta"]}
    assert only["training_loss"] < math.log(10)
    assert not any("untrained" in note for note in target["notes"])

    status, out, _ = measured(NET, *DATA, "--pilot", "60", capsys=capsys)
    assert status == 0
    words = " ".join(out.split())
    assert "a copy was trained for 60 steps (AdamW, learning rate 0.001, seed 0)" in words
    assert "the mean over 2 batches (299 samples)" in words
    assert "Δ, 60 steps" in out and f"{row['delta']:.3f}" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_the_training_is_the_one_that_a_person_would_write(digits: list[Batch]) -> None:
    model = Net()
    own = copy.deepcopy(model).train()
    found = dl.pilot(model, digits, 25, seed=3).before
    optimizer = torch.optim.AdamW(own.parameters(), lr=1e-3)
    held = [3, 9]  # two of twelve, in the middle of each half
    kept = [batch for index, batch in enumerate(digits) if index not in held]
    losses = []
    for step in range(25):
        x, y = kept[step % len(kept)]
        torch.manual_seed(3 + step)
        loss = F.cross_entropy(own(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert found.training_loss == pytest.approx(sum(losses[-20:]) / 20, rel=1e-6)
    assert found.held_back is not None
    rest = {}
    for mode in (False, True):
        own.train(mode)
        rest[mode] = 0.0
        for index in held:
            x, y = digits[index]
            torch.manual_seed(3 + 25 + index)
            rest[mode] += float(F.cross_entropy(copy.deepcopy(own)(x), y, reduction="sum").detach())
    assert found.held_back.test_mode == pytest.approx(rest[False] / 299, rel=1e-5)
    assert found.held_back.train_mode == pytest.approx(rest[True] / 299, rel=1e-5)
    assert found.shift.statistics == "measured"
    again = dl.measure(own, digits, seed=3, statistics="measured")
    assert found.shift.delta == pytest.approx(again.delta, rel=1e-5)


def test_one_seed_one_result(digits: list[Batch]) -> None:
    model = Net()
    data = torch.utils.data.TensorDataset(*(torch.cat(part) for part in zip(*digits, strict=True)))
    loader = torch.utils.data.DataLoader(data, 150, shuffle=True, generator=torch.Generator().manual_seed(1))

    def figures(seed: int) -> Any:
        pilot = dl.pilot(model, batches, 12, seed=seed).before
        return pilot.shift.delta, pilot.training_loss, pilot.held_back

    batches: Any = digits
    first = figures(0)
    torch.manual_seed(99)
    assert figures(0) == first
    assert figures(1) != first
    batches = loader
    loader.generator.manual_seed(5)
    shuffled = figures(0)
    loader.generator.manual_seed(5)
    assert figures(0) == shuffled


def test_every_strategy_that_changes_anything_side_by_side(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (NET, *DATA, "--pilot", "40", "--compare-fixed")
    target = as_json(*options, capsys=capsys)
    pilot = target["measured"]["pilot"]
    found = {row["strategy"]: row for row in pilot["candidates"]}
    assert next(iter(found)) is None
    assert {*found, *pilot["skipped"]} == {None, *STRATEGIES}
    assert {"auto", "uout", "reduce", "remove"} <= set(found)
    alone = as_json(NET, *DATA, "--pilot", "40", capsys=capsys)["measured"]["pilot"]["candidates"][0]
    assert found[None] == alone  # the comparison changes nothing about the model as it is
    for strategy, row in found.items():
        assert row["basis"] == "measured"
        assert row["worst_norm"] == "bn"
        if strategy is not None:
            assert row["fixes"]
            assert row["worst_delta"] > found[None]["worst_delta"] + 0.1
            assert row["training_loss"] != found[None]["training_loss"]
        assert row["held_back_test_mode"] > 0
    assert found["remove"]["deltas"]["bn"] == pytest.approx(1, abs=0.1)
    assert target["measurements"][0]["after_fix"] == found["auto"]["deltas"]["bn"]

    (row,) = target["measurements"]
    status, out, _ = measured(NET, *DATA, "--pilot", "40", "--compare-fixed", capsys=capsys)
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("bn  ")]
    shown = [
        found[name]["deltas"]["bn"] for name in STRATEGIES if name in found and not found[name]["same_as"]
    ]
    assert line.split()[-len(shown) :] == [f"{delta:.3f}" for delta in shown]

    status, page, _ = measured(*options, "--output-format", "html", capsys=capsys)
    assert status == 0
    assert "measured, pilot-trained for 40 steps" in page
    assert f"{found['remove']['worst_delta']:.3f}" in page
    assert "misplaced" not in page  # nothing was linted


def test_without_a_fix_there_is_nothing_to_compare(digits: list[Batch]) -> None:
    with pytest.raises(dl.DropoutLintError, match="nothing was found that a fix would change"):
        dl.pilot(Net(p=0.0), digits, 2, compare_fixed=True)


def test_the_comparison_reads_well_in_python(digits: list[Batch]) -> None:
    found = dl.pilot(Net(), digits, 3, compare_fixed=True, max_batches=2)
    assert set(found.fixed) | set(found.skipped) == set(STRATEGIES)
    assert found.delta == found.before.shift.delta
    assert found.before.shift.batches == 2
    assert "after 3 steps the running statistics still hold 73% of their start" in "\n".join(found.notes)
    lines = str(found).splitlines()
    assert all(len(line) <= 80 for line in lines)
    for row in found.info.candidates:
        name = (row.strategy or "as it is") + (f" = {row.same_as}" if row.same_as else "")
        (line,) = [line for line in lines if line.startswith(f"{name}  ")]
        assert f"{row.worst_delta:.3f}" in line and f"{row.held_back_test_mode:.4g}" in line


# loaders, inputs and outputs


class Named(nn.Module):
    """Takes a dict's parts by name, and returns more than logits."""

    def __init__(self, returns: str) -> None:
        super().__init__()
        self.net, self.returns = Net(), returns

    def forward(self, image: Tensor, scale: Tensor | None = None) -> Any:
        out = self.net(image if scale is None else image * scale)
        return {"tuple": (out, image), "dict": {"loss": out.mean(), "logits": out}}[self.returns]


@pytest.mark.parametrize("returns", ["tuple", "dict"])
def test_dicts_go_in_and_the_logits_are_found(digits: list[Batch], returns: str) -> None:
    batches = [{"image": x, "scale": torch.ones(1), "labels": y, "id": "a"} for x, y in digits]
    model = Named(returns)
    expected = dl.pilot(model.net, digits, 8).before
    assert dl.pilot(model, batches, 8).before.training_loss == expected.training_loss


def test_a_loss_of_ones_own_gets_the_output_and_the_whole_batch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = as_json(NET, *DATA, "--pilot", "4", "--loss", "shop_under_test:smoothed", capsys=capsys)
    assert target["measured"]["pilot"]["loss"] == "shop_under_test:smoothed"
    plain = as_json(NET, *DATA, "--pilot", "4", capsys=capsys)["measured"]["pilot"]["candidates"]
    assert target["measured"]["pilot"]["candidates"] != plain


def test_loaders_that_end_early_never_or_hold_a_single_batch(digits: list[Batch]) -> None:
    read = 0

    def endless() -> Iterator[Batch]:
        nonlocal read
        for batch in itertools.cycle(digits):
            read += 1
            yield batch

    assert dl.pilot(Net(), (batch for batch in digits[:3]), 7).before.steps == 7
    dl.pilot(Net(), endless(), 5, max_batches=4)
    assert read == 50  # as many as are looked at for what to hold back
    single = dl.pilot(Net(), digits[:1], 2)
    assert single.before.held_back is None
    assert any("no batch was held back" in note for note in single.notes)
    ragged = [*digits[:3], (digits[3][0][:1], digits[3][1][:1]), (digits[3][0][:0], digits[3][1][:0])]
    found = dl.pilot(Net(), ragged, 8)
    assert found.before.shift.batches == 3
    assert any("not trained on" in note for note in found.notes)


# what stays as it was


@pytest.mark.parametrize("ends", [None, ZeroDivisionError, KeyboardInterrupt])
def test_the_model_is_left_as_it_was(digits: list[Batch], ends: type[BaseException] | None) -> None:
    model = Net()
    model(digits[0][0]).sum().backward()
    model.drop.eval()
    before, state = fingerprint(model), generators()
    calls = 0

    def loss(output: Tensor, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if ends is not None and calls == 4:
            raise ends
        return F.cross_entropy(output, batch[1])

    if ends is None:
        dl.pilot(model, digits, 5, loss=loss, compare_fixed=True, max_batches=2)
    else:
        with torch.no_grad(), pytest.raises(ends if ends is KeyboardInterrupt else dl.DropoutLintError):
            dl.pilot(model, digits, 5, loss=loss)
    assert fingerprint(model) == before
    assert generators() == state
    assert torch.is_grad_enabled()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_it_as_it_ends_the_other_commands(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--pilot", "50", "--loss", "shop_under_test:interrupted", "--compare-fixed")
    status, out, err = measured(NET, *DATA, *options, capsys=capsys)
    assert (status, out, err.strip()) == (130, "", "interrupted")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_terminal_sees_how_far_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, digits: list[Batch]
) -> None:
    assert measured(NET, *DATA, "--pilot", "2", capsys=capsys)[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "pilot training" in measured(NET, *DATA, "--pilot", "2", capsys=capsys)[2]
    seen: list[tuple[int, int | None, str]] = []
    dl.pilot(Net(), digits, 3, progress=lambda *what: seen.append(what))
    assert seen[:3] == [(1, 3, "pilot training"), (2, 3, "pilot training"), (3, 3, "pilot training")]
    assert seen[3:]


# what cannot be


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        ((NET, "--pilot", "5"), "--pilot trains on the model's own batches", "--data package.module:loader"),
        ((NET, *DATA, "--pilot", "0"), "0 is not in the range", "--help"),
        ((NET, *DATA, "--loss", "shop_under_test:smoothed"), "--loss is for a pilot", "--pilot 200"),
        ((NET, *DATA, "--seed", "1"), "--seed is for a pilot", "--pilot 200"),
        ((NET, *DATA, "--pilot", "2", "--batch-size", "8"), "--batch-size", "leave it out"),
        ((NET, "--data", "shop_under_test:empty", "--pilot", "2"), "the loader is empty", "drop_last"),
        ((NET, "--data", "shop_under_test:digits(labels=False)", "--pilot", "2"), "no labels", "--loss"),
        ((NET, "--data", "shop_under_test:far", "--pilot", "2"), "labels go from 7 to 16", "classes"),
        ((f"{NET}(frozen=True)", *DATA, "--pilot", "2"), "no parameter that requires a gradient", "unfreeze"),
        (
            (f"{NET}(p=0.0)", *DATA, "--pilot", "2", "--compare-fixed"),
            "nothing was found",
            "dropout-lint fix",
        ),
        ((NET, *DATA, "--pilot", "9", "--learning-rate", "1e30"), "at step 2", "--learning-rate"),
    ],
)
def test_what_cannot_be_trained_is_one_error_with_a_way_out(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str, hint: str
) -> None:
    status, out, err = measured(*arguments, capsys=capsys)
    assert (status, out) == (2, ""), err
    error, _, help_ = err.partition("help: ")
    assert said in error and hint in help_, err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("loss", "said", "hint"),
    [
        ("shop_under_test:smothed", "has no attribute `smothed`", "did you mean `smoothed`?"),
        ("shop_under_test:zzz", "has no attribute `zzz`", "it has `a_number`"),
        ("shop_under_tes:smoothed", "there is no module `shop_under_tes`", "`shop_under_test`?"),
        ("shop_under_test.py", "names no function", "package.module:function"),
        ("shop_under_test:digits()", "is no function but of type list", "output and batch"),
        ("shop_under_test:Net", "is a class", "instance"),
        ("shop_under_test:alone", "cannot be called as fn(output, batch)", "(output)"),
        ("shop_under_test:no_scalar", "a tensor of 150 at step 1, not a scalar", ".mean()"),
        ("shop_under_test:not_finite", "is inf at step 1", "NaN"),
        ("shop_under_test:no_gradient", "needs no gradient at step 1", ".detach()"),
        ("shop_under_test:a_number", "a value of type float at step 1, not a tensor", ".item()"),
        ("shop_under_test:failing", "failed at step 1: TypeError", "fn(output, batch)"),
    ],
)
def test_a_loss_that_is_none_is_one_error_with_a_way_out(
    folder: Path, capsys: pytest.CaptureFixture[str], loss: str, said: str, hint: str
) -> None:
    status, out, err = measured(NET, *DATA, "--pilot", "3", "--loss", loss, capsys=capsys)
    assert (status, out) == (2, ""), err
    error, _, help_ = err.partition("help: ")
    assert said in " ".join(error.split()) and hint in help_, err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x, y.float()), "neither classes nor probabilities"),
        (lambda x, y: (x, y[:, None]), r"logits are \(N, C, …\) and labels \(N, …\)"),
        (lambda x, y: {"x": x, "kind": y}, "no labels"),
        (lambda x, y: (x, "seven"), "not a tensor"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(
    digits: list[Batch], change: Callable[[Tensor, Tensor], Any], said: str
) -> None:
    with pytest.raises(dl.DropoutLintError, match=said) as caught:
        dl.pilot(Net(), [change(x, y) for x, y in digits[:3]], 2)
    assert "--loss" in str(caught.value.hint)


def test_an_output_without_logits_is_an_error(digits: list[Batch]) -> None:
    class Single(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :1]

    class Nothing(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) and None

    with pytest.raises(dl.DropoutLintError, match="there is one logit"):
        dl.pilot(Single(), digits, 2)
    with pytest.raises(dl.DropoutLintError, match="steps=0 is not allowed"):
        dl.pilot(Net(), digits, 0)
    with pytest.raises(dl.DropoutLintError, match="no norm that remembers"):
        dl.pilot(nn.Linear(64, 10), digits, 2)
