"""Every output format: what it says, that it is well-formed, and that hostile text cannot break it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest
from cli_project import run_in
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import SOURCE, context, drawing, everything, finding, target
from sarif_schema import problems

from dropout_lint.errors import UsageError
from dropout_lint.report import FORMATS, Context, render
from dropout_lint.report.convert import report_of
from dropout_lint.report.formats.json import schema
from dropout_lint.report.group import grouped
from dropout_lint.report.schema import FixInfo, Report, TargetInfo
from dropout_lint.report.words import delta_range, opening
from dropout_lint.words import severity_of_shift, shorten_path

ROOT = Path(__file__).parents[1]
REAL = """\
from torch import nn


class Bad(nn.Module):
    def __init__(self, order=("drop", "bn")):
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.layers = nn.ModuleDict({"drop": nn.Dropout(0.5), "bn": nn.BatchNorm1d(8)})
        self.order = order
        self.fc2 = nn.Linear(8, 2)
        self.last = nn.Dropout(0.4)  # dropout-lint: ignore[DL302] on purpose: "quoted" <text>

    def forward(self, x):
        x = self.fc1(x)
        for name in self.order:
            x = self.layers[name](x)
        return self.last(self.fc2(x.relu()))


class Good(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


example_inputs = (__import__("torch").randn(4, 4),)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "model.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_text_shows_the_line_the_path_the_shift_and_what_to_do(here: Path) -> None:
    text = render(everything(), "text", context())
    assert "error[DL101]: dropout reaches a batch norm with no weight layer between" in text
    assert "--> model.py:7:24" in text
    lines = text.splitlines()
    marked = next(number for number, line in enumerate(lines) if "7 │ " in line)
    start = lines[marked].index("self.drop(out)")
    assert lines[marked + 1][start : start + len("self.drop(out)")] == "^" * len("self.drop(out)")
    assert "blocks.1.drop → add() → bn2" in text
    assert "0.42 to 0.61 severe" in text
    flat = " ".join(text.split())
    assert "source fix, proven: move it behind conv2 (Δ 0.42 → 0.98)" in flat
    assert "; dropout-lint fix --write applies it" in flat
    assert "3 times on this line: blocks.0.drop, blocks.1.drop, blocks.2.drop" in text
    assert re.search(r"why +\S", text)
    assert "dropout-lint rule DL101 · Li et al. 2019, Eq. 6" in text


def test_only_what_one_fix_is_good_for_is_one_group() -> None:
    first, second, third = finding(0), finding(1), finding(2)
    other = msgspec.structs.replace(
        third,
        dropout=msgspec.structs.replace(third.dropout, name="lstm", kind="LSTM", p=0.4),
        fix=FixInfo(applicability="manual", strategy="reduce", title="lower it"),
    )
    second = msgspec.structs.replace(second, dropout=msgspec.structs.replace(second.dropout, p=0.1))
    together, alone = grouped([first, second, other])
    assert together.findings == (first, second) and together.ratios == "p = 0.1 to 0.5"
    assert alone.findings == (other,) and not alone.ratios
    report = report_of([TargetInfo(target="model", status="ok", findings=[first, second, other])], "0")
    text = " ".join(render(report, "text", context()).split())
    assert "2 times on this line (p = 0.1 to 0.5): blocks.0.drop, blocks.1.drop" in text
    assert "likewise the 1 other" in text and "by hand: lower it" in text


@pytest.mark.parametrize(
    ("deltas", "word"),
    [((1.03, 1.12), "moderate"), ((0.97, 1.3), "moderate"), ((0.8, 1.2), "moderate"), ((0.6, 1.2), "strong")],
)
def test_a_group_is_called_by_the_shift_that_is_farthest_from_1(
    deltas: tuple[float, float], word: str, here: Path
) -> None:
    """A Δ above 1 is as bad as its inverse: it is no milder than one a little below 1 on the same line."""
    found = [finding(index, delta) for index, delta in enumerate(deltas)]
    report = report_of([target(findings=found, predictions=[])], "0.1.0")
    for format in ("text", "markdown", "html"):
        assert f"{deltas[0]:.2f} to {deltas[1]:.2f}" in render(report, format, context())
    assert f"{word} █" in render(report, "text", context())
    assert f"{word} |" in render(report, "markdown", context())


@pytest.mark.parametrize(
    ("before", "after", "said"), [(1.4, 1.02, True), (0.7, 1.5, False), (1.02, 1.4, False)]
)
def test_a_fix_says_that_it_brings_delta_nearer_to_1(
    before: float, after: float, said: bool, here: Path
) -> None:
    found = finding(0, before)
    found = msgspec.structs.replace(found, fix=msgspec.structs.replace(found.fix, delta_after=after))
    text = render(report_of([target(findings=[found])], "0.1.0"), "text", context())
    assert (f"(Δ {before:.2f} → {after:.2f})" in text) == said


def test_dropouts_that_nothing_calls_and_no_line_made_are_told_together_by_name(here: Path) -> None:
    found = [
        msgspec.structs.replace(
            finding(n, None, code="DL406", severity="info", line=None), path=[f"blocks.{n}.drop"]
        )
        for n in range(3)
    ]
    text = render(report_of([target(findings=found)], "0.1.0"), "text", context())
    assert text.count("info[DL406]") == 1
    assert "3 times: blocks.0.drop, blocks.1.drop, blocks.2.drop" in text
    text = render(report_of([target(findings=found[:1])], "0.1.0"), "text", context())
    assert "where  blocks.0.drop\n" in text


def test_text_promises_no_edit_that_was_not_tried(here: Path) -> None:
    known = finding(0, 0.42)
    untried = msgspec.structs.replace(known, fix=msgspec.structs.replace(known.fix, edits=[]))
    flat = " ".join(render(report_of([target(findings=[untried])], "0.1.0"), "text", context()).split())
    assert "`dropout-lint fix` or dl.fix: move it behind conv2 (Δ 0.42 → 0.98)" in flat


def test_text_says_aloud_what_it_does_not_know(here: Path) -> None:
    text = " ".join(render(everything(), "text", context()).split())
    assert "guessed from stem" in text
    assert "Partly traced: nothing is known about decoder (scripted)." in text
    assert "no module named 'nope'" in text
    assert "unused ignore DL302" in text
    assert "1 baseline entry no longer occurs" in text
    assert "1 suppressed and 1 in the baseline" in text
    assert "1 target could not be linted" in text


def test_text_explains_a_rule_once(here: Path) -> None:
    report = report_of([target(findings=[finding(0, line=7), finding(1, line=8)])], "0.1.0")
    assert len(re.findall(r"^  why ", render(report, "text", context()), re.MULTILINE)) == 1


def test_text_without_findings_is_short_and_says_so(here: Path) -> None:
    text = render(report_of([target(findings=[])], "0.1.0"), "text", context())
    assert text.rstrip().endswith("No misplaced dropout found in 1 target.")
    assert len(text.splitlines()) < 8


def test_quiet_text_is_one_line_a_place(here: Path) -> None:
    text = render(everything(), "text", context(quiet=True))
    assert text.startswith("model.py:7:24  DL101 error: dropout reaches")
    assert "(3 times)" in text


@given(
    width=st.integers(60, 120),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=60),
)
@settings(max_examples=40, deadline=None)
def test_text_keeps_to_its_width_and_means_the_same_without_colour(width: int, name: str) -> None:
    report = report_of([target(name[:30])], "0.1.0")
    plain = render(report, "text", context(width=width, show_predictions=True))
    colored = render(report, "text", context(width=width, color=True, show_predictions=True))
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain
    assert "\x1b" not in plain and "\x1b" in colored
    assert max(len(line) for line in plain.splitlines()) <= width


