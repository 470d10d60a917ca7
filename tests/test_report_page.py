"""The HTML page: an overview of many targets, nothing said twice, legends that agree with what is drawn."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_samples import SOURCE, context, everything, finding, target

from dropout_lint.report import render
from dropout_lint.report.convert import report_of
from dropout_lint.report.schema import MeasurementInfo, PredictionInfo, TargetInfo

pytest.importorskip("jinja2")


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(SOURCE)


def page_of(*targets: TargetInfo) -> str:
    return render(report_of(targets, "0.1.0"), "html", context())


def test_several_targets_have_an_overview() -> None:
    page = render(everything(), "html", context())
    table = page.partition('<table class="overview">')[2].partition("</table>")[0]
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in table.split("<tr>")[2:]]
    assert [row[0] for row in rows] == ["model.py:Net", "other.py:Net", "nope:x"]
    assert "3 errors 0.42 severe at blocks.1.bn2" in " ".join(rows[0])
    assert "1 note" in " ".join(rows[1])
    assert rows[2][1:] == ["failed"]
    assert set(re.findall(r'href="#(t\d)"', table)) == {"t0", "t1", "t2"}


def test_one_target_has_none() -> None:
    page = page_of(target())
    assert '<table class="overview">' not in page
    assert 'href="#t0"' in page


def test_a_why_and_an_edit_stand_once() -> None:
    page = page_of(
        target("a:Net", findings=[finding(0, 0.5)]),
        target("b:Net", findings=[finding(0, 0.5), finding(1, 0.4, line=8)]),
    )
    main = page.partition('<section id="rules"')[0]
    assert main.count("<dt>why</dt>") == 1
    assert main.count('class="code diff"') == 1
    assert main.count('the same as <a href="#edit0">above</a>') == 2
    assert main.count('id="edit0"') == 1


def test_the_legend_names_the_colours_that_there_are_and_no_others() -> None:
    deltas = {"a.norm": 1.0, "b.norm": 0.92, "c.norm": 0.8, "d.norm": 0.6, "e.norm": 0.3, "f.norm": 0.35}
    norms = [
        PredictionInfo(norm=name, delta=delta, basis="checkpoint", shares={})
        for name, delta in deltas.items()
    ]
    measured = MeasurementInfo(norm="a.norm", delta=0.9, shift_ratio=1.1, after_fix=1.0)
    for shown, words, dots in (
        (norms, ["harmless", "slight", "moderate", "strong", "severe"], []),
        (norms[::3], ["harmless", "strong"], []),
        (norms[:1], ["harmless"], ["measured", "after"]),
    ):
        measurements = [measured] if dots else []
        page = page_of(target(predictions=shown, measurements=measurements))
        chart, _, rest = page.partition('<svg class="profile"')[2].partition("</svg>")
        assert sorted(set(re.findall(r'<rect class="(\w+)"', chart))) == sorted(words)
        legend = rest.partition('<p class="legend">')[2].partition("</p>")[0]
        assert re.findall(r'class="key (\w+)"', legend) == [*words, "line", *dots]
        assert sorted(set(re.findall(r'<circle class="(\w+)"', chart))) == sorted(dots)


@pytest.mark.parametrize("amount", [3, 40, 300])
def test_the_plot_names_every_norm(amount: int) -> None:
    names = [f"stage.{index}.norm" for index in range(amount)]
    norms = [PredictionInfo(norm=name, delta=0.7, basis="checkpoint", shares={}) for name in names]
    chart = page_of(target(predictions=norms)).partition('<svg class="profile"')[2].partition("</svg>")[0]
    assert re.findall(r'<text class="name"[^>]*>([^<]*)<', chart) == names
