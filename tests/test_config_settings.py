"""`[tool.dropout-lint]`: what is read, from where, and how a mistake in it is said."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from dropout_lint.cli.options import blamed_on_file
from dropout_lint.config import Settings, TargetSettings, convert, load
from dropout_lint.errors import ConfigError, RuleError, UsageError


def project(folder: Path, table: str, header: str = "[tool.dropout-lint]") -> Path:
    file = folder / "pyproject.toml"
    file.write_text(f"[project]\nname = 'x'\n{header}\n{table}\n")
    return file


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    loaded = load(start=tmp_path)
    assert loaded.settings == Settings()
    assert loaded.file is None
    assert loaded.settings.delta_threshold == 0.95
    assert loaded.settings.fail_on == "warning"


def test_the_nearest_file_with_the_table_upwards_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, 'ignore = ["DL301"]')
    inner = tmp_path / "pkg" / "models"
    inner.mkdir(parents=True)
    project(tmp_path / "pkg", "", header="[tool.other]")
    monkeypatch.chdir(inner)
    loaded = load()
    assert loaded.settings.ignore == ["DL301"]
    assert loaded.file == tmp_path / "pyproject.toml"


def test_the_search_ends_at_the_repository(tmp_path: Path) -> None:
    project(tmp_path, 'ignore = ["DL301"]')
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    assert load(start=repository).settings == Settings()


def test_paths_are_meant_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(
        tmp_path,
        'targets = ["models/net.py:Net", "pkg.net:Net", {target = "src/", checkpoint = "w.pt"}]\n'
        'rules = ["lint"]\nbaseline = "known.json"',
    )
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    settings = load().settings
    assert settings.target_names() == [
        str(tmp_path / "models" / "net.py") + ":Net",
        "pkg.net:Net",
        str(tmp_path / "src"),
    ]
    assert settings.rules == [str(tmp_path / "lint")]
    assert settings.baseline == str(tmp_path / "known.json")
    monkeypatch.chdir(tmp_path)
    assert load().settings.rules == ["lint"]


def test_everything_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project(
        tmp_path,
        """
select = ["DL1"]
ignore = ["DL103"]
delta-threshold = 0.9
fail-on = "error"
strict = true
exit-zero = true
output-format = "github"
output-file = "out.txt"
show-predictions = true
cache = false
jobs = 2
timeout = 60
input = ["8x3x32x32"]

[[tool.dropout-lint.targets]]
target = "m:Net"
input = ["4x3x8x8"]
select = ["DL2"]
fail-on = "info"

