"""The cache: a kept result is used where nothing changed, and never where anything did."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_project import cli
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dropout_lint.config import DropoutClass, Settings, TargetSettings
from dropout_lint.report.outcome import Outcome
from dropout_lint.report.schema import TargetInfo
from dropout_lint.rules import load_rules
from dropout_lint.runs.cache import Cache, cache_key
from dropout_lint.runs.cache.key import own_code
from dropout_lint.runs.cache.reads import Tried
from dropout_lint.runs.cache.store import MOST_ENTRIES

ROOT = Path(__file__).parents[1]

# a "model" that depends on modules, on one that may be missing, on data, on names and on the environment
PROJECT = {
    "zoo/__init__.py": "",
    "zoo/model.py": """
import os
from pathlib import Path
from zoo import blocks
try:
    from zoo import extra
except ImportError:
    extra = None

def build():
    parts = [getattr(blocks, "WIDTH", None), getattr(extra, "DEPTH", None), os.environ.get("ZOO_VARIANT")]
    config = Path("data/config.txt")
    if config.exists():
        parts.append(config.read_text())
    parts.append(sorted(path.name for path in Path("data").glob("*.csv")))
    try:
        with open("override.txt") as stream:
            parts.append(stream.read())
    except OSError:
        pass
    return repr(parts)
""",
    "zoo/blocks.py": "WIDTH = 1\n",
    "data/config.txt": "WIDTH = 7\n",
    "data/one.csv": "",
}
FILES = [
    "zoo/notes.py",
    "zoo.py",
    "zoo/blocks.py",
    "zoo/extra.py",
    "data/config.txt",
    "data/one.csv",
    "data/two.csv",
    "override.txt",
    "zoo/extra/__init__.py",
]
RULES = load_rules()


@contextmanager
def project() -> Iterator[Path]:
    """A fresh project as the current, importable directory."""
    before = Path.cwd()
    bytecode, path = sys.dont_write_bytecode, list(sys.path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for file, text in PROJECT.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text)
        os.chdir(folder)
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(folder))
        try:
            yield folder
        finally:
            os.chdir(before)
            sys.dont_write_bytecode, sys.path[:] = bytecode, path
            os.environ.pop("ZOO_VARIANT", None)
            forget()


def forget() -> None:
    """What a new process would not have imported."""
    for name in [name for name in sys.modules if name == "zoo" or name.startswith("zoo.")]:
        del sys.modules[name]
    importlib.invalidate_caches()


class Linter:
    """Builds the project's model anew, and counts how often it had to."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, target: str, settings: Settings, rules: object) -> list[Outcome]:
        self.runs += 1
        forget()
        built = importlib.import_module("zoo.model").build()
        return [Outcome(info=TargetInfo(target=target, status="ok", model=built))]


def models(outcomes: list[Outcome]) -> list[str | None]:
    return [outcome.info.model for outcome in outcomes]


operations = st.one_of(
    st.tuples(
        st.just("write"),
        st.sampled_from(FILES),
        st.sampled_from(["WIDTH = 2\nDEPTH = 1\n", "WIDTH = 3\nDEPTH = 2\n"]),
    ),
    st.tuples(st.just("delete"), st.sampled_from(FILES), st.just("")),
    st.tuples(st.just("rename"), st.sampled_from(FILES), st.sampled_from(FILES)),
    st.tuples(st.just("set"), st.just("ZOO_VARIANT"), st.sampled_from(["x", "y"])),
    st.tuples(st.just("touch"), st.just("README.md"), st.just("")),
)


def apply(folder: Path, kind: str, name: str, value: str) -> None:
    file = folder / name
    if kind == "set":
        os.environ[name] = value
    elif kind == "touch" or (kind == "write" and name != "zoo/blocks.py" and not file.parent.parent.exists()):
        file.write_text(value)
    elif kind == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(value)
    elif kind == "delete" and name != "zoo/blocks.py":
        file.unlink(missing_ok=True)
    elif kind == "rename" and file.exists() and name != "zoo/blocks.py":
        (folder / value).parent.mkdir(exist_ok=True)
        file.replace(folder / value)


@given(st.lists(operations, max_size=6))
@example([(kind, "zoo/extra/__init__.py", "DEPTH = 1\n") for kind in ("write", "delete", "write")])
@settings(max_examples=40, deadline=None)
def test_a_kept_result_is_never_stale(changes: list[tuple[str, str, str]]) -> None:
    with project() as folder:
        lint = Linter()
        cached = Cache(folder / ".cache").wrap(lint)
        for change in [None, *changes]:
            if change is not None:
                apply(folder, *change)
            fresh = Linter()("zoo", Settings(), RULES)
            assert models(cached("zoo", Settings(), RULES)) == models(fresh)


