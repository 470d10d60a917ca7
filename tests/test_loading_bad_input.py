"""Every mistake gives one clear line and a next step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import dropout_lint
from dropout_lint.errors import DropoutLintError, InputError, TargetError, TraceError, UsageError
from dropout_lint.loading.resolving import resolve

BAD = """
import sys
from torch import nn

class Net(nn.Module):
    def __init__(self, width, *, depth):
        super().__init__()

class Fine(nn.Linear):
    def __init__(self, width=2, drop_rate=0.5):
        super().__init__(width, width)

    def forward(self, image, mask, scale=1.0):
        return image

def raises():
    return helper()

def helper():
    raise ValueError("depth must be 6n + 4\\nand more")

def leaves():
    sys.exit(3)

def nothing():
    Fine()

def a_class():
    return Fine

def a_holder():
    class Trainer: pass
    trainer = Trainer()
    trainer.model = Fine()
    return trainer

def several():
    return Fine(), Fine()

async def later():
    return Fine()

def interrupted():
    raise KeyboardInterrupt

def unusual():
    raise BaseExceptionGroup("odd", [GeneratorExit()])

fine = Fine()
number = 3
settings = {"a": 1}
triple = (Fine, 1, 2)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "badnet.py").write_text(BAD)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("", "the target is empty", "pkg.module:attr"),
        ("a:b\nc", "holds line breaks", "pkg.module:attr"),
        (
            "no_such_module_at_all:x",
            "there is no module `no_such_module_at_all`",
            "modules are looked for in",
        ),
        ("badnte:x", "there is no module `badnte`", "did you mean `badnet`?"),
        ("nope:x", "there is no module `nope`", "modules are looked for in"),
        ("nb.ipynb", "`nb.ipynb` is a notebook", "`jupyter nbconvert --to script nb.ipynb` and lint nb.py"),
        ("a/nb.ipynb:net", "`a/nb.ipynb` is a notebook", "lint a/nb.py"),
        ("torch.nn.modulse:x", "there is no module `torch.nn.modulse`", "did you mean `torch.nn.modules`?"),
        ("torch.nn.Linear:x", "there is no module `torch.nn.Linear`", "write `torch.nn:Linear`"),
        ("torch.nn.Linear", "`torch.nn.Linear` names no attribute", "`torch.nn:Linear`"),
        ("badnet", "`badnet` names no attribute", "`badnet:attr`"),
        ("badnet:", "`badnet:` has nothing after the colon", "pkg.module:attr"),
        ("badnet.py:", "`badnet.py:` has nothing after the colon", "pkg.module:attr"),
        ("bad-net:x", "`bad-net` is no module name and no Python file", "pkg.module:attr"),
        ("badnte.py:x", "there is no file or folder `badnte.py`", "did you mean `badnet.py`?"),
        ("deep/net.py", "there is no file or folder `deep/net.py`", "the folder `deep` does not exist"),
        ("badnet:fien", "`badnet` has no attribute `fien`", "`fine`"),
        ("badnet:zzz", "`badnet` has no attribute `zzz`", "it has "),
        ("badnet:Fine.zzz", "`badnet.Fine` has no attribute `zzz`", None),
        ("badnet:number", "`number` is an int, not a model", "name an nn.Module"),
        ("badnet:settings", "`settings` is a dict, not a model", "name an nn.Module"),
        ("badnet:sys", "`sys` is a module, not a model", "name an nn.Module"),
        ("badnet:triple", "a tuple of 3 items, not a pair (model, inputs)", "name an nn.Module"),
        ("badnet:fine(3)", "calls a model that is built already", "drop the arguments: `fine`"),
        ("badnet:Net", "`Net` needs the arguments `width`, `depth`", "`badnet:Net(width=…, depth=…)`"),
        ("badnet:Net(3)", "`Net` needs the argument `depth`", "`badnet:Net(depth=…)`"),
        ("badnet:Fine(drop_rat=1)", "`Fine` takes no argument `drop_rat`", "did you mean `drop_rate`?"),
        (
            "badnet:Fine(1, 2, 3)",
            "`Fine` cannot be called like this: too many positional",
            "it takes (width=2",
        ),
        ("badnet:Fine(width=x)", "the argument `x` in", "write a factory without arguments"),
        ("badnet:Fine(**{})", "unpacks its arguments", "write each argument out"),
        ("badnet:Fine(", "is not `attr` or `attr(kw=literal)`", "pkg.module:attr"),
        ("badnet:fine[0]", "is no attribute name", "pkg.module:attr"),
        ("badnet(3)", "has no colon", "pkg.module:attr"),
        ("badnet:raises", "building `badnet:raises` raised ValueError: depth must be 6n + 4", None),
        ("badnet:leaves", "building `badnet:leaves` called sys.exit(3)", "__main__"),
        ("badnet:nothing", "`badnet:nothing` returned None, not an nn.Module", "return model"),
        ("badnet:a_class", "returned a type, not an nn.Module", "return an instance"),
        ("badnet:a_holder", "returned a Trainer, not an nn.Module", "its attribute `model` is a model"),
        ("badnet:several", "returned a tuple with 2 modules among 2 items", "return the model"),
        ("badnet:later", "returned a coroutine, not an nn.Module", "return the model"),
        ("badnet:unusual", "raised BaseExceptionGroup: odd", None),
    ],
)
def test_bad_targets(target: str, message: str, hint: str | None) -> None:
    with pytest.raises(TargetError) as caught:
        resolve(target)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    if hint is not None:
        assert hint in (caught.value.hint or "")


