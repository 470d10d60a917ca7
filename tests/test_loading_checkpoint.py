"""Checkpoints: weights and running statistics get in, or the reason is named."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dropout_lint.errors import CheckpointError, TargetError
from dropout_lint.loading.resolving import resolve

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, 3, bias=False)
        self.tied = nn.Linear(width, 3, bias=False)
        self.tied.weight = self.last.weight
        self.register_buffer("scratch", torch.arange(3.0), persistent=False)

    def forward(self, x):
        return self.tied(self.norm(self.first(x))) + self.scratch
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """A model with statistics of its own, whose source is `ckptnet.py` in the current directory."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ckptnet.py").write_text(SOURCE)
    model = resolve("ckptnet:Net", prefer_meta=False)[0].model
    for _ in range(3):
        model(torch.randn(16, 3) * 5 + 2)
    yield model
    sys.path[:] = path
    sys.modules.pop("ckptnet", None)


def wrap(how: str, state: dict[str, Any]) -> Any:
    if how == "lightning":
        return {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 3}
    if how == "ddp":
        return {"model": {f"module.{key}": value for key, value in state.items()}, "optimizer": {"lr": 0.1}}
    if how == "compiled":
        return {f"module._orig_mod.{key}": value for key, value in state.items()}
    return state


@pytest.mark.parametrize("how", ["plain", "lightning", "ddp", "compiled"])
def test_weights_and_statistics_are_loaded(trained: nn.Module, how: str) -> None:
    torch.save(wrap(how, trained.state_dict()), "w.pt")
    (built,) = resolve("ckptnet:Net", checkpoint="w.pt")
    assert built.checkpoint == "w.pt" and not built.on_meta
    for key, value in trained.state_dict().items():
        assert torch.equal(built.model.state_dict()[key], value), key
    assert built.model.last.weight is built.model.tied.weight
    x = torch.randn(4, 3)
    assert torch.equal(built.model.eval()(x), trained.eval()(x))
    assert all(parameter.requires_grad for parameter in built.model.parameters())


def test_safetensors(trained: nn.Module) -> None:
    state = {key: value.clone() for key, value in trained.state_dict().items()}
    save_file(state, "w.safetensors")
    (built,) = resolve("ckptnet:Net", checkpoint="w.safetensors")
    assert torch.equal(built.model.norm.running_var, trained.norm.running_var)


def test_a_half_precision_checkpoint_keeps_the_models_dtype(trained: nn.Module) -> None:
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in trained.state_dict().items()
    }
    torch.save(half, "w.pt")
    assert resolve("ckptnet:Net", checkpoint="w.pt")[0].model.first.weight.dtype is torch.float32


def test_an_instance_gets_the_weights_too(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), "w.pt")
    (tmp_path / "ckptnet.py").write_text(SOURCE + "\nmodel = Net()\n")
    sys.modules.pop("ckptnet")
    (built,) = resolve("ckptnet:model", checkpoint="w.pt")
    assert torch.equal(built.model.norm.running_mean, trained.norm.running_mean)


def change(state: dict[str, Any], how: str) -> Any:
    if how == "missing":
        return {key: value for key, value in state.items() if not key.startswith("norm.running")}
    if how == "unexpected":
        return {**state, "head.weight": torch.zeros(2)}
    if how == "shape":
        return {**state, "first.weight": torch.zeros(5, 3)}
    if how == "empty":
        return {"epoch": 3, "name": "x"}
    return [1, 2]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "does not fit Net: missing norm.running_mean, norm.running_var"),
        ("unexpected", "does not fit Net: unexpected head.weight"),
        ("shape", "does not fit Net: first.weight is 5x3 there and 4x3 here"),
        ("empty", "holds no state dict (a dict with epoch, name)"),
        ("list", "holds no state dict (list)"),
    ],
)
def test_what_does_not_fit_is_named(trained: nn.Module, how: str, message: str) -> None:
    torch.save(change(dict(trained.state_dict()), how), "w.pt")
    with pytest.raises(CheckpointError) as caught:
        resolve("ckptnet:Net", checkpoint="w.pt")
    assert message in caught.value.message
    assert caught.value.hint


def test_many_keys_are_cut_short(trained: nn.Module) -> None:
    torch.save({"other.weight": torch.zeros(2)}, "w.pt")
    with pytest.raises(
        CheckpointError, match=r"missing first.weight, first.bias, norm.weight and \d+ more; unexpected"
    ):
        resolve("ckptnet:Net", checkpoint="w.pt")


def refused(name: str, folder: Path, write: Callable[[Path], Any]) -> str:
    """The message for a file that `write` makes: one plain sentence, and a hint that runs no code."""
    write(folder / name)
    with warnings.catch_warnings(), pytest.raises(CheckpointError) as caught:
        warnings.simplefilter("error")
        resolve("ckptnet:Net", checkpoint=name)
    message, hint = caught.value.message, caught.value.hint or ""
    assert name in message
    assert "\n" not in message and "\x1b" not in message and caught.value.details is None
    assert "state_dict()" in hint and "weights_only" not in message + hint
    return message


def test_files_that_hold_something_else_are_said_in_our_own_words(trained: nn.Module, tmp_path: Path) -> None:
    whole = refused("whole.pt", tmp_path, lambda path: torch.save(trained, path))
    assert "is a pickle of Python objects (ckptnet.Net)" in whole
    extra = {"state_dict": trained.state_dict(), "args": Namespace(lr=0.1)}
    assert "argparse.Namespace" in refused("extra.pt", tmp_path, lambda path: torch.save(extra, path))
    traced = torch.jit.trace(trained.eval(), torch.randn(2, 3))
    assert "TorchScript" in refused("script.pt", tmp_path, traced.save)
    assert "is empty" in refused("empty.pt", tmp_path, Path.touch)
    torch.save(trained.state_dict(), "full.pt")
    half = Path("full.pt").read_bytes()[:600]
    for name, text in {"junk.pt": b"junk junk", "half.pt": half, "junk.safetensors": b"junk"}.items():
        assert "damaged or cut short" in refused(
            name, tmp_path, lambda path, text=text: path.write_bytes(text)
        )


def test_a_file_that_is_not_there(trained: nn.Module) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint `gone\.pt`"):
        resolve("ckptnet:Net", checkpoint="gone.pt")


def test_a_checkpoint_fits_one_model(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), "w.pt")
    other = "\nclass Other(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"
    (tmp_path / "ckptnet.py").write_text(SOURCE + other)
    sys.modules.pop("ckptnet")
    with pytest.raises(TargetError, match="holds 2 models, and a checkpoint fits one"):
        resolve("ckptnet.py", checkpoint="w.pt")