def test_unchanged_is_linted_once_and_unrelated_changes_do_not_count() -> None:
    with project() as folder:
        lint = Linter()
        cached = Cache(folder / ".cache").wrap(lint)
        first = cached("zoo", Settings(), RULES)
        (folder / ".hidden").write_text("x")
        (folder / "data" / "notes").mkdir()
        (folder / "zoo" / "__pycache__").mkdir(exist_ok=True)
        (folder / "report.html").write_text("x")
        (folder / "new_module.py").write_text("x")
        (folder / "zoo" / "other.py").write_text("x")
        (folder / "zoo" / "notes.txt").write_text("x")
        os.environ["SOMETHING_ELSE"] = "1"
        del os.environ["SOMETHING_ELSE"]
        (folder / "data" / "notes").rmdir()
        assert cached("zoo", Settings(), RULES) == first
        assert lint.runs == 1


@pytest.mark.parametrize(
    "name",
    [
        "zoo.py",
        "json.py",
        "zoo/extra.py",
        "zoo/extra/__init__.py",
        "zoo/blocks/__init__.py",
        "zoo/pathlib",
        "os.abi3.so",
    ],
)
def test_a_new_file_of_a_name_that_is_imported_counts(name: str) -> None:
    """Some of these change what is imported and some do not: whoever cannot tell lints again."""
    with project() as folder:
        lint = Linter()
        cached = Cache(folder / ".cache").wrap(lint)
        cached("zoo", Settings(), RULES)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
        importlib.invalidate_caches()
        runs = lint.runs
        with contextlib.suppress(ImportError, AttributeError):
            cached("zoo", Settings(), RULES)
        assert lint.runs == runs + (name != "zoo/pathlib")


def test_a_module_that_was_only_asked_for_counts_once_it_is_there() -> None:
    def asking(target: str, settings: Settings, rules: object) -> list[Outcome]:
        importlib.invalidate_caches()
        found = importlib.util.find_spec("zoo_plugin") is not None
        return [Outcome(info=TargetInfo(target=target, status="ok", model=str(found)))]

    with project() as folder:
        cached = Cache(folder / ".cache").wrap(asking)
        assert models(cached("zoo", Settings(), RULES)) == ["False"]
        (folder / "zoo_plugin").mkdir()
        assert models(cached("zoo", Settings(), RULES)) == ["True"]
        assert not any(isinstance(finder, Tried) for finder in sys.meta_path)


@pytest.mark.parametrize(
    "changed",
    [
        Settings(select=["DL1"]),
        Settings(ignore=["DL1"]),
        Settings(delta_threshold=0.9),
        Settings(input=["2x3x4x4"]),
        Settings(dropouts={"X": DropoutClass()}),
        Settings(checkpoint="w.pt"),
        Settings(targets=[TargetSettings(target="zoo", ignore=["DL2"])]),
    ],
)
def test_what_decides_the_result_is_part_of_the_key(changed: Settings) -> None:
    assert cache_key("zoo", changed) != cache_key("zoo", Settings())


@pytest.mark.parametrize(
    "same", [Settings(exit_zero=True), Settings(output_format=["json"]), Settings(jobs=3)]
)
def test_what_only_decides_how_it_is_shown_is_not(same: Settings) -> None:
    assert cache_key("zoo", same) == cache_key("zoo", Settings())


def test_a_changed_rule_of_the_project_counts(tmp_path: Path) -> None:
    rule = tmp_path / "XX901.md"
    rule.write_text("one")
    before = cache_key("zoo", Settings(rules=[str(tmp_path)]))
    rule.write_text("two")
    assert cache_key("zoo", Settings(rules=[str(tmp_path)])) != before


@pytest.mark.parametrize("damage", [b"", b"{", b'{"key": "x"}', b"\x00" * 100, b"[]"])
def test_a_corrupt_entry_is_ignored_and_replaced(damage: bytes) -> None:
    with project() as folder:
        lint = Linter()
        cached = Cache(folder / ".cache").wrap(lint)
        first = cached("zoo", Settings(), RULES)
        entry = next((folder / ".cache").glob("*.json"))
        entry.write_bytes(damage)
        assert cached("zoo", Settings(), RULES) == first
        assert cached("zoo", Settings(), RULES) == first
        assert lint.runs == 2