def test_ctrl_c_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        resolve("badnet:interrupted")


def test_the_users_exception_is_shown_with_its_lines(folder: Path) -> None:
    with pytest.raises(TargetError) as caught:
        resolve("badnet.py:raises")
    details = caught.value.details or ""
    assert f'File "{folder / "badnet.py"}", line 20, in helper' in details
    assert details.endswith("ValueError: depth must be 6n + 4\nand more")
    assert "dropout_lint" not in details.replace(str(folder), "")


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        (
            "import not_installed_anywhere",
            "needs `not_installed_anywhere`, which is not here",
            "install what provides",
        ),
        (
            "import torch.nn.nonsense",
            "needs `torch.nn.nonsense`, which is not here",
            "install what provides `torch`",
        ),
        ("def f(:\n    pass", "raised SyntaxError", None),
        ("import sys; sys.exit('bye')", "called sys.exit('bye')", "__main__"),
        ("1 / 0", "raised ZeroDivisionError: division by zero", None),
        (
            "import argparse as a\np = a.ArgumentParser()\np.add_argument('x')\np.parse_args()",
            "sys.exit(2)",
            "__main__",
        ),
    ],
)
@pytest.mark.parametrize("target", ["broken:build", "broken.py:build", "broken.py"])
def test_a_module_that_cannot_be_imported(
    folder: Path, target: str, source: str, message: str, hint: str | None
) -> None:
    (folder / "broken.py").write_text(source + "\n")
    with pytest.raises(TargetError) as caught:
        resolve(target)
    assert message in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")
    assert "broken.py" in (caught.value.details or "")


def test_options_at_module_level_see_no_options_of_the_tool(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["dropout-lint", "parses:build", "--strict"])
    (folder / "parses.py").write_text(
        "import argparse\nfrom torch import nn\np = argparse.ArgumentParser()\n"
        "p.add_argument('--width', type=int, default=3)\nargs = p.parse_args()\n"
        "def build():\n    return nn.Linear(args.width, 2)\n"
    )
    assert resolve("parses:build")[0].model.in_features == 3
    assert sys.argv[1:] == ["parses:build", "--strict"]


