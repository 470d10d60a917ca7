"""`check --fixes`: the reports hold the edits that `dropout-lint fix --write` would make."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cli_project import run_in
from hypothesis import given
from hypothesis import strategies as st
from report_samples import context, everything
from sarif_schema import problems

from dropout_lint.report import render
from dropout_lint.report.formats.html.diff import diff_of
from dropout_lint.report.schema import EditInfo
from dropout_lint.runs.edits import hunks

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.drop = nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(8)
        self.fc2 = nn.Linear(8, 2)
        self.last = nn.Dropout(0.2)

    def forward(self, x):
        x = self.fc1(x)
        x = self.drop(x)
        x = self.bn(x).relu()
        x = self.fc2(x)
        return self.last(x)


example_inputs = (torch.randn(4, 4),)
"""


def applied(text: str, edits: list[EditInfo]) -> str:
    """`text` with whole lines replaced, from the last to the first."""
    lines = text.splitlines(keepends=True)
    for edit in sorted(edits, key=lambda edit: -edit.first):
        lines[edit.first - 1 : edit.last] = [edit.text]
    return "".join(lines)


TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "\n", "  c\n"]), max_size=8).map("".join)


@given(before=TEXTS, after=TEXTS)
def test_hunks_lead_from_before_to_after(before: str, after: str) -> None:
    edits = hunks("x.py", before, after)
    assert applied(before, edits) == after
    assert all(first.last < second.first for first, second in pairwise(edits))


def test_the_reports_hold_the_edits_that_fix_writes(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)

    formats = [f"--output-format={name}={name}.out" for name in ("json", "sarif", "html")]
    done = run_in(tmp_path, "net.py:Net", "--fixes", *formats, "--output-format", "text")
    assert done.returncode == 1, done.stderr
    assert "source fix, proven: move drop" in " ".join(done.stdout.split())

    findings = json.loads((tmp_path / "json.out").read_text())["targets"][0]["findings"]
    assert {finding["code"] for finding in findings} == {"DL101", "DL302"}
    fixed = [applied(MODEL, [EditInfo(**edit) for edit in finding["fix"]["edits"]]) for finding in findings]

    log = json.loads((tmp_path / "sarif.out").read_text())
    assert problems(log) == []
    assert all(by_regions(MODEL, result["fixes"][0]) == fixed[0] for result in log["runs"][0]["results"])
    page = (tmp_path / "html.out").read_text()
    assert '<span class="line out">' in page and '<span class="line in">' in page

    assert (tmp_path / "net.py").read_text() == MODEL
    assert run_in(tmp_path, "fix", "net.py:Net", "--write").returncode == 0
    assert {(tmp_path / "net.py").read_text()} == set(fixed)


def by_regions(text: str, fix: dict[str, Any]) -> str:
    """`text` with a SARIF fix of one file applied, region by region."""
    (change,) = fix["artifactChanges"]
    lines = text.splitlines(keepends=True)
    for each in sorted(change["replacements"], key=lambda each: -each["deletedRegion"]["startLine"]):
        region = each["deletedRegion"]
        assert (region["startColumn"], region["endColumn"]) == (1, 1)
        lines[region["startLine"] - 1 : region["endLine"] - 1] = [each["insertedContent"]["text"]]
    return "".join(lines)


def test_an_installed_model_keeps_its_findings_and_says_why_it_has_no_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "theirs.py").write_text(MODEL)
    monkeypatch.syspath_prepend(packages)
    done = run_in(tmp_path, "theirs:Net", "--fixes", "--output-format", "json")
    assert done.returncode == 1, done.stderr
    (target,) = json.loads(done.stdout)["targets"]
    assert [finding["code"] for finding in target["findings"]] == ["DL101", "DL302"]
    assert not any(finding["fix"]["edits"] for finding in target["findings"])
    assert {finding["fix"]["by"] for finding in target["findings"]} == {"dl.fix"}
    assert {finding["fix"]["applicability"] for finding in target["findings"]} == {"automatic"}
    assert all(finding["fix"]["title"].startswith(("move", "delete")) for finding in target["findings"])
    (note,) = [note for note in target["notes"] if note.startswith("no fix in source for ")]
    assert "an installed package, which is never edited" in note


