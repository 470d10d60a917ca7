"""`dropout-lint measure` as a user types it: in process, and under torchrun in real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dropout_lint.cli import run
from dropout_lint.inputs.example import Inputs
from dropout_lint.measurement.sources import RandomBatches, load_batches

MODEL = """
import torch
from torch import nn

print("noise from the user's module")


class Net(nn.Module):
    def __init__(self, p=0.5, width=16):
        super().__init__()
        self.fc1, self.drop, self.fc2 = nn.Linear(8, width), nn.Dropout(p), nn.Linear(width, width)
        self.bn, self.extra = nn.BatchNorm1d(width), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.bn(self.fc2(self.drop(torch.relu(self.fc1(x)))))


class Headed(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(torch.relu(super().forward(x)))


def build(p=0.5):
    return Net(p)


def trained():
    net = Net()
    for batch, _ in loader(20):
        net(batch)
    return net


class NoNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(x)


example_inputs = torch.zeros(64, 8)


def loader(batches=6, size=64):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(size + i, 8, generator=generator), torch.zeros(size + i)) for i in range(batches)]


data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(200, 8)), batch_size=50)
many = loader(60)
not_data = 3


def failing():
    yield torch.randn(4, 8)
    raise OSError("disk gone")
"""


NESTED = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop, self.fc, self.bn = nn.Dropout(0.5), nn.Linear(8, 8), nn.BatchNorm1d(8)

    def forward(self, batch: dict):
        return self.bn(self.fc(self.drop(batch["image"]["values"])))


example_inputs = ({"scale": torch.tensor(2.0), "image": {"values": torch.randn(16, 8)}},)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net_under_test.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "net_under_test", raising=False)
    return tmp_path


def measured(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = run(["measure", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def as_json(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    status, out, err = measured(*arguments, "--output-format", "json", capsys=capsys)
    assert status == 0, err
    report = json.loads(out)
    (target,) = report["targets"]
    assert isinstance(target, dict)
    return target


def test_random_batches_are_used_and_named_where_no_data_is_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = measured("net_under_test:build", capsys=capsys)
    assert status == 0
    assert out.splitlines()[0] == "net_under_test:build  Net on 64x8"
    assert "the batches are random noise" in out
    assert "extra: was never reached by these batches" in out
    assert "noise from the user's module" not in out
    assert all(len(line) <= 80 for line in out.splitlines())
    target = as_json("net_under_test:build", capsys=capsys)
    assert target["measured"]["random_inputs"] is True
    assert target["measured"]["statistics"] == "measured"
    assert target["measured"]["gaps"] == {"extra": "was never reached by these batches"}
    (row,) = target["measurements"]
    assert row["norm"] == "bn"
    assert row["low"] < row["delta"] < row["high"] < 0.7
    assert row["shift_ratio"] == pytest.approx(1 / row["delta"])
    assert row["predicted"] == pytest.approx(row["delta"], abs=0.1)


def test_the_users_loader(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data", "net_under_test:loader(batches=4, size=32)", "--tolerance", "0")
    target = as_json("net_under_test:trained", *options, capsys=capsys)
    assert target["measured"]["random_inputs"] is False
    assert target["measured"]["batches"] == 4
    assert target["measured"]["samples"] == 32 + 33 + 34 + 35
    assert target["measured"]["statistics"] == "stored"
    assert target["inputs_origin"] == options[1]
    # the first batch of the data, not the inputs that the prediction was traced with
    assert target["inputs"] == ["32x8"]
    assert any("2 parts the first 1" in note for note in target["notes"])
    limited = as_json(
        "net_under_test:build", "--data", "net_under_test.py:data", "--batches", "3", capsys=capsys
    )
    assert limited["measured"]["batches"] == 3


def test_a_trained_model_without_data_is_measured_on_what_its_norms_remember(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = as_json("net_under_test:trained", "--batches", "6", capsys=capsys)
    assert any("recovered from the statistics of the trained norms" in note for note in target["notes"])
    assert target["measured"]["random_inputs"] is False
    own = as_json("net_under_test:trained", "--data", "net_under_test:loader", capsys=capsys)
    (row,), (truth,) = target["measurements"], own["measurements"]
    assert row["delta"] == pytest.approx(truth["delta"], abs=0.1)


def test_a_fix_is_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = folder / "shift.svg"
    options = ("--compare-fixed", "--per-dropout", "--plot", str(plot), "--batches", "6")
    target = as_json("net_under_test:Headed", *options, capsys=capsys)
    (row,) = target["measurements"]
    assert row["after_fix"] > row["delta"] + 0.2
    assert row["predicted_after"] == pytest.approx(row["after_fix"], abs=0.1)
    assert target["measured"]["shares"]["bn"]["drop"] == pytest.approx(1, abs=0.1)
    assert plot.read_text().startswith("<?xml")
    status, out, _ = measured("net_under_test:Headed", *options, capsys=capsys)
    assert status == 0
    assert "after" in out
    assert "bn: drop 100%" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("net_under_test:NoNorm",), "has no norm that remembers"),
        (("net_under_test:build", "--data", "net_under_test:not_data"), "not an iterable"),
        (("net_under_test:build", "--data", "net_under_test:nothing"), "nothing"),
        (("net_under_test:build", "--data", "net_under_test.py"), "does not name a loader"),
        (("net_under_test:build", "--data", "net_under_test:failing"), "disk gone"),
        (("net_under_test:build", "--data", "net_under_test:loader(batches=0)"), "no batch"),
        (("net_under_test:build", "--data", "net_under_test:loader", "--batch-size", "4"), "--batch-size"),
        (("net_under_test:build", "--input", "4x9"), "4x9"),
        (("net_under_test:build", "--device", "gpu7"), "gpu7"),
        (("net_under_test:build(p=0.0)", "--compare-fixed"), "nothing was found"),
        (("net_under_test:build", "--plot", "no/such/folder.png"), "there is no folder no/such"),
        (("net_under_test.py",), "one is measured at a time"),
        ((), "missing argument"),
    ],
)
def test_what_cannot_be_measured_is_one_error_with_a_way_out(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    status, out, err = measured(*arguments, capsys=capsys)
    assert status == 2
    assert out == ""
    assert said in err
    assert "error: " in err
    assert "help: " in err


def test_the_report_goes_to_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--output-file", "out/report.txt")
    status, out, err = measured("net_under_test:build", *options, capsys=capsys)
    assert (status, out) == (2, "")
    assert "there is no folder out" in err
    (folder / "out").mkdir()
    status, out, _ = measured("net_under_test:build", *options, capsys=capsys)
    assert (status, out) == (0, "")
    assert "shift ratio" in (folder / "out" / "report.txt").read_text()


def test_samples_inside_a_nested_batch_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "nested_under_test.py").write_text(NESTED)
    target = as_json("nested_under_test:Net", "--batches", "3", "--tolerance", "0", capsys=capsys)
    assert target["measured"]["batches"] == 3
    assert target["measured"]["samples"] == 3 * 16


def test_loaders_of_every_form(folder: Path) -> None:
    assert len(list(load_batches("net_under_test:loader", []))) == 6
    assert len(list(load_batches("net_under_test:data", []))) == 4
    assert len(list(load_batches("net_under_test.py:loader(2)", []))) == 2


def test_random_batches_keep_integers_in_range_and_take_another_size() -> None:
    model = nn.Sequential(nn.Embedding(5, 4))
    example = Inputs(
        (torch.zeros(2, 7, dtype=torch.long, device="meta"), torch.randn(2, 3)), {"m": torch.ones(2).bool()}
    )
    batches = RandomBatches(model, example, 3, samples=40)
    assert len(batches) == 3
    first, again = batches[0], batches[0]
    assert [tuple(arg.shape) for arg in first.args] == [(40, 7), (40, 3)]
    assert first.kwargs["m"].shape == (40,)
    assert set(first.args[0].unique().tolist()) == set(range(5))
    assert torch.equal(first.args[1], again.args[1])
    assert not torch.equal(first.args[1], batches[1].args[1])


def environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def test_torchrun_gives_the_result_of_one_process(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "net_under_test:build",
        "--data",
        "net_under_test:many",
        "--tolerance",
        "0",
        "--output-format",
        "json",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "dropout_lint", "measure", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (many,) = json.loads(done.stdout)["targets"]  # one report, from rank 0, and nothing else on stdout
    assert many["measured"]["processes"] == 2
    alone = as_json(*arguments[:-2], capsys=capsys)
    assert many["measured"]["batches"] == alone["measured"]["batches"] == 60
    assert many["measurements"][0]["norm"] == "bn"
    # the seed of the masks is drawn from each run's own random state, the data is the same; over 60 batches
    # two runs differ by 0.005 (one standard deviation)
    assert many["measurements"][0]["delta"] == pytest.approx(alone["measurements"][0]["delta"], abs=0.05)


def test_without_a_fix_a_validation_still_measures(folder: Path) -> None:
    from dropout_lint.runs.measure import measured as measure_target

    options: dict[str, Any] = {
        "data": None,
        "batches": 2,
        "batch_size": None,
        "input": (),
        "checkpoint": None,
        "device": "cpu",
        "amp": False,
        "statistics": "auto",
        "tolerance": 0.0,
        "per_dropout": False,
        "plot": None,
        "quiet": True,
    }
    info, result = measure_target(target="net_under_test:build(p=0.0)", compare_fixed=True, **options)
    assert result.after is None
    assert info.measurements[0].delta == pytest.approx(1, abs=1e-3)
    assert any("measured without a fix" in note for note in info.notes)


EXAMPLES = """
import torch
from torch import nn