@pytest.mark.parametrize(
    ("texts", "message", "hint"),
    [
        (["8y3"], "`8y3` in `--input 8y3` is no size", "8x3x32x32"),
        ([""], "is no size", "8x3x32x32"),
        (["2x0"], "the size 0 in `--input 2x0` is below 1", "8x3x32x32"),
        (["2x-1"], "the size -1", "8x3x32x32"),
        (["2x3:flaot32"], "`flaot32` in `--input 2x3:flaot32` is no dtype", "did you mean float32?"),
        (["2x3:zzz"], "is no dtype", "one of float32"),
        (["a b=2x3"], "`a b` in `--input a b=2x3` is no argument name", "8x3x32x32"),
        (["m=2", "m=2"], "`--input m=` is given twice", "once"),
        (["2x3"], "1 input is given (--input), but Fine.forward also needs `mask`", "repeat --input"),
        (["2x3"] * 4, "4 inputs are given (--input), but Fine.forward takes 3", "image, mask, scale=1.0"),
        (["2x3", "maks=2x3"], "Fine.forward has no input `maks`", "did you mean `mask=`?"),
        (["2x3", "2x3", "mask=2x3"], "multiple values for argument 'mask'", "image, mask"),
    ],
)
def test_bad_inputs(texts: list[str], message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve("badnet:fine", inputs=texts)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


# Without what leads out of the test's folder.
@given(st.text(st.characters(exclude_characters="/\\~."), max_size=30))
def test_any_text_is_a_model_or_one_clear_line(text: str) -> None:
    try:
        resolve(text)
    except DropoutLintError as error:
        assert len(error.message.splitlines()) == 1


@given(st.text(alphabet="0123456789x:=-,abfloint6 ", max_size=20))
@example("--0")
@example("²x3")
def test_any_input_text_is_read_or_refused(text: str) -> None:
    from dropout_lint.inputs.shapes import parse_inputs

    try:
        inputs = parse_inputs([text])
    except InputError as error:
        assert error.hint
    else:
        assert inputs is not None
        assert parse_inputs(list(inputs.describe())).describe() == inputs.describe()


def test_scripts_that_need_the_command_line_say_so_from_a_process(folder: Path) -> None:
    """No traceback of ours reaches the terminal when a module leaves."""
    (folder / "leaver.py").write_text("import sys\nprint('hello')\nsys.exit(0)\n")
    script = (
        "from dropout_lint.loading.resolving import resolve\nfrom dropout_lint.errors import TargetError\n"
        "try:\n    resolve('leaver:x')\nexcept TargetError as error:\n    print(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "importing `leaver` called sys.exit(0)\n"
    assert done.stderr == "hello\n"


EXPORTING = (
    "import torch\nfrom torch import nn\n\n\ndef build():\n"
    "    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.BatchNorm1d(8))\n"
    "    program = torch.export.export(net, (torch.randn(4, 8),))\n"
)


@pytest.mark.parametrize(
    "returned",
    ["program", "program, (torch.randn(4, 8),)", "program.module()", "nn.Sequential(program.module())"],
)
def test_an_exported_program_is_refused_in_plain_words_where_a_model_is_needed(
    folder: Path, returned: str
) -> None:
    (folder / "exporting.py").write_text(f"{EXPORTING}    return {returned}\n")
    with pytest.raises(TraceError, match=r"a program of torch\.export: it holds one mode") as caught:
        resolve("exporting:build")
    assert caught.value.hint == "lint the module that it was made from"
    assert ("its part `0`" in caught.value.message) == ("Sequential" in returned)


def test_an_exported_program_is_not_fixed_from_python() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.BatchNorm1d(8))
    program = torch.export.export(net, (torch.randn(4, 8),))
    with pytest.raises(TraceError, match="it holds one mode"):
        dropout_lint.fix(program.module())
    with pytest.raises(UsageError, match="not ExportedProgram: lint the module that it was made from"):
        dropout_lint.fix(program)
    assert dropout_lint.lint(torch.fx.symbolic_trace(net), torch.randn(4, 8)).findings


@pytest.mark.parametrize("way", [torch.jit.script, lambda net: torch.jit.trace(net, torch.randn(4, 8))])
def test_a_scripted_model_is_not_fixed(way: Any) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.BatchNorm1d(8)).eval()
    with pytest.raises(TraceError, match="runs outside Python") as caught:
        dropout_lint.fix(way(net), torch.randn(4, 8))
    assert caught.value.hint == "lint the module that it was made from"


@pytest.mark.parametrize(("mode", "noted"), [("train", True), ("eval", False)])
def test_a_model_that_is_traced_in_train_mode_is_linted_and_says_so(
    folder: Path, mode: str, noted: bool
) -> None:
    (folder / "traced.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n"
        "    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.BatchNorm1d(8))\n"
        f"    return torch.jit.trace(net.{mode}(), torch.randn(4, 8), check_trace=False)\n"
    )
    before = torch.jit.trace
    (built,) = resolve("traced:build")
    assert torch.jit.trace is before and type(built.model) is nn.Sequential
    assert any("keeps dropping after .eval()" in note for note in built.notes) is noted
