"""`dropout-lint recalibrate`: the same checkpoint out, with nothing but running statistics changed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import dropout_lint as dl
from dropout_lint.cli import run
from dropout_lint.errors import CheckpointError
from dropout_lint.remedies.rewrite import rewrite_checkpoint

CODE = """
    import torch
    from torch import nn

    print("noise of the user's module")

    class Net(nn.Module):
        def __init__(self, width=6):
            super().__init__()
            self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(width)
            self.head = nn.Linear(width, 2)

        def forward(self, x):
            return self.head(self.norm(self.drop(x.relu())))

    def build(width=6):
        return Net(width)

    def loader(rows=200):
        x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
        return [(part, torch.zeros(len(part))) for part in x.split(50)]

    BATCHES = loader()

    def metric(model):
        print("measuring")
        return model.norm.running_var.mean()

    def no_number(model):
        return "good"

    def empty():
        return []

    def breaks():
        raise OSError("disk gone")

    def half_way():
        yield torch.randn(10, 6)
        raise OSError("disk gone half way")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "shop.py").write_text(textwrap.dedent(CODE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("shop", None)
    yield tmp_path
    sys.modules.pop("shop", None)


def trained() -> nn.Module:
    """A model whose norm was trained below dropout."""
    import shop

    torch.manual_seed(0)
    model = shop.build()
    for _ in range(100):
        model(torch.randn(500, 6))
    return model.eval()


def wanted() -> torch.Tensor:
    import shop

    return torch.cat([x for x, _ in shop.loader()]).relu().var(0)


def recalibrate(source: str, target: str, *more: str) -> int:
    data = () if "--data" in more else ("--data", "shop:loader")
    return run(["recalibrate", "shop:build", "--checkpoint", source, "--output", target, *data, *more])


def test_a_plain_state_dict_in_a_real_process(project):
    model = trained()
    torch.save(model.state_dict(), "in.pt")
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from dropout_lint.cli import main; main()"),
            *("recalibrate", "shop.py:build(width=6)"),
            *("--checkpoint", "in.pt", "--data", "shop:loader(rows=200)", "--output", "out.pt"),
            *("--metric", "shop:metric"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "variance new/old" in done.stdout
    assert "wrote out.pt" in done.stdout
    assert "metric 0.8" in done.stdout
    assert "noise" not in done.stdout  # what the user's code prints goes to stderr
    assert "measuring" in done.stderr
    before, after = torch.load("in.pt", weights_only=True), torch.load("out.pt", weights_only=True)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"norm.running_mean", "norm.running_var"}
    torch.testing.assert_close(after["norm.running_var"], wanted())


def test_wrappers_prefixes_dtypes_and_everything_beside_the_weights_stay(project, capsys):
    model = trained()
    state = OrderedDict(
        (f"module.{key}", value.half() if "weight" in key else value)
        for key, value in model.state_dict().items()
    )
    state._metadata = model.state_dict()._metadata
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 6)).sum().backward()
    optimiser.step()
    saved = {"epoch": 3, "state_dict": state, "optimizer": optimiser.state_dict(), "best": float("nan")}
    torch.save(saved, "in.ckpt")
    assert recalibrate("in.ckpt", "out.ckpt") == 0
    out = torch.load("out.ckpt", weights_only=True)
    assert list(out) == list(saved)
    assert list(out["state_dict"]) == list(state)
    assert out["state_dict"]._metadata.items() >= state._metadata.items()
    for key, value in state.items():
        assert out["state_dict"][key].dtype == value.dtype
        if "running" not in key:
            assert torch.equal(out["state_dict"][key], value)
    torch.testing.assert_close(out["state_dict"]["module.norm.running_var"], wanted())
    moments, kept = out["optimizer"]["state"][0], saved["optimizer"]["state"][0]
    assert torch.equal(moments["exp_avg"], kept["exp_avg"])
    assert "norm" in capsys.readouterr().out


def test_the_old_torch_format_stays_the_old_one(project):
    torch.save(trained().state_dict(), "in.pth", _use_new_zipfile_serialization=False)
    assert recalibrate("in.pth", "out.pth") == 0
    assert Path("out.pth").read_bytes()[:2] == Path("in.pth").read_bytes()[:2] != b"PK"


