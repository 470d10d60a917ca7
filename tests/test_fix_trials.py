"""What a fix asks for: each set of steps once, the original once, and nothing that cannot be written."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from dropout_lint.analysis import Analysis, Options, analyse, analyse_trace
from dropout_lint.errors import FixError
from dropout_lint.fixes.plan.amounts import BETAS
from dropout_lint.fixes.plan.planner import Planner
from dropout_lint.fixes.plan.steps import Step
from dropout_lint.fixes.plan.trials import Trials
from dropout_lint.fixes.source.engine import SourceFix, fix_source
from dropout_lint.fixes.source.prover import Prover, shared
from dropout_lint.inputs.example import Built
from dropout_lint.loading.resolving import resolve
from dropout_lint.prediction.bases import Along
from dropout_lint.rules.findings import Finding
from dropout_lint.trace import Trace, trace

MODEL = """\
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.drop1 = nn.Dropout(0.4)
        self.bn1 = nn.BatchNorm2d(6)
        self.drop2 = nn.Dropout(0.3)
        self.conv2 = nn.Conv2d(6, 6, 3)
        self.bn2 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        x = self.bn1(self.drop1(self.conv1(x))).relu()
        x = self.bn2(self.conv2(self.drop2(x))).relu()
        return self.fc(x.mean((2, 3)))