[tool.dropout-lint.dropouts]
MyDrop = { noise = "channel", p = "rate", keeps = true }
""",
    )
    settings = load().settings
    assert settings.output_format == ["github"]
    assert settings.dropouts["MyDrop"].keeps
    own = settings.for_target("m:Net")
    assert (own.input, own.select, own.fail_on) == (["4x3x8x8"], ["DL2"], "info")
    assert own.ignore == ["DL103"]
    assert settings.for_target("other:Net") is settings


def test_models_found_in_a_configured_folder_or_file_have_its_overrides() -> None:
    settings = convert(
        {"targets": [{"target": "models/", "strict": True}, {"target": "a.py", "fail-on": "info"}]}, "x.toml"
    )
    assert settings.for_target("models/net.py:Net").strict
    assert settings.for_target("a.py:Net").fail_on == "info"
    assert settings.for_target("models2/net.py:Net") is settings


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ("selct = []", "unknown key `selct` in [tool.dropout-lint]", "did you mean `select`?"),
        ("delta_threshold = 0.9", "unknown key `delta_threshold`", "did you mean `delta-threshold`?"),
        ("jobs = 'two'", "`jobs` in [tool.dropout-lint]: expected `int`, got `str`", "whole number"),
        ("jobs = 0", "`jobs` in [tool.dropout-lint]: expected `int` >= 1", "whole number"),
        ("delta-threshold = 1.5", "`delta-threshold`", "such as 0.95"),
        ("fail-on = 'fatal'", "`fail-on`", '"error", "warning" and "info"'),
        ("targets = [{input = ['2x3']}]", "has no `target`", "package.module:attr"),
        ("targets = [{target = 'a:b', chekpoint = 'x'}]", "unknown key `chekpoint`", "`checkpoint`"),
        ("targets = 3", "`targets`", "targets = ["),
        ("dropouts = {D = {nois = 'x'}}", "unknown key `nois` in [tool.dropout-lint.dropouts.D]", "`noise`"),
        (
            "dropouts = {D = {noise = 'x'}}",
            "'x' is no noise, in [tool.dropout-lint.dropouts.D]",
            "are element",
        ),
        ("dropouts = {D = {noise = 'attention'}}", "'attention' is no noise", "are element"),
        ("dropouts = {D = {noise = ['x']}}", "['x'] is no noise", "are element"),
        ("select = [1]", "`select[0]`", "--help"),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, message: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    project(tmp_path, table)
    with pytest.raises(ConfigError) as caught:
        load()
    assert caught.value.message.startswith("pyproject.toml: ")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_file_that_is_named_must_be_there_and_hold_the_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load(tmp_path / "none.toml")
    empty = tmp_path / "pyproject.toml"
    empty.write_text("")
    with pytest.raises(ConfigError, match=r"has no \[tool.dropout-lint\] table"):
        load(empty)


def test_broken_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.dropout-lint\n")
    with pytest.raises(ConfigError, match=r"pyproject.toml is not valid TOML: .*line 1"):
        load()
    file.write_text("[tool.dropout_lint]\n")
    with pytest.raises(ConfigError, match="is not read"):
        load()
    file.write_text("[tool]\ndropout-lint = 3\n")
    with pytest.raises(ConfigError, match="must be a table"):
        load()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs permissions that bind")
def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project(tmp_path, "").chmod(0)
    with pytest.raises(ConfigError, match="cannot read"):
        load()


def test_settings_and_targets_share_their_names() -> None:
    own = {field.encode_name for field in msgspec.structs.fields(TargetSettings)}
    # what may be missing is one target, never all of them
    assert own - {"target", "optional"} <= {field.encode_name for field in msgspec.structs.fields(Settings)}


def test_a_string_of_output_format_is_one_format() -> None:
    assert convert({"output-format": "json"}, "x.toml").output_format == ["json"]


def test_a_tool_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("tool = 3\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml: `tool` must be a table, not int"):
        load(start=tmp_path)


@pytest.mark.parametrize(
    ("table", "problem", "where"),
    [
        ('select = ["DL999"]', RuleError('there is no rule "DL999"'), "`select` in [tool.dropout-lint]"),
        ('ignore = ["DL1", "x"]', RuleError('there is no rule "x"'), "`ignore` in [tool.dropout-lint]"),
        ('output-format = ["yaml=a"]', UsageError("unknown format 'yaml'"), "`output-format` in [tool.dr"),
        (
            'targets = ["a:b", { target = "c:d", select = ["DL9"] }]',
            RuleError('there is no rule "DL9"'),
            "`select` in [tool.dropout-lint.targets[1]]",
        ),
    ],
)
def test_a_value_of_the_file_that_is_wrong_later_is_blamed_on_its_key(
    table: str, problem: Exception, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project(tmp_path, table)
    with pytest.raises(type(problem)) as raised, blamed_on_file(load(), {}):
        raise problem
    assert str(raised.value).startswith(f"pyproject.toml: {where}")
    # what the command line gives is not the file's fault
    typed = {"select": ("x",), "ignore": ("x",), "output_format": ("x",)}
    with pytest.raises(type(problem)) as raised, blamed_on_file(load(), typed):
        raise problem
    assert raised.value is problem
