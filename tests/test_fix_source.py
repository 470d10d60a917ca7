"""The source fix: what the diffs say, and that nothing is written without a proof."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest
from golden_fixes import CASES, FOLDER, fix, fixed, lines

from dropout_lint.analysis import analyse_trace
from dropout_lint.errors import FixError
from dropout_lint.fixes.graph.fix import fix_graph
from dropout_lint.fixes.plan.info import plan
from dropout_lint.fixes.plan.words import PLACES
from dropout_lint.fixes.source.diff import unified
from dropout_lint.fixes.source.engine import draft_source
from dropout_lint.fixes.source.prover import Question, shared
from dropout_lint.fixes.source.syntax import read_raw
from dropout_lint.fixes.source.write import Change, write_all
from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.resolving import resolve
from dropout_lint.trace import trace


def inherited(folder: Path) -> Path:
    """A file with one dropout that moves."""
    file = folder / "model.py"
    file.write_text(CASES["inherited_block"].text)
    return file


@pytest.mark.parametrize("name", list(CASES))
def test_golden_files(name: str) -> None:
    case, result = CASES[name], fixed(name)
    assert {item.reason for item in result.skipped} == set(case.left)
    if not result.changes:
        assert case.left and not result.applied and not case.golden.exists()
        assert all(item.codes and item.advice for item in result.skipped)
        return
    assert set(result.notes) == set(case.notes)
    assert case.golden.read_text() == case.outcome(result), "see tests/golden_fixes.py"
    assert any("bit-identical" in check for check in result.checks)
    assert any("strict=True" in check for check in result.checks)
    assert any("nothing new is found" in check for check in result.checks)
    if case.golden.suffix == ".py" and not case.options:
        second = case.fix(case.golden.read_text())
        assert not second.changes and not second.applied, "applying a fix twice changes nothing"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.options])
def test_what_check_promises_is_what_fix_does(name: str) -> None:
    """`check` plans, and writes for itself, what `fix` then proves; it says of each place what it means."""
    promised = {(dropout, without_meaning(title)) for dropout, title in CASES[name].promised()}
    done = {(item.dropout, item.title.rpartition(" [")[0]) for item in fixed(name).applied}
    assert promised == {(dropout, without_meaning(title)) for dropout, title in done}


def without_meaning(title: str) -> str:
    """A title without what the place's name means, which `fix` says once."""
    return next((title.removesuffix(f" ({words})") for words in PLACES.values() if words in title), title)


BOTH = [
    *(f"attention_{way}" for way in ("constant", "keyword", "positional", "variable")),
    "branches_that_become_alike",
    "builder_of_two_models",
    "channels_of_a_series",
    "flag_of_the_user",
    "head_on_a_pretrained_encoder",
    "self_of_another_name",
    "sequential_with_a_forward",
    "stack_of_one_class",
    "two_in_a_row",
    "two_readers",
]


@pytest.mark.parametrize("name", BOTH)
def test_the_graph_fix_does_what_the_source_fix_does(name: str) -> None:
    case = CASES[name]
    with case.analysed() as analysis:
        graph = fix_graph(analysis)
    assert [item.title for item in graph.applied] == [item.title for item in fixed(name).applied]
    assert [(item.dropout, item.codes) for item in graph.skipped] == [
        (item.dropout, item.codes) for item in fixed(name).skipped
    ]


