"""`--vendor-uout`: the class of Uout is written into the user's project, which then needs no dropout_lint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_project import run_in
from golden_fixes import CASES, fix, fixed

from dropout_lint.errors import FixError
from dropout_lint.fixes.source.vendor import text
from dropout_lint.fixes.source.write import Change, write_all
from dropout_lint.layers import STANDARD
from dropout_lint.remedies.plain_uout import Uout

NET = CASES["uout_is_advised_where_nothing_else_helps"].text
ALONE = """
import sys
sys.modules["dropout_lint"] = None
import torch, {module} as module
net = module.Net().train()
assert type(net.trunk[2]).__name__ == "Uout", net
assert not torch.equal(net(*module.example_inputs), net(*module.example_inputs))
script = torch.jit.script(net)
script.eval(), net.eval()
assert torch.equal(net(*module.example_inputs), script(*module.example_inputs))
"""


@pytest.mark.parametrize(
    ("file", "package"), [("vendored.py", "uout"), ("own/net.py", "own.uout")], ids=["file", "package"]
)
def test_the_model_needs_no_dropout_lint(
    file: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, module = tmp_path / file, file.removesuffix(".py").replace("/", ".")
    path.parent.mkdir(exist_ok=True)
    if path.parent != tmp_path:
        (path.parent / "__init__.py").touch()
    path.write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    result = fix(f"{module}:Net", vendor_uout=True)
    assert not path.with_name("uout.py").exists(), "nothing may be written before write()"
    assert not any("imports dropout_lint" in note for note in result.notes)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=result.diff, text=True, check=True)
    assert f"from {package} import Uout\n" in path.read_text()
    assert path.with_name("uout.py").read_text() == text()
    alone = ALONE.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", alone], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_stands_there_is_used_or_refused(tmp_path: Path) -> None:
    path, own = tmp_path / "net.py", tmp_path / "uout.py"
    path.write_text(NET)
    own.write_text(text() + "# mine\n")
    refused = run_in(tmp_path, "fix", "net.py:Net", "--vendor-uout", "--write")
    assert refused.returncode == 2 and not refused.stdout
    assert "uout.py is there already" in refused.stderr and "rename it" in refused.stderr
    assert path.read_text() == NET and own.read_text() == text() + "# mine\n"
    own.write_text(text())
    written = run_in(tmp_path, "fix", "net.py:Net", "--vendor-uout", "--write")
    assert written.returncode == 0 and "wrote net.py\n" in written.stderr, written.stderr
    assert run_in(tmp_path, "check", "net.py:Net").returncode == 0, "linted again, it is clean"


def test_without_it_a_note_says_what_the_model_imports() -> None:
    notes = fixed("uout_as_asked_for").notes
    assert any("imports dropout_lint from now on (Uout); --vendor-uout" in note for note in notes)
    assert not any("--vendor-uout" in note for note in fixed("inherited_block").notes)


def test_a_new_file_is_written_with_the_others_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [Change(tmp_path / name, None, "a = 1\n") for name in ("one.py", "two.py")]
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target.name == "two.py":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_all(changes)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    (tmp_path / "two.py").write_text("a = 2\n")
    with pytest.raises(FixError, match="changed while"):
        write_all(changes)
    assert [path.name for path in tmp_path.iterdir()] == ["two.py"]
    (tmp_path / "two.py").unlink()
    write_all(changes)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["a = 1\n"] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("channelwise", [False, True])
def test_the_class_that_is_written(dtype: torch.dtype, channelwise: bool) -> None:
    layer = Uout(0.5, channelwise=channelwise)
    spec = STANDARD.dropout(layer)
    assert spec is not None and (spec.noise.value, spec.p, spec.channelwise) == ("uniform", 0.5, channelwise)
    x = torch.ones(64, 32, 6, 6, dtype=dtype)
    for made in (layer, torch.jit.script(layer)):
        torch.manual_seed(0)
        y = made.train()(x)
        assert y.dtype == dtype and torch.equal(made.eval()(x), x)
        mask = y.real.double()
        assert mask.mean().item() == pytest.approx(1, abs=0.02)
        assert mask.var().item() == pytest.approx(0.25 / 3, rel=0.1)
        assert (mask.var((2, 3)).max().item() == 0) is channelwise
    with pytest.raises(ValueError, match="from 0 to 1"):
        Uout(2)
