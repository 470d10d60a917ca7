"""Pretrained models are linted from their architecture: nothing is fetched, nothing waits for a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_project import ROOT

from dropout_lint.cli import run

HUBS = """
import os

from net import Good

SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")

def lazy():
    import timm
    return timm.create_model("resnet18", pretrained=True, drop_rate=0.2)

def switched():
    assert all(os.environ[name] == "1" for name in SWITCHES)
    from huggingface_hub import constants
    assert constants.HF_HUB_OFFLINE
    return Good()

def elsewhere():
    from huggingface_hub import hf_hub_download
    hf_hub_download("nobody/nothing", "model.safetensors")
    return Good()

def configured():
    from transformers import BertModel
    return BertModel.from_pretrained("bert", num_hidden_layers=1)

def by_auto():
    from transformers import AutoModelForSequenceClassification
    return AutoModelForSequenceClassification.from_pretrained("bert", num_labels=3)
"""
SMALL = {
    "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "vocab_size": 50,
}  # fmt: skip


@pytest.fixture(autouse=True)
def hubs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "hubs.py").write_text(HUBS)
    (here / "bert").mkdir()
    (here / "bert" / "config.json").write_text(json.dumps(SMALL))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_a_library_that_a_factory_imports_itself_fetches_nothing(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dropout_lint", "hubs:lazy", "--output-format", "concise"],
        cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "DL301" in done.stdout


def test_the_hub_is_offline_while_a_model_is_built_and_as_before_afterwards(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    assert run(["hubs:switched", "--input", "2x3x8x8"]) == 0
    assert run(["hubs:elsewhere", "--input", "2x3x8x8"]) == 2
    assert "models are linted offline" in capsys.readouterr().err
    assert constants.HF_HUB_OFFLINE is before
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize("target", ["hubs:configured", "hubs:by_auto"])
def test_a_transformers_model_is_made_from_its_configuration(
    here: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    assert run([target, "--output-format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["targets"]
    assert found["model"] in ("BertModel", "BertForSequenceClassification") and found["status"] == "ok"
    assert "pretrained weights were not fetched: a structural check needs none" in found["notes"]
