"""The source fix: what the diffs say, and that nothing is written without a proof."""

from __future__ import annotations

import stat
import subprocess
import textwrap
from pathlib import Path

import pytest

from dropout_lint.analysis import analyse_trace
from dropout_lint.errors import FixError
from dropout_lint.fixes.source.diff import unified
from dropout_lint.fixes.source.engine import SourceFix, fix_source
from dropout_lint.fixes.source.prover import Question, shared
from dropout_lint.fixes.source.syntax import read_raw
from dropout_lint.fixes.source.write import Change, write_all
from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.resolving import resolve
from dropout_lint.trace import trace

HEAD = """\
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

example_inputs = (torch.randn(4, 3, 8, 8),)


"""


def fix(target: str, **options: object) -> SourceFix:
    (built,) = resolve(target)
    traced = trace(built.model, built.inputs, constructed=built.constructed)
    return fix_source(built, analyse_trace(traced), **options)  # type: ignore[arg-type]


def written(folder: Path, body: str, name: str = "model.py") -> Path:
    file = folder / name
    file.write_text(HEAD + textwrap.dedent(body).lstrip("\n"))
    return file


def lines(diff: str, sign: str) -> list[str]:
    return [
        line[1:].strip()
        for line in diff.splitlines()
        if line.startswith(sign) and not line.startswith(sign * 3) and line[1:].strip()
    ]


REAL_CODE = {
    "fixtures.pointnet:build": (
        ["x = F.relu(self.bn2(self.dropout(self.fc2(x))))", "x = self.fc3(x)"],
        ["x = F.relu(self.bn2(self.fc2(x)))", "x = self.fc3(self.dropout(x))"],
    ),
    "fixtures.videopose:build": (
        [
            "x = self.drop(self.relu(self.expand_bn(self.expand_conv(x))))",
            "x = self.drop(self.relu(self.layers_bn[2 * i](self.layers_conv[2 * i](x))))",
        ],
        [
            "x = self.relu(self.expand_bn(self.expand_conv(x)))",
            "x = self.relu(self.layers_bn[2 * i](self.layers_conv[2 * i](x)))",
        ],
    ),
    "fixtures.enet:build_inside_projection": (
        ['("norm", nn.BatchNorm2d(channels)),'],
        ['("norm", nn.BatchNorm2d(channels)),'],
    ),
    "fixtures.pix2pix:build": (
        ["model = down + [submodule] + up + [nn.Dropout(0.5)]"],
        ["from dropout_lint import Uout", "model = down + [submodule] + up + [Uout(0.5)]"],
    ),
}


@pytest.mark.parametrize("target", list(REAL_CODE))
def test_published_code(target: str) -> None:
    gone, new = REAL_CODE[target]
    asked = "uout" if any("Uout" in line for line in new) else "auto"
    result = fix(target, strategy=asked)
    assert not result.skipped
    assert lines(result.diff, "-") == gone
    assert lines(result.diff, "+") == new
    assert any("bit-identical" in check for check in result.checks)
    assert any("strict=True" in check for check in result.checks)
    assert any("nothing new is found" in check for check in result.checks)


def test_a_dropout_does_not_leave_the_block_that_it_was_written_in() -> None:
    """Each block drops before its own norm; its only place by the guidelines is in the network around it."""
    result = fix("fixtures.tdnn:build")
    assert {item.action for item in result.applied} == {"uout"} and len(result.applied) == 3
    assert "self.drop = Uout(0.25 if dropout_p else 0.0)" in lines(result.diff, "+")
    asked = fix("fixtures.tdnn:build", strategy="move")
    assert not any("Uout" in line for line in lines(asked.diff, "+"))


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


