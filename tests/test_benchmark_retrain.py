"""The benchmark of the fixes: one setting, trained for a moment, from the file to the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.retrain_fixed import page
from benchmarks.retrain_fixed.__main__ import arguments
from benchmarks.retrain_fixed.rows import farthest, mean, rows
from benchmarks.retrain_fixed.subjects import SUBJECTS
from benchmarks.retrain_fixed.work import ARMS, Work, jobs


@pytest.mark.slow
def test_a_setting_goes_from_its_file_to_the_page(tmp_path: Path) -> None:
    subject = dataclasses.replace(SUBJECTS["wide_resnet"], epochs=1)
    work = Work(tmp_path)
    first = [work.outcome(job) for job in jobs([subject], [0.5], 1)]
    kept = dataclasses.replace(work, cached_only=True)
    assert [kept.outcome(job) for job in jobs([subject], [0.5], 1)] == first
    (row,) = rows(kept, [subject], [0.5], 1)
    assert "+        out = self.conv2(self.dropout(F.relu(self.bn2(out))))" in row.fix.diff
    assert row.predicted < 0.5 and row.trained < 0.6
    done = {arm for arm in ARMS if row.errors[arm]}
    assert done == set(ARMS) - {"uout"}  # Uout is asked for only where something is left
    text = page.report([row])
    assert "| wide_resnet | 0.5 |" in text
    assert str(row.of("fixed")) in text


def test_means_are_over_seeds_and_pairs() -> None:
    assert str(mean([1.0, 2.0, 3.0])) == "2.00 ± 0.58"
    assert mean([1.0, 1.1, 1.2]).clear and not mean([-1.0, 1.1, 1.2]).clear
    assert farthest([0.9, None, 1.25]) == pytest.approx(0.8)


def test_an_unknown_network_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["run", "--only", "resnet"])
    assert "no such network: resnet (one of wide_resnet" in capsys.readouterr().err
