"""The callbacks, inside the real frameworks: lint before the first step, re-estimate after the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dropout_lint.errors import UsageError
from dropout_lint.integrations import DropoutShiftWarning, MisplacedDropout, Start
from dropout_lint.loading.compat import declare_missing_schemas
from dropout_lint.loading.marks import marks_of

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*:DeprecationWarning")


def layers(bad: bool) -> nn.Sequential:
    drop, norm = nn.Dropout(0.5), nn.BatchNorm1d(16)
    pair = (drop, norm) if bad else (norm, drop)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), *pair, nn.Linear(16, 2))


def data() -> TensorDataset:
    """The same at every call."""
    chance = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(128, 8, generator=chance), torch.randint(0, 2, (128,), generator=chance))


def shift_of(layers: nn.Sequential) -> float:
    """What the norm behind the dropout meets in test mode over what it remembers, on the training data."""
    norm = layers[3]
    assert isinstance(norm, nn.BatchNorm1d) and norm.running_var is not None
    with torch.no_grad():
        met = layers[:2](data().tensors[0]).var(0)
    return float(met.sum() / norm.running_var.to(met).sum())


def test_a_model_that_cannot_be_linted_does_not_stop_training() -> None:
    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            raise RuntimeError("not today")

    with pytest.warns(DropoutShiftWarning, match="could not look at the model"):
        assert Start(torch.randn(2), "raise", {}).check(Odd()) is None


def test_wrong_options_are_named_before_training() -> None:
    with pytest.raises(UsageError, match=r"on_findings='xx'.*'warn', 'raise' or 'ignore'"):
        Start(None, "xx", {})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no option foo.*fail_on, ignore"):
        Start(None, "warn", {"foo": 1})
    with pytest.raises(UsageError, match="fail_on='eror'"):
        Start(None, "warn", {"fail_on": "eror"}).check(layers(bad=True), torch.randn(4, 8))


@pytest.fixture(scope="module")
def lightning() -> Any:
    declare_missing_schemas()
    return pytest.importorskip("lightning.pytorch", exc_type=ImportError)


def fit(lightning: Any, bad: bool, folder: Path, **options: Any) -> tuple[Any, Any]:
    from dropout_lint.integrations.lightning import DropoutLint

    class Net(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers(bad)
            self.example_input_array = torch.randn(4, 8)
            self.steps = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            self.steps += 1
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    callback = DropoutLint(**options)
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", default_root_dir=folder,
    )  # fmt: skip
    net = Net()
    try:
        trainer.fit(net, DataLoader(data(), batch_size=32))
    except MisplacedDropout as problem:
        return net, problem
    return net, callback


def test_lightning_warns_and_trains_on(lightning: Any, tmp_path: Path) -> None:
    with pytest.warns(DropoutShiftWarning, match="DL101"):
        net, callback = fit(lightning, True, tmp_path)
    assert net.steps == 8
    assert [finding.code for finding in callback.report.findings] == ["DL101"]


def test_lightning_stops_before_the_first_step(lightning: Any, tmp_path: Path) -> None:
    net, problem = fit(lightning, True, tmp_path, on_findings="raise")
    assert isinstance(problem, MisplacedDropout)
    assert "DL101" in (problem.details or "")
    assert net.steps == 0


def test_lightning_recalibrates_at_the_end(lightning: Any, tmp_path: Path) -> None:
    net, callback = fit(lightning, True, tmp_path, on_findings="ignore", recalibrate=True)
    assert callback.recalibration is not None
    assert shift_of(net.layers) == pytest.approx(1, abs=0.01)
    net.trainer.save_checkpoint(tmp_path / "end.ckpt")
    state = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]
    assert marks_of(state) == marks_of(callback.recalibration.marked({})) != frozenset()
    callback.recalibration.undo()
    assert shift_of(net.layers) < 0.8


def test_lightning_says_nothing_of_a_clean_model(lightning: Any, tmp_path: Path) -> None:
    _, callback = fit(lightning, False, tmp_path, on_findings="raise")
    assert callback.report.ok


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __init__(self) -> None:
        self.inputs, self.labels = data().tensors

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.inputs[index], "labels": self.labels[index]}


class Classifier(nn.Module):
    def __init__(self, bad: bool) -> None:
        super().__init__()
        self.layers = layers(bad)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.layers(x)
        return (
            {"logits": logits}
            if labels is None
            else {"loss": F.cross_entropy(logits, labels), "logits": logits}
        )


@pytest.fixture(scope="module")
def transformers() -> Any:
    declare_missing_schemas()
    found = pytest.importorskip("transformers", exc_type=ImportError)
    pytest.importorskip("accelerate")
    return found


def train(transformers: Any, bad: bool, folder: Path, **options: Any) -> tuple[nn.Module, Any]:
    from dropout_lint.integrations.transformers import DropoutLint

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=4, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True
    )
    model = Classifier(bad)
    callback = DropoutLint({"x": torch.randn(4, 8)}, **options)
    transformers.Trainer(model, arguments, train_dataset=Rows(), callbacks=[callback]).train()
    return model, callback


def test_transformers_warns_recalibrates_and_stops(transformers: Any, tmp_path: Path) -> None:
    with pytest.warns(DropoutShiftWarning, match="DL101"):
        model, callback = train(transformers, True, tmp_path, recalibrate=True)
    assert [finding.code for finding in callback.report.findings] == ["DL101"]
    assert shift_of(model.layers) == pytest.approx(1, abs=0.01)
    callback.recalibration.undo()
    # after four steps the running average still holds much of its initial 1
    assert abs(shift_of(model.layers) - 1) > 0.1
    with pytest.raises(MisplacedDropout):
        train(transformers, True, tmp_path, on_findings="raise")
    _, clean = train(transformers, False, tmp_path, on_findings="raise")
    assert clean.report.ok