class Net(nn.Sequential):
    def __init__(self, *before):
        super().__init__(*before, nn.Linear(4, 64), nn.Dropout(0.5), nn.BatchNorm1d(64))


class Log(nn.Module):
    def forward(self, x):
        return x.log()


def of_values():
    torch.manual_seed(0)
    return Net(), torch.randn(64, 4) * 0.01 + 9


def of_logs():
    return Net(Log()), torch.rand(32, 4) + 1


placeholders = Net(), torch.zeros(64, 4)


class Declared(Net):
    example_input_array = torch.rand(64, 4) + 7
"""


@pytest.fixture
def examples(here: Path) -> Path:
    (here / "ex.py").write_text(EXAMPLES)
    return here


def test_the_values_of_example_inputs_are_measured(
    examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["measure", "ex:of_values", "--output-format", "json"]) == 0
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert target["measured"]["random_inputs"] is False and target["measured"]["batches"] >= 8
    assert target["inputs_origin"] == "example inputs beside the model"
    assert "the batches are the example inputs (example inputs beside the model)" in target["notes"][0]
    (row,) = target["measurements"]
    # nearly constant data far from 0: nearly all that varies is the dropout's noise; noise gives 0.46
    assert row["delta"] < 0.4
    assert run(["measure", "ex:Declared", "--batches", "3"]) == 0
    assert "the batches are the example inputs (example_input_array)" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    "arguments", [["ex:placeholders"], ["ex:of_values", "--batch-size", "32"], ["ex:Net", "--input", "64x4"]]
)
def test_placeholders_and_shapes_are_filled_with_noise(
    examples: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(["measure", *arguments]) == 0
    assert "the batches are random noise" in capsys.readouterr().out


def test_validate_takes_the_values_too_and_nan_says_whose_batches(
    examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ["--output-format", "json", "--no-cache"]
    assert run(["ex:of_logs", "ex:of_values", "--validate", *page]) == 1
    logs, values = json.loads(capsys.readouterr().out)["targets"]
    assert logs["measurements"] and values["measured"]["random_inputs"] is False
    assert run(["measure", "ex:of_logs", "--input", "32x4"]) == 2
    _, err = capsys.readouterr()
    assert "NaN or infinity, first in batch 0 in train mode (the batches are random noise)" in err
    assert "give its own batches with --data" in err
