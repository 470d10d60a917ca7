"""The baseline: known findings stay quiet, new ones do not, stale entries are named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import finding, target

from dropout_lint.errors import ConfigError
from dropout_lint.report.schema import FindingInfo, TargetInfo, TraceInfo
from dropout_lint.suppress import baseline
from dropout_lint.suppress.baseline import Baseline, encode, key_of, updated

ACTIVE = ["DL101", "DL201"]


def known(*findings: FindingInfo) -> Baseline:
    return updated(Baseline(), [target(findings=list(findings))], ACTIVE)


def names(info: TargetInfo) -> list[str]:
    return [found.dropout.name for found in info.findings if found.dropout]


def test_known_findings_are_taken_aside_and_new_ones_stay() -> None:
    results, stale = baseline.apply([target(findings=[finding(0), finding(1)])], known(finding(0)), ACTIVE)
    assert names(results[0]) == ["blocks.1.drop"]
    assert [entry.by for entry in results[0].suppressed] == ["baseline"]
    assert stale == []


def test_moved_lines_change_nothing() -> None:
    moved = finding(0, line=70)
    results, stale = baseline.apply([target(findings=[moved])], known(finding(0)), ACTIVE)
    assert results[0].findings == [] and stale == []


def test_the_line_in_a_functional_dropouts_name_does_not_count_but_how_often_it_occurs_does() -> None:
    def functional(line: int) -> FindingInfo:
        dropout = finding(0).dropout
        assert dropout is not None
        named = msgspec.structs.replace(dropout, name=f"layer1@model.py:{line}", functional=True)
        return msgspec.structs.replace(finding(0), dropout=named)

    assert key_of(functional(7)) == key_of(functional(70))
    results, _ = baseline.apply(
        [target(findings=[functional(7), functional(9), functional(11)])],
        known(functional(8), functional(10)),
        ACTIVE,
    )
    assert len(results[0].findings) == 1


def test_what_no_longer_occurs_is_stale() -> None:
    _, stale = baseline.apply([target(findings=[finding(1)])], known(finding(0), finding(1)), ACTIVE)
    assert [(entry.code, entry.dropout) for entry in stale] == [("DL101", "blocks.0.drop")]


def test_entries_of_what_was_not_looked_at_are_not_stale() -> None:
    entries = known(finding(0))
    partial = target(findings=[], status="partial", trace=TraceInfo(method="meta", nodes=1, opaque=["x"]))
    failed = TargetInfo(target="model.py:Net", status="error", error="x")
    assert baseline.apply([target("other:Net", findings=[])], entries, ACTIVE)[1] == []
    assert baseline.apply([partial], entries, ACTIVE)[1] == []
    assert baseline.apply([failed], entries, ACTIVE)[1] == []
    assert baseline.apply([target(findings=[])], entries, ["DL201"])[1] == []


def test_writing_prunes_what_was_looked_at_and_keeps_the_rest() -> None:
    before = updated(
        Baseline(),
        [target(findings=[finding(0), finding(1, code="DL302")]), target("o:N")],
        [*ACTIVE, "DL302"],
    )
    after = updated(before, [target(findings=[finding(2)])], ACTIVE)
    assert [(entry.code, entry.dropout) for entry in after.targets["model.py:Net"]] == [
        ("DL101", "blocks.2.drop"),
        ("DL302", "blocks.1.drop"),
    ]
    assert after.targets["o:N"] == before.targets["o:N"]
    assert updated(after, [target(findings=[]), target("o:N", findings=[])], [*ACTIVE, "DL302"]).targets == {}


def test_a_failed_target_keeps_its_entries() -> None:
    before = known(finding(0))
    assert updated(before, [TargetInfo(target="model.py:Net", status="error", error="x")], ACTIVE) == before


@given(st.lists(st.integers(0, 4), max_size=8), st.lists(st.integers(0, 4), max_size=8), st.integers(0, 1))
def test_what_was_written_is_read_back_and_covers_exactly_itself(
    old: list[int], new: list[int], extra: int
) -> None:
    file = known(*(finding(index) for index in old))
    assert msgspec.json.decode(encode(file), type=Baseline) == file
    results, stale = baseline.apply([target(findings=[finding(index) for index in new])], file, ACTIVE)
    for index in range(5):
        left = names(results[0]).count(f"blocks.{index}.drop")
        gone = sum(entry.dropout == f"blocks.{index}.drop" for entry in stale)
        assert left == max(0, new.count(index) - old.count(index))
        assert gone == max(0, old.count(index) - new.count(index))


def test_the_file_changes_one_line_for_one_finding() -> None:
    one = encode(known(finding(0), finding(2))).splitlines()
    two = encode(known(finding(0), finding(1), finding(2))).splitlines()
    assert [line for line in two if line not in one] == [
        '      {"code":"DL101","dropout":"blocks.1.drop","norm":"blocks.1.bn2"},'
    ]


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such baseline"):
        baseline.read(str(tmp_path / "none.json"))
    for text in ("{", '{"version": 2}', '{"version": 1, "targets": {"a": [{"cod": "x"}]}}'):
        file = tmp_path / "bad.json"
        file.write_text(text)
        with pytest.raises(ConfigError, match="is no baseline of version 1"):
            baseline.read(str(file))