"""


@dataclass(frozen=True)
class Counted(Analysis):
    """An analysis that counts how often it was made again, and how often it was surveyed for findings."""

    counts: Counter[str] = field(default_factory=Counter)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        self.counts["surveyed"] += 1
        return super().findings

    def again(self, rewritten: Trace, along: Along) -> Analysis:
        self.counts["asked"] += 1
        return counted(super().again(rewritten, along), self.counts)


def counted(analysis: Analysis, counts: Counter[str] | None = None) -> Counted:
    counts = Counter(asked=1) if counts is None else counts
    return Counted(analysis.trace, analysis.options, analysis.prediction, counts)


class Recorder(Prover):
    """The proof process of the tests, telling which jobs it was given; `refuse` of the edits fail."""

    def __init__(self, refuse: int = 0) -> None:
        super().__init__(process=shared().start())
        self.jobs: list[str] = []
        self.refuse = refuse

    def _run(self, path: Path, job: dict[str, Any]) -> dict[str, Any]:
        self.jobs.append(job["kind"])
        if job["kind"] == "actual" and self.jobs.count("actual") <= self.refuse:
            raise FixError("refused on purpose")
        return super()._run(path, job)


class Idle(Prover):
    """A proof process that nobody may need."""

    def start(self) -> Any:
        raise AssertionError("started for nothing")


def built_of(file: Path) -> tuple[Built, Counted]:
    (built,) = resolve(f"{file}:Net")
    return built, counted(analyse(built.model, built.inputs, constructed=built.constructed))


def fix(file: Path, **options: Any) -> SourceFix:
    built, analysis = built_of(file)
    return fix_source(built, analysis, **options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "net.py"
    found.write_text(MODEL)
    return found


def test_what_stands_in_an_installed_package_is_not_weighed(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "theirs.py").write_text(MODEL)
    built, analysis = built_of(folder / "theirs.py")
    result = fix_source(built, analysis, prover=Idle())
    assert not result.changes and {item.dropout for item in result.skipped} == {"drop1", "drop2"}
    assert analysis.counts["asked"] == 1, "the findings themselves"
    (note,) = result.notes
    assert note.startswith("drop1, drop2: cannot be changed in source: it is made in theirs.py")


def test_own_dropouts_are_fixed_beside_those_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "theirs_only.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(folder))
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent("""\
        import torch
        import theirs_only
        from torch import nn

        example_inputs = (torch.randn(4, 3, 8, 8),)


        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = theirs_only.Net()
                self.drop = nn.Dropout(0.5)
                self.bn = nn.BatchNorm1d(2)
                self.head = nn.Linear(2, 2)

            def forward(self, x):
                return self.head(self.bn(self.drop(self.body(x))))
        """)
    )
    result = fix(file)
    assert [change.path.name for change in result.changes] == ["mine.py"]
    assert [item.dropout for item in result.applied] == ["drop"]
    assert {item.dropout for item in result.skipped} == {"body.drop1", "body.drop2"}
    assert all("an installed package" in item.reason for item in result.skipped)


def test_the_verdict_that_is_known_is_not_asked_for_again(file: Path) -> None:
    _, before = built_of(file)
    trials = Trials(before)
    assert trials.before is before and trials.analysis(()) is before
    Planner(trials, before.findings).plan()
    weighed = before.counts["asked"]
    Planner(trials, before.findings).plan()
    counts = before.counts
    assert counts["asked"] <= weighed + 1, "at most the chosen set, whose copy may not have been kept"
    assert counts["surveyed"] < counts["asked"], "where Δ decides, nothing is surveyed"


def test_sets_of_steps_that_differ_are_told_apart(file: Path) -> None:
    _, analysis = built_of(file)
    trials = Trials(analysis)
    first, second = analysis.trace.dropouts
    sets = [
        (),
        (Step(first, "remove"),),
        (Step(second, "remove"),),
        (Step(first, "remove"), Step(second, "remove")),
        (Step(first, "reduce", value=0.1),),
        (Step(first, "reduce", value=0.2),),
        (Step(first, "uout", value=0.2, kind="Uout"),),
    ]
    deltas = [tuple(trials.deltas(steps).values()) for steps in sets]
    assert len(set(deltas)) == len(sets)
    assert [tuple(trials.deltas(steps).values()) for steps in sets] == deltas
    assert trials.remaining(sets[0]) and not trials.remaining(sets[3])
    assert {item.node for item in trials.remaining(sets[2])} == {first.node}


def test_shares_are_worked_out_where_a_finding_depends_on_them(file: Path) -> None:
    _, before = built_of(file)
    trials = Trials(before)
    first, second = before.trace.dropouts
    clean = trials.analysis((Step(first, "remove"), Step(second, "remove")))
    assert not clean.findings and "whole" not in vars(clean)
    left = trials.analysis((Step(first, "remove"),))
    assert {item.dropout.name for item in left.findings if item.dropout} == {second.name}
    assert left.findings is left.whole.findings
    assert all(item.facts is not None and item.facts.share == 1.0 for item in left.findings)
    assert all(not shift.shares for shift in left.prediction.norms)
    assert [shift.delta for shift in left.prediction.norms] == [
        shift.delta for shift in left.whole.prediction.norms
    ]


def test_what_is_known_of_a_set_is_not_walked_for_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, before = built_of(file)
    trials = Trials(before)
    sets = [[Step(site, "reduce", value=value) for site in before.trace.dropouts] for value in (0.2, 0.01)]
    gone = [Step(site, "remove") for site in before.trace.dropouts]
    lost = [trials.loses(steps, gone, 0.95) for steps in sets]
    assert lost == [True, False]
    monkeypatch.setattr(trials, "_carry_out", None)
    assert [trials.loses(steps, gone, 0.95) for steps in sets] == lost
    assert min(trials.deltas(sets[1]).values()) >= 0.95


def test_what_is_found_because_of_its_place_is_not_tried_at_other_ratios(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (built,) = resolve('fixtures.preresnet:build(position="P4", p=0.3)')
    trials = Trials(analyse(built.model, built.inputs))
    lost: dict[float, bool] = {}
    loses = trials.loses

    def noted(steps: Sequence[Step], instead: Sequence[Step], threshold: float) -> bool:
        found = loses(steps, instead, threshold)
        if {step.action for step in steps} == {"reduce"}:
            lost[min(step.value or 0.0 for step in steps)] = found
        return found

    monkeypatch.setattr(trials, "loses", noted)
    plan = Planner(trials, trials.before.findings).plan()
    assert {step.action for step in plan.steps} == {"move"}
    assert [ratio for ratio, found in lost.items() if not found] == [min(lost)] != [0.01]


def test_the_largest_beta_that_fits_is_taken(file: Path) -> None:
    (built,) = resolve(f"{file}:Net")
    traced = trace(built.model, built.inputs, constructed=built.constructed)
    chosen = []
    for threshold in (0.79, 0.83, 0.88, 0.92, 0.95, 0.99):
        trials = Trials(analyse_trace(traced, Options(threshold=threshold)))
        plan = Planner(trials, trials.before.findings, strategy="uout").plan()
        (beta,) = {step.value for step in plan.steps}

        def worst(beta: float, trials: Trials = trials) -> float:
            steps = [Step(site, "uout", value=beta, kind="Uout") for site in traced.dropouts]
            return min(trials.deltas(steps).values())

        assert beta == next((beta for beta in BETAS if worst(beta) >= threshold), BETAS[-1])
        chosen.append(beta)
    assert len(set(chosen)) > 2


def test_without_a_comparison_the_fix_is_the_same(file: Path) -> None:
    file.write_text(MODEL.replace("self.conv2(self.drop2(x))", "self.conv2(x)"))
    (built, one), (_, other) = built_of(file), built_of(file)
    full, short = fix_source(built, one), fix_source(built, other, compare=False)
    assert short.diff == full.diff != ""
    assert (short.applied, short.skipped) == (full.applied, full.skipped)
    assert [item.strategy for item in full.weighed] == ["move", "uout", "reduce", "remove"]
    assert short.weighed == ()
    assert other.counts["asked"] < one.counts["asked"]


def test_the_original_is_run_once_for_each_set_of_dropouts_that_edits_name(file: Path) -> None:
    prover = Recorder(refuse=1)
    file.write_text(MODEL.replace("0.4", "0.06").replace("0.3", "0.0"))  # half of it is little enough
    result = fix(file, prover=prover)
    assert result.changes and result.checks
    assert prover.jobs == ["expected", "actual", "actual"]
    assert sum("refused on purpose" in note for note in result.notes) == 1


def test_an_original_that_does_not_run_is_not_run_again(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    broken = MODEL.replace(
        "    def forward(self, x):\n",
        "    def forward(self, x):\n"
        "        if not self.training and type(x) is torch.Tensor and not x.is_meta:\n"
        "            raise OSError('no such camera')\n",
    )
    file.write_text(broken)
    prover = Recorder()
    result = fix(file, prover=prover)
    assert not result.changes and prover.jobs == ["expected"]
    assert all("no such camera" in item.reason for item in result.skipped)


def test_an_answer_is_of_the_question_that_was_asked(file: Path, tmp_path: Path) -> None:
    """A process that dies leaves no answer; that of the question before must not be taken for it."""

    class Mute(Prover):
        def start(self) -> Any:
            process = super().start()
            process.terminate()
            process.wait()
            return process

    (tmp_path / "edited.answer").write_text(json.dumps({"checks": ["proven"], "measured": {}}))
    prover = Mute()
    with pytest.raises(FixError, match="without an answer"):
        prover._run(tmp_path / "edited.json", {})
    prover.close()