def test_predictions_table_names_the_norms_that_remember_nothing(here: Path) -> None:
    text = render(everything(), "text", context(show_predictions=True))
    assert re.search(r"head\.norm +0\.70 +remembers none", text)
    assert re.search(r"blocks\.0\.bn2 +0\.50 +strong +100% blocks\.0\.drop", text)


def test_concise_is_what_editors_read(here: Path) -> None:
    lines = render(everything(), "concise", context()).splitlines()
    assert lines[0].startswith("model.py:7:24: error DL101 dropout reaches")
    assert lines[0].endswith(" (3 modules of model.py:Net)")
    assert any(line.startswith("other.py:Net:: info DL203") for line in lines)
    assert any(line.startswith("model.py:8:1: unused ignore of DL302") for line in lines)


def test_json_follows_the_published_schema(here: Path) -> None:
    document = json.loads(render(everything(), "json"))
    published = json.loads((ROOT / "docs" / "report.schema.json").read_text())
    jsonschema.validate(document, published)
    assert document["version"] == 1
    assert document["summary"] == {"error": 3, "warning": 0, "info": 1, "suppressed": 1, "baselined": 1}
    assert msgspec.json.decode(json.dumps(document), type=Report) == everything()


def test_the_published_schema_is_that_of_the_structs() -> None:
    assert json.loads((ROOT / "docs" / "report.schema.json").read_text()) == schema()