def test_where_source_cannot_say_it_check_promises_the_graph_fix_alone(tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    for folder, way in ((tmp_path, "dropout-lint fix"), (packages, "dl.fix")):
        (built,) = resolve(f"{inherited(folder)}:Net")
        analysis = analyse_trace(trace(built.model, built.inputs, constructed=built.constructed))
        assert {promise.by for promise in plan(analysis, source=draft_source).values()} == {way}
        assert {promise.by for promise in plan(analysis).values()} == {"dl.fix"}


def test_no_golden_file_is_left_over() -> None:
    golden = {case.golden.name for case in CASES.values()}
    before = {f"{case.name}.before.py" for case in CASES.values() if case.golden.suffix == ".py"}
    assert before <= {path.name for path in FOLDER.iterdir()} <= golden | before


def test_a_dropout_does_not_leave_the_block_that_it_was_written_in() -> None:
    """Each block drops before its own norm; its only place by the guidelines is in the network around it."""
    own = fix("fixtures.tdnn:build")
    assert {item.place for item in own.applied} == {"after its block's norm"}
    assert sorted(lines(own.diff, "+")) == sorted(lines(own.diff, "-"))


USERS = {
    "brackets": "from model import (\n    Net,\n    Base,\n)\n\n\nclass One(Base): ...\n",
    "broken_line": "from\\\n    .model import Base\n\nmodel = Base()\n",
    "everything": "from . import *\n\n\ndef two():\n    return Base()\n",
    "of_its_own": "from torch import nn\n\n\nclass Base(nn.Module): ...\n\n\nclass Three(Base): ...\n",
}


def test_users_in_other_files_are_noted_however_they_import(tmp_path: Path) -> None:
    file = inherited(tmp_path)
    for name, text in USERS.items():
        (tmp_path / f"{name}.py").write_text(text)
    (note,) = fix(f"{file}:Net").notes
    found = dict(re.findall(r"(\w+) \(\S*/(\w+)\.py:\d+\)", note))
    assert found == {"One": "brackets", "itself": "broken_line", "two": "everything"}


QUICK = [
    'fixtures.preresnet:build(position="P4", depth=8)',
    'fixtures.heads:build(position="H5")',
]
LONG = [
    'fixtures.preresnet:build(position="P0", depth=8)',
    *(f'fixtures.preresnet:build(position="P{number}", depth=8)' for number in (1, 2, 3, 7)),
    'fixtures.preresnet:build(position="P0-output", depth=8)',
    *(f'fixtures.heads:build(position="H{number}")' for number in (1, 2, 6, 7)),
    'fixtures.resnetv1:build(position="P1", depth=8)',
]


@pytest.mark.parametrize("target", [*QUICK, *(pytest.param(item, marks=pytest.mark.slow) for item in LONG)])
def test_positions_of_the_papers(target: str) -> None:
    result = fix(target, batches=4)
    assert not result.skipped
    places = {item.place for item in result.applied}
    assert places <= {"P6", "H4", "the end of the branch"}
    before, after = result.measured
    if "H5" not in target and "H6" not in target and "H7" not in target and "P7" not in target:
        assert min(after.values()) > min(before.values())
    old = [shift.delta for shift in result.before.norms]
    new = [shift.delta for shift in result.after.norms]
    assert min(new) >= min(old) - 1e-3


def test_what_source_cannot_say_is_explained(tmp_path: Path) -> None:
    result = fix("fixtures.written.ordering:OrderingString")
    assert not result.changes
    (left,) = result.skipped
    assert left.codes == ("DL101",)
    assert left.reason == "the order of the layers is not written where they are made"
    assert "dropout_lint.fix" in left.advice


def test_uout_is_written_only_where_it_is_asked_for() -> None:
    assert not fixed("uout_is_advised_where_nothing_else_helps").changes
    stack = fix("fixtures.tdnn:build")
    assert stack.skipped and all("--strategy uout" in left.advice for left in stack.skipped)
    assert {item.action for item in fixed("uout_as_asked_for").applied} == {"uout"}
    assert "Uout" not in fixed("inherited_block").diff


def test_a_refusal_names_all_that_is_wrong_on_a_line() -> None:
    skipped = fixed("one_line_makes_right_and_wrong_ones").skipped
    assert {item.dropout for item in skipped} == {"blocks.0.3", "blocks.1.3"}


def test_installed_packages_are_never_edited(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    file = inherited(folder)
    before = file.read_bytes()
    result = fix(f"{file}:Net")
    assert not result.changes and file.read_bytes() == before
    assert "installed package" in result.skipped[0].reason
    assert "dropout_lint.fix(model, inputs)" in result.skipped[0].advice


SOUND = """\
import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.conv(x)
        return self.bn(x)
"""


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (("self.bn(x)", "self.bn(x) * 2"), "not bit-identical"),
        (("self.bn = ", "self.norm = self.bn = "), "state_dict does not load"),
        (("def forward", "def forward("), "does not build"),
        (("self.bn(x)", "self.bn(F.dropout(x, 0.5, self.training))"), "places that were not planned"),
        (("self.bn = ", "self.unused = nn.Dropout(0.5)\n        self.bn = "), "still has findings: DL"),
        (("return", "raise ValueError\n        return"), "ValueError"),
    ],
)
def test_an_edit_without_proof_is_refused(edit: tuple[str, str], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(SOUND)
    (built,) = resolve(f"{file}:Net")
    assert built.inputs is not None
    text = file.read_text().replace(*edit)
    question = Question(
        resolve=built.target, target=built.target, inputs=built.inputs, files={str(file): text}, expected=()
    )
    with pytest.raises(FixError, match=reason):
        shared().ask(question)
    unchanged = Question(
        resolve=built.target, target=built.target, inputs=Inputs(built.inputs.args), files={}, expected=()
    )
    assert shared().ask(unchanged).checks


def git_accepts(before: str, after: str, name: str, folder: Path) -> None:
    folder.mkdir()
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(before.encode())
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    diff = unified(before, after, name)
    subprocess.run(["git", "apply", "-"], cwd=folder, input=diff.encode(), check=True)
    assert file.read_bytes() == after.encode()


def test_git_apply_accepts_every_kind_of_diff(tmp_path: Path) -> None:
    cases = [
        ("a = 1\nb = 2\n", "a = 1\nb = 3\n", "plain.py"),
        ("a = 1\nb = 2", "a = 1\nb = 3", "no_newline.py"),
        ("a = 1\nb = 2", "a = 1\nb = 2\n", "newline_added.py"),
        ("a = 1\r\nb = 2\r\nc = 3\r\n", "a = 1\r\nb = 4\r\nc = 3\r\n", "crlf.py"),
        ("a = 1\n\x0c\nb = '\u2028'\nc = 1\n", "a = 1\n\x0c\nb = '\u2028'\nc = 2\n", "form_feed.py"),
        ("a = 1\n", "a = 2\n", "my models/net one.py"),
        ("", "a = 1\n", "empty.py"),
    ]
    for number, (before, after, name) in enumerate(cases):
        git_accepts(before, after, name, tmp_path / str(number))


def test_the_diff_of_a_fix_is_accepted_by_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    folder = tmp_path / "my package"
    folder.mkdir()
    file = inherited(folder)
    file.write_text(file.read_text().rstrip("\n"))
    result = fix(f"{file}:Net")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=result.diff.encode(), check=True)
    assert file.read_text() == result.changes[0].after