def test_safetensors_keep_their_metadata_and_bytes(project):
    save_file(trained().state_dict(), "in.safetensors", metadata={"format": "pt", "author": "shop"})
    assert recalibrate("in.safetensors", "out.safetensors", "--variance-only") == 0
    with safe_open("out.safetensors", framework="pt") as file:
        assert {"format": "pt", "author": "shop"}.items() <= file.metadata().items()
    before, after = load_file("in.safetensors"), load_file("out.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"norm.running_var"}
    before_bytes, after_bytes = (data_of(file) for file in ("in.safetensors", "out.safetensors"))
    assert len(before_bytes) == len(after_bytes)
    # 6 values of 4 bytes
    assert sum(a != b for a, b in zip(before_bytes, after_bytes, strict=True)) <= 24


def data_of(file: str) -> bytes:
    """What comes after the header of a safetensors file."""
    held = Path(file).read_bytes()
    length = int.from_bytes(held[:8], "little")
    assert length % 8 == 0  # the data is aligned
    return held[8 + length :]


SAVES = {
    "in.pt": torch.save,
    "old.pt": lambda state, file: torch.save(state, file, _use_new_zipfile_serialization=False),
    "plain.pt": lambda state, file: torch.save(dict(state), file),
    "wrapped.pt": lambda state, file: torch.save({"epoch": 3, "model": dict(state)}, file),
    "prefixed.pt": lambda state, file: torch.save({f"module.{key}": state[key] for key in state}, file),
    "half.pt": lambda state, file: torch.save({key: state[key].half() for key in state}, file),
    "in.safetensors": save_file,
}


def stale(file: str, capsys) -> bool:
    """Whether `check` calls the statistics in a file stale."""
    capsys.readouterr()
    args = ("check", "shop:build", "--checkpoint", file, "--select", "DL501", "--output-format", "concise")
    status = run([*args])
    printed = capsys.readouterr().out
    assert status in (0, 1)
    assert ("DL501" in printed) == (status == 1)
    return status == 1


@pytest.mark.parametrize("kind", SAVES)
def test_check_does_not_call_stale_what_was_re_estimated(project, capsys, kind):
    SAVES[kind](trained().state_dict(), kind)
    out = Path("out").with_suffix(Path(kind).suffix).name
    assert stale(kind, capsys)
    assert recalibrate(kind, out) == 0
    assert not stale(out, capsys)
    assert recalibrate(out, f"again.{out}", "--variance-only") == 0
    assert not stale(f"again.{out}", capsys)


def test_the_marked_file_loads_strictly(project):
    import shop

    torch.save(dict(trained().state_dict()), "in.pt")
    assert recalibrate("in.pt", "out.pt") == 0
    for weights_only in (True, False):
        state = torch.load("out.pt", weights_only=weights_only)
        assert list(state) == list(torch.load("in.pt"))
        shop.build().load_state_dict(state, strict=True)


def test_marks_that_are_copied_along_after_more_training_are_not_believed(project, capsys):
    model = trained()
    torch.save(model.state_dict(), "in.pt")
    assert recalibrate("in.pt", "out.pt") == 0
    state = torch.load("out.pt")
    model.load_state_dict(state)
    model.train()(torch.randn(500, 6))
    for key, value in model.state_dict().items():
        state[key] = value  # the marks stay where they are
    torch.save(state, "more.pt")
    assert stale("more.pt", capsys)
    save_file(model.state_dict(), "more.safetensors")
    assert stale("more.safetensors", capsys)
    SAVES["in.safetensors"](trained().state_dict(), "in.safetensors")
    assert recalibrate("in.safetensors", "out.safetensors") == 0
    with safe_open("out.safetensors", framework="pt") as file:
        save_file(model.state_dict(), "more.safetensors", metadata=file.metadata())
    assert stale("more.safetensors", capsys)


def test_what_is_saved_by_hand_after_recalibrating_in_python_can_say_so(project, capsys):
    import shop

    model = trained()
    before = model.state_dict()
    result = dl.recalibrate(model, shop.loader())
    torch.save(model.state_dict(), "silent.pt")
    torch.save(result.marked(model.state_dict()), "out.pt")
    torch.save({"state_dict": result.marked(dict(model.state_dict()))}, "wrapped.pt")
    save_file(model.state_dict(), "out.safetensors", metadata=result.metadata)
    assert stale("silent.pt", capsys)
    assert not any(stale(file, capsys) for file in ("out.pt", "wrapped.pt", "out.safetensors"))
    shop.build().load_state_dict(torch.load("out.pt"), strict=True)
    result.undo()
    torch.save(result.marked(model.state_dict()), "undone.pt")
    assert stale("undone.pt", capsys) and model.state_dict().keys() == before.keys()


def test_norms_that_were_skipped_stay_stale(project, capsys):
    Path("two.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.BatchNorm1d(6))\n"
    )
    import two

    model = two.build()
    for _ in range(100):
        model(torch.randn(500, 6))
    torch.save(model.state_dict(), "in.pt")
    args = ("recalibrate", "two:build", "--data", "shop:loader", "--checkpoint")
    assert run([*args, "in.pt", "--output", "some.pt", "--skip", "3"]) == 0
    assert run([*args, "some.pt", "--output", "all.pt", "--skip", "1"]) == 0  # the earlier mark stays
    found = {}
    for file in ("in.pt", "some.pt", "all.pt"):
        capsys.readouterr()
        run(["two:build", "--input", "8x6", "--checkpoint", file, "--output-format", "json"])
        findings = json.loads(capsys.readouterr().out)["targets"][0]["findings"]
        stale_ones = [item["norms"] for item in findings if item["code"] == "DL501"]
        found[file] = {norm["name"] for norms in stale_ones for norm in norms}
    assert found == {"in.pt": {"1", "3"}, "some.pt": {"3"}, "all.pt": set()}


@pytest.mark.parametrize(
    "more", [("--data", "shop:BATCHES"), ("--data", "shop.py:loader(rows=200)"), ("--method", "stages")]
)
def test_ways_to_name_the_data(project, more):
    torch.save(trained().state_dict(), "in.pt")
    assert recalibrate("in.pt", "out.pt", *more) == 0
    torch.testing.assert_close(torch.load("out.pt", weights_only=True)["norm.running_var"], wanted())


def test_quiet_prints_one_line(project, capsys):
    torch.save(trained().state_dict(), "in.pt")
    capsys.readouterr()
    assert recalibrate("in.pt", "out.pt", "-q") == 0
    assert capsys.readouterr().out == "wrote out.pt\n"


@pytest.mark.parametrize(
    ("source", "target", "more", "message"),
    [
        ("none.pt", "out.pt", (), "no checkpoint"),
        ("in.pt", "in.pt", (), "checkpoint itself"),
        ("in.pt", "out.safetensors", (), "another kind"),
        ("in.pt", "nowhere/out.pt", (), "no folder"),
        ("in.pt", ".", (), "is a folder"),
        ("in.pt", "out.pt", ("--data", "shop:empty"), "no batch"),
        ("in.pt", "out.pt", ("--data", "shop:breaks"), "disk gone"),
        ("in.pt", "out.pt", ("--data", "shop:half_way"), "half way"),
        ("in.pt", "out.pt", ("--data", "shop:nothing"), "no attribute `nothing`"),
        ("in.pt", "out.pt", ("--data", "shop:metric(None)"), "NoneType"),
        ("in.pt", "out.pt", ("--data", "shop"), "names no attribute"),
        ("in.pt", "out.pt", ("--metric", "shop:metric(1)"), "names no function"),
        ("in.pt", "out.pt", ("--metric", "shop:BATCHES"), "--metric"),
        ("in.pt", "out.pt", ("--metric", "shop:no_number"), "returned str 'good', which is no number"),
        ("in.pt", "out.pt", ("--skip", "nose"), "nose"),
        ("in.pt", "out.pt", ("--device", "toaster"), "toaster"),
        ("bad.pt", "out.pt", (), "is no checkpoint that torch.save wrote"),
        ("other.pt", "out.pt", (), "does not fit"),
    ],
)
def test_errors_name_the_cause_and_write_nothing(project, capsys, *, source, target, more, message):
    torch.save(trained().state_dict(), "in.pt")
    torch.save(nn.Linear(2, 2).state_dict(), "other.pt")
    Path("bad.pt").write_bytes(b"no checkpoint")
    kept = Path("in.pt").read_bytes()
    capsys.readouterr()
    assert recalibrate(source, target, *more) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert not Path("out.pt").exists()
    assert Path("in.pt").read_bytes() == kept
    assert not list(project.glob(".*tmp*"))


def test_a_file_that_cannot_be_written_leaves_nothing_behind(project, monkeypatch):
    model = trained()
    torch.save(model.state_dict(), "in.pt")

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="no space left"):
        rewrite_checkpoint("in.pt", "out.pt", model, {"norm.running_var": torch.ones(6)})
    assert not Path("out.pt").exists()
    assert not list(project.glob(".*"))


def test_a_checkpoint_without_the_buffer_is_refused(project):
    model = trained()
    torch.save({k: v for k, v in model.state_dict().items() if "running" not in k}, "in.pt")
    with pytest.raises(CheckpointError, match=r"holds no norm\.running_var"):
        rewrite_checkpoint("in.pt", "out.pt", model, {"norm.running_var": torch.ones(6)})