PATTERNS = {
    "sequential inline": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(
                    nn.Conv2d(3, 8, 3),
                    nn.Dropout(0.5),  # regularise
                    nn.BatchNorm2d(8),
                    nn.ReLU(),
                    nn.Conv2d(8, 4, 3),
                )

            def forward(self, x):
                return self.net(x)
        """,
        ["nn.Dropout(0.5),  # regularise", "nn.ReLU(),"],
        ["nn.Identity(),  # regularise", "nn.Sequential(nn.ReLU(), nn.Dropout(0.5)),"],
    ),
    "sequential reorder without parameters between": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                pool = nn.AdaptiveAvgPool2d(1)
                self.head = nn.Sequential(pool, nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 2))
                self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())

            def forward(self, x):
                return self.head(self.stem(x))
        """,
        ["self.head = nn.Sequential(pool, nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 2))"],
        ["self.head = nn.Sequential(nn.Dropout(0.2), pool, nn.Flatten(), nn.Linear(8, 2))"],
    ),
    "sequential from behind the last convolution": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(
                    nn.Conv2d(3, 3, 3, padding=1),
                    nn.BatchNorm2d(3),
                    nn.ReLU(),
                    nn.Conv2d(3, 3, 3, padding=1),
                    nn.Dropout(0.3),
                )
                self.head = nn.Linear(3, 2)

            def forward(self, x):
                x = x + self.body(x)
                return self.head(x.mean((2, 3)))
        """,
        ["nn.ReLU(),", "nn.Dropout(0.3),"],
        ["nn.Sequential(nn.ReLU(), nn.Dropout(0.3)),"],
    ),
    "list with star": (
        """
        class Net(nn.Module):
            def __init__(self, p=0.3):
                super().__init__()
                layers = [nn.Conv2d(3, 8, 3), nn.Dropout(p), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)]
                self.net = nn.Sequential(*layers)

            def forward(self, x):
                return self.net(x)
        """,
        ["layers = [nn.Conv2d(3, 8, 3), nn.Dropout(p), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)]"],
        [
            "layers = [nn.Conv2d(3, 8, 3), nn.Identity(), nn.BatchNorm2d(8), "
            "nn.Sequential(nn.ReLU(), nn.Dropout(p)), nn.Conv2d(8, 4, 3)]"
        ],
    ),
    "ordered dict": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(
                    OrderedDict(
                        [
                            ("conv1", nn.Conv2d(3, 8, 3)),
                            ("drop", nn.Dropout(0.5)),
                            ("bn", nn.BatchNorm2d(8)),
                            ("relu", nn.ReLU()),
                            ("conv2", nn.Conv2d(8, 4, 3)),
                        ]
                    )
                )

            def forward(self, x):
                return self.net(x)
        """,
        ['("drop", nn.Dropout(0.5)),'],
        ['("drop", nn.Dropout(0.5)),'],
    ),
    "add_module": (
        """
        class Block(nn.Sequential):
            def __init__(self):
                super().__init__()
                self.add_module("conv1", nn.Conv2d(3, 8, 3))
                self.add_module("drop", nn.Dropout(0.5))
                self.add_module("norm", nn.BatchNorm2d(8))
                self.add_module("relu", nn.ReLU())
                self.add_module("conv2", nn.Conv2d(8, 4, 3))


        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.block = Block()

            def forward(self, x):
                return self.block(x)
        """,
        ['self.add_module("drop", nn.Dropout(0.5))'],
        ['self.add_module("drop", nn.Dropout(0.5))'],
    ),
    "module list loop": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.convs = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)])
                self.bns = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
                self.drop = nn.Dropout(0.3)
                self.fc = nn.Linear(8 * 4 * 4, 4)

            def forward(self, x):
                for conv, bn in zip(self.convs, self.bns):
                    x = torch.relu(bn(self.drop(conv(x))))
                return self.fc(x.flatten(1))
        """,
        ["x = torch.relu(bn(self.drop(conv(x))))", "return self.fc(x.flatten(1))"],
        ["x = torch.relu(bn(conv(x)))", "return self.fc(self.drop(x.flatten(1)))"],
    ),
    "hoisted": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3 * 8 * 8, 4)

            def forward(self, x):
                x = nn.Dropout(0.5)(x)  # always on
                return self.fc(x.flatten(1))
        """,
        ["x = nn.Dropout(0.5)(x)  # always on"],
        ["self.dropout = nn.Dropout(0.5)", "x = self.dropout(x)  # always on"],
    ),
    "guarded statement": (
        """
        class Net(nn.Module):
            def __init__(self, p=0.3):
                super().__init__()
                self.conv1 = nn.Conv2d(3, 8, 3)
                self.bn = nn.BatchNorm2d(8)
                self.conv2 = nn.Conv2d(8, 4, 3)
                self.p = p

            def forward(self, x):
                out = self.conv1(x)
                # drop some
                if self.p > 0:
                    out = F.dropout(out, self.p, self.training)
                out = torch.relu(self.bn(out))
                out = self.conv2(out)
                return out
        """,
        ["out = torch.relu(self.bn(out))"],
        ["out = torch.relu(self.bn(out))"],
    ),
    "inherited block": (
        """
        class Base(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv1 = nn.Conv2d(3, 8, 3)
                self.bn = nn.BatchNorm2d(8)
                self.drop = nn.Dropout(0.4)
                self.conv2 = nn.Conv2d(8, 4, 3)

            def forward(self, x):
                return self.conv2(torch.relu(self.bn(self.drop(self.conv1(x)))))


        class Net(Base):
            pass
        """,
        ["return self.conv2(torch.relu(self.bn(self.drop(self.conv1(x)))))"],
        ["return self.conv2(self.drop(torch.relu(self.bn(self.conv1(x)))))"],
    ),
    "one module dropped twice, moved once": (
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 6, 3)
                self.drop = nn.Dropout(0.1)
                self.rate = 0.5
                self.fc = nn.Linear(6, 3)

            def forward(self, x):
                x = self.conv(x)
                x = F.adaptive_avg_pool2d(x, 1).flatten(1)
                if self.rate > 0:
                    x = self.drop(x)
                x = self.fc(x)
                x = self.drop(x)
                return x
        """,
        ["if self.rate > 0:", "x = self.drop(x)", "x = self.drop(x)"],
        ["x = self.drop(x)"],
    ),
}


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_patterns(pattern: str, tmp_path: Path) -> None:
    body, gone, new = PATTERNS[pattern]
    file = written(tmp_path, body)
    result = fix(f"{file}:Net")
    assert not result.skipped
    assert lines(result.diff, "-") == gone
    assert lines(result.diff, "+") == new
    before = file.read_text()
    (change,) = result.changes
    assert file.read_text() == before, "nothing may be written before write()"
    again = written(tmp_path, "", "again.py")
    again.write_text(change.after)
    second = fix(f"{again}:Net")
    assert not second.changes and not second.applied, "applying a fix twice changes nothing"


def test_strategies_in_source(tmp_path: Path) -> None:
    body = PATTERNS["inherited block"][0]
    file = written(tmp_path, body)
    uout = fix(f"{file}:Net", strategy="uout", beta=0.3)
    assert "self.drop = Uout(0.3)" in lines(uout.diff, "+")
    assert "from dropout_lint import Uout" in lines(uout.diff, "+")
    reduced = fix(f"{file}:Net", strategy="reduce")
    (line,) = lines(reduced.diff, "+")
    assert line.startswith("self.drop = nn.Dropout(0.0")
    removed = fix(f"{file}:Net", strategy="remove")
    assert lines(removed.diff, "-")[0] == "self.drop = nn.Dropout(0.4)"


def test_what_source_cannot_say_is_explained(tmp_path: Path) -> None:
    result = fix("fixtures.written.ordering:OrderingString")
    assert not result.changes
    (left,) = result.skipped
    assert left.codes == ("DL101",)
    assert left.reason == "one line makes adn1.D and adn2.D, and only adn1.D is wrong"
    assert "dropout_lint.fix" in left.advice


THREE_BLOCKS = """\
def block(channels_in, channels):
    conv = nn.Conv2d(channels_in, channels, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.4))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(block(3, 8), block(8, 8), block(8, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))