def test_sarif_has_rules_results_fixes_suppressions_and_repository_paths(here: Path) -> None:
    run = json.loads(render(everything(), "sarif", context()))["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    result = run["results"][0]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "DL101"
    assert rules[result["ruleIndex"]]["help"]["markdown"].startswith("# DL101")
    assert json.dumps(rules).count("## Why it hurts") == len(rules)
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "model.py", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 7, "startColumn": 24, "endLine": 7, "endColumn": 38}
    change = result["fixes"][0]["artifactChanges"][0]["replacements"][0]
    assert change["deletedRegion"]["startLine"] == 7
    assert change["insertedContent"]["text"] == "        out = self.bn2(out)\n"
    kinds = [entry["suppressions"][0]["kind"] for entry in run["results"] if "suppressions" in entry]
    assert kinds == ["inSource", "external"]
    assert run["invocations"][0]["executionSuccessful"] is False


def test_sarif_paths_are_relative_to_the_repository_not_to_the_current_directory(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sub = here / "sub dir"
    sub.mkdir()
    monkeypatch.chdir(sub)
    run = json.loads(render(everything(), "sarif", context()))["runs"][0]
    uri = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "sub%20dir/model.py"


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("model.py:Net", "model.py"),
        ("model.py:build(':')", "model.py"),
        ("model:Net", "model.py"),
        ("pkg.net:Net(1, 2)", "pkg/net.py"),
        ("pkg", "pkg/__init__.py"),
        ("torchvision.models:resnet18", None),
    ],
)
def test_sarif_gives_a_finding_of_no_line_the_targets_file(name: str, uri: str | None, here: Path) -> None:
    (here / "pkg").mkdir()
    for file in ("net", "__init__"):
        (here / "pkg" / f"{file}.py").write_text("x = 1\n")
    report = report_of([target(name, findings=[finding(line=None)])], "0.1.0")
    (result,) = json.loads(render(report, "sarif", context()))["runs"][0]["results"]
    physical = result["locations"][0].get("physicalLocation")
    assert (physical and physical["artifactLocation"]["uri"]) == uri


def test_sarif_fingerprints_do_not_move_with_lines(here: Path) -> None:
    def prints(line: int) -> list[str]:
        report = report_of([target(findings=[finding(0, line=line)])], "0.1.0")
        run = json.loads(render(report, "sarif", context()))["runs"][0]
        return [entry["partialFingerprints"]["dropoutLint/v1"] for entry in run["results"]]

    assert prints(7) == prints(8)


HOSTILE = "a b<c>|%zz\u202e\x07\U0001f600:é\n"