def test_html_shows_what_goes_and_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text("a\nb\nc\n\n\nd\ne\nf\n")
    edits = [
        EditInfo(file="model.py", first=2, last=2, text="b\nnew\n"),
        EditInfo(file="model.py", first=7, last=7, text=""),
    ]
    shown = [(line.kind, line.text) for line in diff_of(edits)]
    assert shown == [
        ("file", "model.py"), ("same", "a"), ("same", "b"), ("in", "new"),
        ("same", ""), ("same", "d"), ("out", "e"),
    ]  # fmt: skip
    assert [line.kind for line in diff_of([EditInfo(file="gone.py", first=1, last=1, text="x\n")])] == [
        "file",
        "in",
    ]
    assert "out = self.bn2(out)" in render(everything(), "html", context())


SLOW = MODEL.replace(
    "    def forward(self, x):\n",
    "    def forward(self, x):\n        if not self.training and type(x) is torch.Tensor and not x.is_meta:\n"
    "            open(f'running-{os.getpid()}', 'w').close()\n            time.sleep(600)\n",
)


CRASHING = """

def build():
    if os.path.exists("linted"):
        os.abort()
    open("linted", "w").close()
    return Net()
"""


def lives(number: str) -> bool:
    """Whether a process still runs some seconds later; one that nobody has waited for does not."""
    for _ in range(100):
        try:
            os.kill(int(number), 0)
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def run_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a folder, with temporary files in its `tmp`."""
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "dropout_lint", *arguments, "--output-format", "json", "--no-cache"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip


@pytest.mark.slow
def test_fixes_that_take_longer_than_the_timeout_leave_the_findings(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import os\nimport time\n" + SLOW)
    done = run_here(tmp_path, "slow.py:Net", "--fixes", "--timeout", "12")
    assert (done.returncode, done.stderr) == (1, "")
    (target,) = json.loads(done.stdout)["targets"]
    assert target["status"] == "ok"
    assert [finding["code"] for finding in target["findings"]] == ["DL101", "DL302"]
    assert not any(finding["fix"]["edits"] for finding in target["findings"])
    assert target["notes"] == ["no fix in source: linting and fixing took longer than 12 s; raise --timeout"]
    (running,) = tmp_path.glob("running-*")
    assert not lives(running.name.removeprefix("running-"))
    assert list((tmp_path / "tmp").glob("dropout-lint-*")) == []


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("options", [(), ("--timeout", "300")])
def test_ctrl_c_while_a_fix_is_proven_ends_the_proof(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import os\nimport time\n" + SLOW)
    process = subprocess.Popen(
        [sys.executable, "-m", "dropout_lint", "slow.py:Net", "--fixes", "--no-cache", *options],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    running: list[Path] = []
    for _ in range(1200):
        running = list(tmp_path.glob("running-*"))
        if running:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "\ninterrupted\n")
    assert not lives(running[0].name.removeprefix("running-"))


def test_a_fix_that_takes_the_process_along_leaves_the_findings_and_the_other_targets(tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text("import os\n" + MODEL + CRASHING)
    (tmp_path / "net.py").write_text(MODEL)
    done = run_here(tmp_path, "crash.py:build", "net.py:Net", "--fixes", "-j", "2")
    assert done.returncode == 1, done.stderr
    crash, net = json.loads(done.stdout)["targets"]
    assert len(crash["findings"]) == 2
    assert crash["notes"] == ["no fix in source: the process that worked it out died (SIGABRT)"]
    assert all(finding["fix"]["edits"] for finding in net["findings"])


def test_fixes_of_a_folder_are_the_same_in_processes_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "one.py").write_text(MODEL)
    (tmp_path / "nets" / "two.py").write_text(MODEL.replace("nn.Dropout(0.5)", "nn.Dropout(0.4)"))
    words = ("nets", "--fixes", "--output-format", "json", "--no-cache")
    here = json.loads(run_in(tmp_path, *words).stdout)
    there = json.loads(run_in(tmp_path, *words, "-j", "2", "--timeout", "300").stdout)
    assert here == there
    edits = [finding["fix"]["edits"] for target in here["targets"] for finding in target["findings"]]
    assert len(edits) == 4 and all(edits)


def test_what_is_moved_and_still_spoken_of_is_told_once(tmp_path: Path) -> None:
    """A moved dropout has a fix, though a milder rule speaks of it afterwards, under the name that it had."""
    golden = Path(__file__).parent / "golden" / "fixes" / "loop_before_layers_of_a_class.before.py"
    (tmp_path / "net.py").write_text(golden.read_text())

    said = " ".join(run_in(tmp_path, "net.py:Net", "--fixes").stdout.split())
    assert "source fix, proven: move" in said and "no fix in source" not in said

    told = [line for line in run_in(tmp_path, "fix", "net.py:Net").stderr.splitlines() if " left " in line]
    assert len(told) == 1 and " left @net.py:30 (DL102): a milder rule than before" in told[0]