def test_an_entry_under_a_wrong_name_is_ignored() -> None:
    with project() as folder:
        lint = Linter()
        cache = Cache(folder / ".cache")
        cache.wrap(lint)("zoo", Settings(), RULES)
        entry = next((folder / ".cache").glob("*.json"))
        other = cache_key("zoo", Settings(ignore=["DL1"]))
        entry.rename(entry.with_name(f"{other}.json"))
        assert cache.load(other) is None


def test_failures_are_not_kept_nor_what_started_a_process() -> None:
    with project() as folder:
        cache = Cache(folder / ".cache")
        runs = []

        def failing(target: str, settings: Settings, rules: object) -> list[Outcome]:
            runs.append(1)
            return [Outcome(info=TargetInfo(target=target, status="error", error="x"))]

        def starting(target: str, settings: Settings, rules: object) -> list[Outcome]:
            runs.append(1)
            subprocess.run(["true"], check=True)
            return [Outcome(info=TargetInfo(target=target, status="ok"))]

        for lint in (failing, starting):
            for _ in range(2):
                cache.wrap(lint)("zoo", Settings(), RULES)
        assert len(runs) == 4


def test_what_it_stands_in_for_is_put_back_after_an_exception() -> None:
    stat, look_up = os.stat, type(os.environ).__getitem__

    def raising(target: str, settings: Settings, rules: object) -> list[Outcome]:
        assert os.stat is not stat
        raise KeyboardInterrupt

    with project() as folder, pytest.raises(KeyboardInterrupt):
        Cache(folder / ".cache").wrap(raising)("zoo", Settings(), RULES)
    assert os.stat is stat
    assert type(os.environ).__getitem__ is look_up


def test_a_folder_that_cannot_be_written_is_no_error() -> None:
    with project() as folder:
        (folder / "file").write_text("")
        lint = Linter()
        assert models(Cache(folder / "file").wrap(lint)("zoo", Settings(), RULES))
        assert models(Cache(folder / "file" / "sub").wrap(lint)("zoo", Settings(), RULES))


def test_old_entries_go() -> None:
    with project() as folder:
        cache = Cache(folder / ".cache")
        cache.wrap(Linter())("zoo", Settings(), RULES)
        for index in range(MOST_ENTRIES + 5):
            (cache.folder / f"{index}.json").write_text("{}")
        cache.wrap(Linter())("other", Settings(), RULES)
        assert len(list(cache.folder.glob("*.json"))) == MOST_ENTRIES
        assert (cache.folder / ".gitignore").read_text() == "*\n"


def test_a_warm_run_reports_the_same_and_never_imports_torch(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import starter\nfrom torch import nn\n\n\n"
        "def build():\n    return nn.Sequential(\n        nn.Linear(4, 4),\n"
        "        nn.Dropout(0.5),\n        nn.BatchNorm1d(4),\n    )\n"
    )
    (tmp_path / "site-packages").mkdir()  # as torch's CUDA builds do
    (tmp_path / "site-packages" / "starter.py").write_text("import subprocess\nsubprocess.run(['true'])\n")
    code = (
        "import sys\nfrom dropout_lint.cli import run\n"
        "status = run(['net.py:build', '--output-format', 'json'])\n"
        "print(f'\\ntorch: {\"torch\" in sys.modules}', file=sys.stderr)\nsys.exit(status)"
    )

    def lint() -> tuple[int, object, bool]:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site-packages'}"},
        )
        return done.returncode, json.loads(done.stdout), "torch: True" in done.stderr

    for _ in range(3):  # while this tool is being edited its own code is a reason to lint anew
        shutil.rmtree(tmp_path / ".dropout_lint_cache", ignore_errors=True)
        before = own_code()
        cold, warm = lint(), lint()
        if own_code() == before:
            break
    assert cold[0] == warm[0] == 1
    assert cold[1] == warm[1]
    assert (cold[2], warm[2]) == (True, False)


LAZY = """
import sys
from types import ModuleType
from torch import nn


class Lazy(ModuleType):
    def __getattr__(self, name):
        raise ImportError("what it leads to is not installed")


sys.modules["lazily"] = Lazy("lazily")


def build():
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
"""


def test_a_module_that_imports_when_it_is_asked_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(LAZY)
    done = cli("check", "net.py:build", "--input", "4x8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
