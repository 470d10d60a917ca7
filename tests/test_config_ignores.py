"""Ignore comments: found, applied, reported when unused, and written."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import SOURCE, finding, target

from dropout_lint.errors import DropoutLintError
from dropout_lint.report.convert import report_of
from dropout_lint.report.schema import IgnoreInfo, Place, TargetInfo
from dropout_lint.suppress import ignores
from dropout_lint.suppress.add_ignores import add_ignores
from dropout_lint.suppress.ignores import parse, with_ignore

CALL = "        out = self.bn2(self.drop(out))"
BUILT = "        self.drop = nn.Dropout(0.5)"
VISITED = [Place(file="model.py", line=3), Place(file="model.py", line=7)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lint(here: Path, source: str, *found: object) -> tuple[TargetInfo, list[IgnoreInfo]]:
    (here / "model.py").write_text(source)
    info = target(findings=list(found) or [finding(0)])
    kept, used = ignores.apply(info)
    return kept, ignores.unused(VISITED, used, ["DL101", "DL201", "DL302"])


@pytest.mark.parametrize("line", [CALL, BUILT])
@pytest.mark.parametrize(
    "comment", ["# dropout-lint: ignore[DL101]", "# dropout-lint: ignore[dl1, DL302]", "#dropout-lint:ignore"]
)
def test_on_the_call_or_the_construction_it_suppresses(here: Path, line: str, comment: str) -> None:
    kept, _ = lint(here, SOURCE.replace(line, f"{line}  {comment} as measured"))
    assert kept.findings == []
    assert [(entry.by, entry.reason) for entry in kept.suppressed] == [("source", "as measured")]


def test_another_code_or_another_line_does_not(here: Path) -> None:
    kept, unused = lint(here, SOURCE.replace(CALL, f"{CALL}  # dropout-lint: ignore[DL201]"))
    assert len(kept.findings) == 1
    assert [(entry.place.line, entry.codes) for entry in unused] == [(7, ["DL201"])]
    kept, _ = lint(
        here, SOURCE.replace("        return x", "        # dropout-lint: ignore\n        return x")
    )
    assert len(kept.findings) == 1


def test_each_code_that_suppresses_nothing_is_named(here: Path) -> None:
    source = SOURCE.replace(CALL, f"{CALL}  # dropout-lint: ignore[DL101, DL302]")
    kept, unused = lint(here, source)
    assert kept.findings == []
    assert [entry.codes for entry in unused] == [["DL302"]]


def test_an_ignore_of_a_rule_that_did_not_run_is_left_alone(here: Path) -> None:
    (here / "model.py").write_text(SOURCE.replace(CALL, f"{CALL}  # dropout-lint: ignore[DL302]"))
    assert ignores.unused(VISITED, set(), ["DL101"]) == []


def test_a_rule_is_ignored_by_its_name_and_no_other_then(here: Path) -> None:
    comment = "# dropout-lint: ignore[dropout-before-batch-norm] as measured"
    kept, unused = lint(here, SOURCE.replace(CALL, f"{CALL}  {comment}"))
    assert kept.findings == [] and kept.suppressed[0].reason == "as measured"
    assert unused == []
    kept, _ = lint(here, SOURCE.replace(CALL, f"{CALL}  # dropout-lint: ignore[dropout-on-predictions]"))
    assert len(kept.findings) == 1


def test_what_is_no_rule_suppresses_nothing_and_is_reported_whatever_ran(here: Path) -> None:
    source = SOURCE.replace(
        CALL, f"{CALL}  # dropout-lint: ignore[DL1O1, dropout-on-predictions, no-such-rule]"
    )
    kept, _ = lint(here, source)
    assert len(kept.findings) == 1
    words = {"DL101": "DL101", "DL302": "DL302", "DROPOUT-ON-PREDICTIONS": "DL302"}
    (entry,) = ignores.unused(VISITED, set(), ["DL101"], words)
    assert entry.codes == ["DL1O1", "NO-SUCH-RULE"]


def test_an_ignore_in_a_class_that_was_not_linted_is_left_alone(here: Path) -> None:
    other = "\n\nclass Other(nn.Module):\n    pass  # dropout-lint: ignore[DL101]\n"
    kept, unused = lint(here, SOURCE + other)
    assert len(kept.findings) == 1
    assert unused == []


def test_a_comment_inside_a_string_is_none(here: Path) -> None:
    source = SOURCE.replace(CALL, f"{CALL}; '# dropout-lint: ignore'")
    assert len(lint(here, source)[0].findings) == 1


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_call_over_several_lines_takes_it_on_its_first_and_its_last(here: Path, where: str) -> None:
    comment = "  # dropout-lint: ignore[DL101]"
    first, last = (comment, "") if where == "first" else ("", comment)
    call = f"        self.drop = nn.Dropout({first}\n            0.5,\n        ){last}"
    assert lint(here, SOURCE.replace(BUILT, call))[0].findings == []


def test_a_file_that_is_gone_or_broken_suppresses_nothing(here: Path) -> None:
    kept, used = ignores.apply(target(findings=[finding(0, file="gone.py")]))
    assert len(kept.findings) == 1 and used == set()
    (here / "bad.py").write_text("def (  # dropout-lint: ignore\n")
    assert ignores.read("bad.py").ignores == {}


def test_written_ignores_suppress_and_only_add_comments(here: Path) -> None:
    (here / "model.py").write_text(SOURCE)
    report = report_of([target(findings=[finding(0), finding(1), finding(2, code="DL201")])], "0.1.0")
    written, skipped = add_ignores(report)
    assert written == {"model.py": [7]} and skipped == []
    text = (here / "model.py").read_text()
    assert f"{CALL}  # dropout-lint: ignore[DL101, DL201]\n" in text
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(SOURCE))
    assert ignores.apply(report.targets[0])[0].findings == []


def test_a_present_ignore_is_extended_and_its_reason_kept(here: Path) -> None:
    source = SOURCE.replace(CALL, f"{CALL}  # dropout-lint: ignore[DL302] on purpose")
    changed = with_ignore(source, 7, ["DL101"])
    assert changed is not None
    assert "# dropout-lint: ignore[DL302, DL101] on purpose" in changed


def test_where_no_comment_can_stand_nothing_is_written(here: Path) -> None:
    source = SOURCE.replace(CALL, "        out = self.bn2( \\\n            self.drop(out))")
    (here / "model.py").write_text(source)
    report = report_of([target(findings=[finding(0)])], "0.1.0")
    written, skipped = add_ignores(report)
    assert written == {} and "model.py:7" in skipped[0]
    assert (here / "model.py").read_text() == source


def test_installed_packages_are_never_written(here: Path) -> None:
    library = here / "env" / "site-packages"
    library.mkdir(parents=True)
    (library / "model.py").write_text(SOURCE)
    report = report_of([target(findings=[finding(0, file="env/site-packages/model.py")])], "0.1.0")
    written, skipped = add_ignores(report)
    assert written == {} and len(skipped) == 1
    assert (library / "model.py").read_text() == SOURCE


def test_line_ends_and_permissions_are_kept(here: Path) -> None:
    file = here / "model.py"
    file.write_bytes(SOURCE.replace("\n", "\r\n").encode())
    file.chmod(0o640)
    add_ignores(report_of([target(findings=[finding(0)])], "0.1.0"))
    assert file.read_bytes().count(b"\r\n") == SOURCE.count("\n") == file.read_bytes().count(b"\n")
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("start", "encoding"), [("", "utf-8-sig"), ("# coding: latin-1\n# \xe9\n", "latin-1")]
)
def test_a_file_in_another_encoding_stays_in_it(here: Path, start: str, encoding: str) -> None:
    file, line = here / "model.py", 7 + start.count("\n")
    file.write_text(start + SOURCE, encoding=encoding)
    info = target(findings=[finding(0, line=line)])
    written, skipped = add_ignores(report_of([info], "0.1.0"))
    assert written == {"model.py": [line]} and skipped == []
    commented = SOURCE.replace(CALL, f"{CALL}  # dropout-lint: ignore[DL101]")
    assert file.read_bytes() == (start + commented).encode(encoding)
    assert ignores.apply(info)[0].findings == []


def test_a_file_that_cannot_be_read_is_named_and_no_other_changed(here: Path) -> None:
    (here / "model.py").write_text(SOURCE)
    (here / "other.py").write_bytes(b"# \xe9\n" + SOURCE.encode())
    report = report_of([target(findings=[finding(0), finding(1, file="other.py")])], "0.1.0")
    with pytest.raises(DropoutLintError, match=r"cannot read other\.py"):
        add_ignores(report)
    assert (here / "model.py").read_text() == SOURCE


LINES = [
    "x = 1",
    "y = (1,",
    "     2)",
    "s = '''a",
    "b'''",
    "if x:",
    "    pass",
    "# note",
    "z = 'it # is'",
    "",
    "w = 1 \\",
    "  + 2",
]


@given(
    st.lists(st.sampled_from(LINES), max_size=8),
    st.integers(1, 8),
    st.lists(st.sampled_from(["DL101", "DL302"]), min_size=1, unique=True),
)
def test_adding_an_ignore_never_changes_the_code(lines: list[str], line: int, codes: list[str]) -> None:
    text = textwrap.dedent("\n".join(lines) + "\n")
    try:
        before = ast.dump(ast.parse(text))
    except SyntaxError:
        return
    changed = with_ignore(text, line, codes)
    if changed is None:
        return
    assert ast.dump(ast.parse(changed)) == before
    assert set(codes) <= set(parse(changed).ignores[line].codes)
    assert with_ignore(changed, line, codes) == changed


@pytest.mark.parametrize("comment", ["# Dropout-Lint: Ignore[dl101]", "# DROPOUT-LINT: IGNORE"])
def test_the_comment_is_read_in_either_case(here: Path, comment: str) -> None:
    assert lint(here, SOURCE.replace(CALL, f"{CALL}  {comment}"))[0].findings == []


@pytest.mark.parametrize("comment", ["ignore[]", "ignore[ , ] as measured"])
def test_empty_brackets_suppress_nothing_and_are_reported(here: Path, comment: str) -> None:
    kept, (entry,) = lint(here, SOURCE.replace(CALL, f"{CALL}  # dropout-lint: {comment}"))
    assert len(kept.findings) == 1
    assert entry.codes == [] and entry.told.startswith("`ignore[]` names no rule")


@pytest.mark.parametrize("comment", ["disable[DL101]", "Disable", "noqa: DL101", "ignored", "ingore [DL101]"])
def test_another_word_for_it_is_reported(here: Path, comment: str) -> None:
    kept, (entry,) = lint(here, SOURCE.replace(CALL, f"{CALL}  # dropout-lint: {comment}"))
    assert len(kept.findings) == 1
    assert entry.place.line == 7 and "suppresses nothing: write ignore[DL101]" in entry.told


def test_prose_about_the_tool_is_let_be(here: Path) -> None:
    assert lint(here, SOURCE.replace(CALL, f"{CALL}  # dropout-lint: says 0.5 is too much"))[1] == []


def test_an_ignore_that_names_no_rule_says_so(here: Path) -> None:
    (here / "model.py").write_text(SOURCE.replace(CALL, f"{CALL}  # dropout-lint: ignore[DL999, DL302]"))
    words = {"DL101": "DL101", "DL302": "DL302"}
    idle, unknown = ignores.unused(VISITED, set(), ["DL101", "DL302"], words)
    assert idle.told == "unused ignore of DL302"
    assert unknown.told == "there is no rule DL999"


def test_a_code_is_written_into_empty_brackets(here: Path) -> None:
    text = SOURCE.replace(CALL, f"{CALL}  # dropout-lint: ignore[]")
    changed = ignores.with_ignore(text, 7, ["DL101"])
    assert changed is not None and "ignore[DL101]" in changed