"""


def test_a_refusal_names_all_that_is_wrong_on_a_line(tmp_path: Path) -> None:
    file = tmp_path / "three.py"
    file.write_text(HEAD + THREE_BLOCKS)
    result = fix(f"{file}:Net")
    assert not result.changes
    reasons = {item.dropout: item.reason for item in result.skipped}
    assert set(reasons) == {"blocks.0.3", "blocks.1.3"}
    assert set(reasons.values()) == {
        "one line makes blocks.0.3, blocks.1.3 and blocks.2.3, and only blocks.0.3 and blocks.1.3 are wrong"
    }


TWO_HEADS = """\
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.4))
        self.left = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))

    def forward(self, x):
        return self.left(self.trunk(x))
"""


def test_uout_is_written_only_where_nothing_else_helps(tmp_path: Path) -> None:
    file = tmp_path / "heads.py"
    file.write_text(HEAD + TWO_HEADS)
    assert {item.action for item in fix(f"{file}:Net").applied} == {"uout"}
    movable = written(tmp_path, PATTERNS["inherited block"][0], "movable.py")
    assert "Uout" not in fix(f"{movable}:Net").diff
    asked = fix(f"{movable}:Net", strategy="uout")
    assert asked.changes and {item.action for item in asked.applied} == {"uout"}


def test_installed_packages_are_never_edited(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    file = written(folder, PATTERNS["inherited block"][0])
    before = file.read_bytes()
    result = fix(f"{file}:Net")
    assert not result.changes and file.read_bytes() == before
    assert "installed package" in result.skipped[0].reason
    assert "dropout_lint.fix(model, inputs)" in result.skipped[0].advice


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
    body = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.bn = nn.BatchNorm2d(8)

        def forward(self, x):
            x = self.conv(x)
            return self.bn(x)
    """
    file = written(tmp_path, body)
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
    file = written(folder, PATTERNS["inherited block"][0])
    file.write_text(file.read_text().rstrip("\n"))
    result = fix(f"{file}:Net")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=result.diff.encode(), check=True)
    assert file.read_text() == result.changes[0].after


def test_writing_keeps_mode_encoding_and_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    text = "# -*- coding: latin-1 -*-\r\n# größe\r\n" + HEAD.replace("\n", "\r\n")
    text += textwrap.dedent(PATTERNS["inherited block"][0]).lstrip("\n").replace("\n", "\r\n")
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