def test_writing_keeps_mode_encoding_and_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    text = "# -*- coding: latin-1 -*-\n# größe\n" + CASES["inherited_block"].text
    text = text.replace("\n", "\r\n")
    file.write_bytes(text.encode("latin-1"))
    file.chmod(0o754)
    result = fix(f"{file}:Net")
    result.write()
    data = file.read_bytes()
    assert b"gr\xf6\xdfe" in data and data.count(b"\n") == data.count(b"\r\n")
    assert b"self.conv2(self.drop(torch.relu" in data
    assert stat.S_IMODE(file.stat().st_mode) == 0o754
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_an_interruption_leaves_every_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("one.py", "two.py")]
    for file in files:
        file.write_text("a = 1\n")
    changes = [Change(file, read_raw(file), "a = 2\n") for file in files]
    real, count = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_all(changes)
    assert [file.read_text() for file in files] == ["a = 1\n", "a = 1\n"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.py", "two.py"]


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text("a = 1\n")
    change = Change(file, read_raw(file), "a = 2\n")
    file.write_text("a = 5\n")
    with pytest.raises(FixError, match="changed while"):
        write_all([change])
    assert file.read_text() == "a = 5\n"


PARENT = """
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self, p=0.3):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout(p)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.bn(self.drop(self.conv(x)))


def build():
    import child

    return Net()
"""
CHILD = """
from parent_of_child import Net


class Child(Net):
    def forward(self, x):
        return self.drop(x)
"""


def test_a_dropout_that_a_subclass_elsewhere_calls_stays_constructed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parent_of_child.py").write_text(PARENT)
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(tmp_path)
    result = fix("parent_of_child:build()", strategy="remove")
    assert lines(result.diff, "-") == ["return self.bn(self.drop(self.conv(x)))"]