@pytest.mark.parametrize(
    "report",
    [
        everything(),
        report_of([], "0.1.0"),
        report_of([target(findings=[], trace=None)], "0.1.0"),
        report_of([target(HOSTILE, findings=[finding(file=f"{HOSTILE}.py"), finding(code="XY1")])], "0.1.0"),
    ],
    ids=["everything", "no target", "no finding", "hostile names and a rule of one's own"],
)
@pytest.mark.parametrize("rules", ["all rules", "no rules"])
def test_sarif_is_valid_by_the_published_schemas(report: Report, rules: str, here: Path) -> None:
    with_rules = context() if rules == "all rules" else Context()
    assert problems(json.loads(render(report, "sarif", with_rules))) == []


def test_what_the_schemas_forbid_is_noticed(here: Path) -> None:
    log = json.loads(render(everything(), "sarif", context()))
    result = log["runs"][0]["results"][0]
    result["level"] = "info"
    result["locations"][0]["physicalLocation"]["region"] = {"endLine": 3}
    result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] = "a b.py"
    del log["runs"][0]["invocations"][0]["executionSuccessful"]
    found = "\n".join(problems(log))
    for part in ("'info' is not one of", "not valid under any of", "uri-reference", "executionSuccessful"):
        assert part in found, part


def test_sarif_of_real_runs_is_valid(tmp_path: Path) -> None:
    """Findings, one suppressed in the source, known ones, none, and a target that fails."""
    (tmp_path / "net.py").write_text(REAL)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = run_in(tmp_path, *arguments, "--output-format", "sarif=out.sarif")
        assert "Traceback" not in done.stderr
        log = json.loads((tmp_path / "out.sarif").read_text())
        assert problems(log) == []
        return done.returncode, log["runs"][0]

    status, found = run("net.py:Bad")
    assert status == 1
    assert [("suppressions" in result, result["ruleId"]) for result in found["results"]] == [
        (False, "DL101"),
        (True, "DL302"),
    ]
    status, clean = run("net.py:Good", "--baseline", "known.json", "--write-baseline")
    assert (status, clean["results"]) == (0, [])
    status, failed = run("net.py:Good", "nowhere:x")
    assert status == 2
    assert "nowhere" in failed["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    run("net.py:Bad", "--baseline", "known.json", "--write-baseline")
    status, known = run("net.py:Bad", "--baseline", "known.json")
    assert status == 0
    assert {result["suppressions"][0]["kind"] for result in known["results"]} == {"inSource", "external"}


def test_github_shows_the_worst_first_and_counts_the_rest(here: Path) -> None:
    findings = [finding(index, 0.3 + index / 100, line=index + 1) for index in range(25)]
    report = report_of([target(findings=list(reversed(findings)))], "0.1.0")
    lines = render(report, "github", context()).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("::error file=model.py,line=1,col=24,title=DL101 dropout-before-batch-norm::")
    assert "16 more errors" in lines[-1]


def test_github_groups_one_line_and_escapes(here: Path) -> None:
    report = report_of([target(findings=[finding(0), finding(1)])], "0.1.0")
    lines = render(report, "github", context()).splitlines()
    assert len(lines) == 1
    assert "%0Ain 2 modules of model.py:Net: blocks.0.drop, blocks.1.drop" in lines[0]
    failed = report_of([target("a,b", status="error", error="50%\nbad", trace=None, findings=[])], "0.1.0")
    assert render(failed, "github", context()) == "::error title=dropout-lint::a,b: 50%25%0Abad\n"


def test_junit_counts_and_survives_control_characters(here: Path) -> None:
    report = report_of([target("a\x00<b>"), target("clean", findings=[]), *everything().targets[1:]], "0.1.0")
    root = ElementTree.fromstring(render(report, "junit", context()).partition("\n")[2])
    assert root.attrib["failures"] == "3"
    assert root.attrib["errors"] == "1"
    assert int(root.attrib["tests"]) == len(root.findall(".//testcase")) == 6
    assert root.find(".//testsuite[@name='clean']/testcase").attrib["name"] == "no misplaced dropout"
    suppressed = ElementTree.fromstring(render(everything(), "junit", context()).partition("\n")[2])
    assert len(suppressed.findall(".//skipped")) == 2


def test_markdown_tables_keep_their_columns(here: Path) -> None:
    bad = finding(0)
    bad = msgspec.structs.replace(
        bad, path=["a|b", "c`d"], fix=msgspec.structs.replace(bad.fix, title="x | <y>")
    )
    text = render(report_of([target(findings=[bad])], "0.1.0"), "markdown", context())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
    assert "&lt;y>" in text
    assert "<details><summary>DL101" in text


class Audit(HTMLParser):
    """Collects ids, links, scripts and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "a" and str(found.get("href", "")).startswith("#"):
            self.links.append(str(found["href"])[1:])
        if tag in ("img", "link", "iframe") or (tag == "script" and "src" in found):
            self.fetched.append(tag)


def test_html_is_one_file_whose_links_lead_somewhere(here: Path) -> None:
    pytest.importorskip("jinja2")
    audit = Audit()
    text = render(everything(), "html", context())
    audit.feed(text)
    assert audit.fetched == []
    assert not re.search(r"(?:src|@import|url\()\s*=?\s*[\"']?https?:", text)
    assert len(audit.ids) == len(set(audit.ids))
    assert set(audit.links) <= set(audit.ids)
    assert "<mark>self.drop(out)</mark>" in text
    assert "measured after the fix" in text


def test_html_shows_hostile_text_as_text(here: Path) -> None:
    pytest.importorskip("jinja2")
    (here / "model.py").write_text(SOURCE.replace("self.drop(out)", "self.drop('<script>alert(1)</script>')"))
    report = report_of([target("</style><script>alert(2)</script>")], "0.1.0")
    audit = Audit()
    audit.feed(render(report, "html", context()))
    assert audit.tags.count("script") == 1


def test_html_lists_every_operation_of_a_big_model(here: Path) -> None:
    pytest.importorskip("jinja2")
    big = drawing(300)
    text = render(everything(), "html", context(drawings={"model.py:Net": big}))
    assert text.count('<li id="t0-r') == len(big.boxes) > 1000
    assert len(text) < 2_000_000


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_renders_an_empty_report(format: str, here: Path) -> None:
    text = render(report_of([], "0.1.0"), format, context())
    assert text == "" or text.endswith("\n")


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(UsageError, match="unknown output format 'yaml'"):
        render(everything(), "yaml")


def test_formats_need_no_torch() -> None:
    code = (
        "import sys; from dropout_lint.report import render, FORMATS\n"
        "from dropout_lint.report.convert import report_of\n"
        "for name in FORMATS: render(report_of([], '1'), name)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("delta", "word"),
    [
        (1.0, "harmless"),
        (0.95, "harmless"),
        (0.92, "slight"),
        (0.8, "moderate"),
        (0.6, "strong"),
        (0.2, "severe"),
        (1.6, "strong"),
        (float("nan"), "unknown"),
        (None, "unknown"),
    ],
)
def test_words_for_a_shift(delta: float | None, word: str) -> None:
    assert severity_of_shift(delta) == word


def test_small_words() -> None:
    assert delta_range([finding(0, 0.5), finding(1, 0.5)]) == "0.50"
    assert shorten_path(["a.b.drop", "add()", "a.b.conv", "c.bn"]) == ["a.b.drop", "add()", "conv", "c.bn"]
    assert shorten_path(["model.2", "model.3", "bn"]) == ["model.2", "model.3", "bn"]
    assert opening("First one. Second one, Li et al. 2019. " + "Third " * 60 + ".", 60).startswith(
        "First one. Second"
    )
    assert opening("```python\nx\n```\n\nSee [the paper](https://x.y), *please*.") == "See the paper, please."


def test_context_without_rules_still_renders(here: Path) -> None:
    for name in ("text", "markdown", "sarif", "html"):
        assert "DL101" in render(everything(), name, Context())
