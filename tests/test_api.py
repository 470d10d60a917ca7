"""The public Python functions, through the names that users import."""

from __future__ import annotations

import importlib
import subprocess
import sys

import msgspec
import pytest
import torch
from torch import nn

import dropout_lint as dl
from dropout_lint.report.schema import Report
from fixtures import preresnet


@pytest.fixture
def model() -> nn.Module:
    return preresnet.build(position="P4", p=0.5, depth=8, width=8)


def test_lint_finds_predicts_and_writes_json(model: nn.Module) -> None:
    report = dl.lint(model, preresnet.example_inputs)
    assert {finding.code for finding in report.findings} == {"DL101"}
    assert not report.ok
    deltas = {prediction.norm: prediction.delta for prediction in report.predictions}
    assert deltas["layer1.0.bn2"] < 0.6
    decoded = msgspec.json.decode(report.to_json(), type=Report)
    assert len(decoded.targets) == 1
    assert decoded.summary.error == len(report.findings)
    assert "DL101" in report.to_text()


def test_lint_takes_a_selection_and_a_threshold(model: nn.Module) -> None:
    assert dl.lint(model, preresnet.example_inputs, ignore=["DL1", "DL2"]).ok
    assert dl.lint(model, preresnet.example_inputs, select=["DL302"]).findings == []


def test_inputs_are_guessed_where_none_are_given(model: nn.Module) -> None:
    report = dl.lint(model)
    assert report.target.inputs_guessed
    assert not report.ok


def test_fix_gives_a_model_that_lints_clean_and_leaves_the_first_alone(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fixed = dl.fix(model, preresnet.example_inputs)
    assert fixed.applied
    assert fixed.skipped == ()
    assert not any(
        finding.code == "DL101" for finding in dl.lint(fixed.model, preresnet.example_inputs).findings
    )
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    fixed.model.load_state_dict(model.state_dict())
    x = preresnet.example_inputs[0]
    assert torch.equal(model.eval()(x), fixed.model.eval()(x))


def test_measure_sees_what_the_fix_does(model: nn.Module) -> None:
    batches = [torch.randn(16, *preresnet.example_inputs[0].shape[1:]) for _ in range(4)]
    before = dl.measure(model, batches)
    after = dl.measure(dl.fix(model, preresnet.example_inputs).model, batches)
    assert min(after.delta.values()) > min(before.delta.values())


def test_wrong_inputs_are_one_error(model: nn.Module) -> None:
    with pytest.raises(dl.DropoutLintError) as caught:
        dl.lint(model, torch.randn(2, 5, 16, 16))
    assert "expected input" in caught.value.message


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, dropout_lint as dl; assert 'torch' not in sys.modules; dl.Uout; import torch"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_what_it_says() -> None:
    for module in ("cli.fix", "cli.measure", "integrations", "testing"):  # no room hides one
        importlib.import_module(f"dropout_lint.{module}")
    for name in dl.__all__:
        assert callable(getattr(dl, name)), name
    with pytest.raises(AttributeError):
        dl.nothing  # noqa: B018


def test_a_call_of_generated_code_is_not_named_after_a_file_of_ours() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.bn, self.fc2 = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.dropout(self.fc1(x), 0.5, self.training)
            return self.fc2(self.bn(x))

    baked = torch.fx.symbolic_trace(Net())  # `training` is True in it for good
    report = dl.lint(baked, torch.randn(4, 8))
    assert "DL401" in {finding.code for finding in report.findings}
    assert {finding.dropout.name for finding in report.findings} == {"@dropout"}
    assert {finding.dropout.call for finding in report.findings} == {None}
    fixed = dl.fix(baked, torch.randn(4, 8))
    assert {item.dropout for item in fixed.applied} == {"@dropout"}
