"""The house: each piece of knowledge stands once, and a room knows only the rooms below it."""

from __future__ import annotations

import ast
import functools
import graphlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_project import ROOT, run_in

from dropout_lint.config import Settings
from dropout_lint.config.settings import SHOWN
from dropout_lint.runs.cache import cache_key

PACKAGE = ROOT / "dropout_lint"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# what an extra brings, and what is heavy to import; everything else is imported at a file's top
HEAVY = {"torch", "torchvision", "matplotlib", "jinja2", "markupsafe", "markdown_it", "safetensors", "rich"}
HEAVY |= {"onnx", "importlib", "resource", "difflib", "lightning", "transformers"}


@functools.cache
def imports(module: str, *, top: bool) -> tuple[str, ...]:
    """The modules that `module` imports at its top, or inside functions, but for type checkers."""
    path = FILES[module]

    def walk(node: ast.AST, inside: bool) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            deeper = inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            if isinstance(child, ast.Import) and inside is not top:
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and inside is not top:
                assert not child.level and child.module
                for alias in child.names:
                    name = f"{child.module}.{alias.name}"
                    yield name if name in FILES else child.module
            yield from walk(child, deeper)

    return tuple(walk(ast.parse(path.read_text(encoding="utf-8")), False))


def heavy(module: str, seen: set[str] | None = None) -> set[str]:
    """Those of the packages that take long to load, or that come with an extra, which `module` imports."""
    seen = set() if seen is None else seen
    if module.partition(".")[0] != "dropout_lint":
        return {module.partition(".")[0]} & {"torch", "torchvision", "libcst", "pygls"}
    if module in seen or module not in FILES:
        return set()
    seen.add(module)
    parents = [module.rsplit(".", count)[0] for count in range(1, module.count("."))]
    found = [heavy(name, seen) for one in (module, *parents) for name in imports(one, top=True)]
    return set[str]().union(*found)


def test_what_is_imported_inside_a_function_is_torch_or_an_extra() -> None:
    for module in FILES:
        for name in imports(module, top=False):
            if name.partition(".")[0] != "dropout_lint":
                assert name.partition(".")[0] in HEAVY, f"{module} imports {name} inside a function"
                continue
            late = heavy(name) - heavy(module)
            assert late or name in ("dropout_lint", module), (
                f"{module} imports {name} inside a function without need"
            )


def test_one_place_predicts_and_surveys() -> None:
    callers = {
        (module, node.func.id)
        for module, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in ("predict", "survey")
    }
    # a prediction from weights that are not finite is made again from shapes
    assert callers - {("dropout_lint.prediction.ledger", "predict")} == {
        ("dropout_lint.analysis", "predict"),
        ("dropout_lint.analysis", "survey"),
    }


def test_the_rooms_are_checked() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "ignore_imports" not in text, "without exceptions"


CHANGED = {
    "targets": ["a"], "select": ["DL1"], "ignore": ["DL1"], "rules": ["r"], "dropouts": {"Drop": {}},
    "input": ["2x3"], "checkpoint": "weights.pt", "delta_threshold": 0.5, "fail_on": "error", "strict": True,
    "exit_zero": True, "allow_empty": True, "output_format": ["json"], "output_file": "o", "baseline": "b",
    "show_predictions": True, "cache": False, "cache_dir": "c", "jobs": 2, "timeout": 3.0,
    "pythonpath": ["lib"], "own_code": True, "assume_p": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_the_cache_key_holds_what_decides_a_result(name: str) -> None:
    settings = Settings(**{name: CHANGED[name]})  # type: ignore[arg-type]
    assert (cache_key("net:Net", settings) == cache_key("net:Net", Settings())) is (name in SHOWN)


NET = """\
import torch
from torch import nn


class MyDrop(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.bernoulli(torch.full_like(x, 1 - self.p)) / (1 - self.p)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = MyDrop(0.4)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.bn(self.drop(self.conv(x))).relu().mean((2, 3)))


example_inputs = torch.randn(8, 3, 12, 12)
"""

OWN_RULE = (ROOT / "rules" / "DL101-dropout-before-batch-norm.md").read_text(encoding="utf-8")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "lint").mkdir()
    rule = OWN_RULE.replace('code = "DL101"', 'code = "OWN101"').replace(
        'name = "dropout-before-batch-norm"', 'name = "our-own-rule"'
    )
    (tmp_path / "lint" / "OWN101-our-own-rule.md").write_text(rule)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.dropout-lint]\nrules = ["lint"]\nselect = ["OWN101"]\ndelta-threshold = 0.7\n'
        "[tool.dropout-lint.dropouts]\nMyDrop = {}\n"
    )
    return tmp_path


def test_own_dropouts_rules_selection_and_threshold_hold_in_every_command(own: Path) -> None:
    def report(*words: str) -> Any:
        done = run_in(own, *words, "--output-format", "json", "--no-cache", "--exit-zero")
        assert done.returncode == 0, done.stderr
        (target,) = json.loads(done.stdout)["targets"]
        return target

    plain = report("check", "net.py:Net")
    found = [(item["code"], item["dropout"]["name"], item["delta"]) for item in plain["findings"]]
    assert [item[:2] for item in found] == [("OWN101", "drop")]
    for more in (["--fixes"], ["--validate"]):
        other = report("check", "net.py:Net", *more)
        assert [(f["code"], f["dropout"]["name"], f["delta"]) for f in other["findings"]] == found
        assert other["predictions"] == plain["predictions"]
    measured = run_in(own, "measure", "net.py:Net", "--output-format", "json", "--batches", "2")
    (row,) = json.loads(measured.stdout)["targets"][0]["measurements"]
    (known,) = plain["predictions"]
    assert row["predicted"] == pytest.approx(known["delta"], abs=0.05)
    fixed = run_in(own, "fix", "net.py:Net")
    assert fixed.returncode == 1 and "move drop (MyDrop" in fixed.stderr
    written = run_in(own, "fix", "net.py:Net", "--write")
    assert written.returncode == 0, written.stderr
    assert not report("check", "net.py:Net")["findings"]


def test_own_dropouts_and_rules_hold_in_python(own: Path) -> None:
    code = """
import dropout_lint as dl, net, torch
from dropout_lint.layers import Catalogue, ExtraDropout
own = dict(catalogue=Catalogue({"MyDrop": ExtraDropout()}), rules=["lint"], select=["OWN101"], threshold=0.7)
report = dl.lint(net.Net(), net.example_inputs, **own)
(finding,) = report.findings
assert finding.code == "OWN101" and finding.delta < 0.7
for strategy in ("auto", "reduce", "remove"):
    fixed = dl.fix(net.Net(), net.example_inputs, strategy=strategy, **own)
    assert fixed.applied, fixed.skipped
shift = dl.measure(net.Net(), [torch.randn(64, 3, 12, 12)] * 2, catalogue=own["catalogue"])
assert abs(shift.delta["bn"] - finding.delta) < 0.1
trained, batches = net.Net().train(), [torch.randn(64, 3, 12, 12) for _ in range(4)]
trained.bn.momentum = None
for batch in batches:
    trained(batch)
noisy = trained.bn.running_var.mean()
dl.recalibrate(trained, batches)
assert abs(trained.bn.running_var.mean() / noisy - finding.delta) < 0.1
answers = dl.monte_carlo(trained.eval(), batches[0], 8, catalogue=own["catalogue"])
assert answers.std.max() > 0 and not answers.left
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{own}"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=own, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_import_goes_in_a_circle() -> None:
    order = {module: {name for name in imports(module, top=True) if name in FILES} for module in FILES}
    graphlib.TopologicalSorter(order).prepare()  # raises CycleError, which names the circle


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAP = CONTRIBUTING.partition("## The house")[2].partition("\n## ")[0]


def cells(line: str) -> list[list[str]]:
    """What stands in backticks in each cell of a table's line."""
    return [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]


def test_the_map_names_what_is_there() -> None:
    rooms, _, places = MAP.partition("| where is made |")
    there = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("_")} - {"py.typed"}
    named = set()
    for line in rooms.splitlines():
        if line.startswith("| `"):
            names, _, files = cells(line)
            named |= {name.strip("/") for name in names}
            for file in files:
                inside = ROOT / file[1:] if file.startswith("/") else PACKAGE / names[0] / file
                assert inside.exists(), f"CONTRIBUTING names {file} in {names[0]}"
    assert named == there
    rows = [cells(line) for line in places.splitlines() if line.startswith("| ")]
    assert len(rows) > 4
    for row in rows:
        words = [word for cell in row for word in cell]
        paths = [ROOT / word for word in words if "/" in word]
        assert paths
        for path in paths:
            assert path.exists(), f"CONTRIBUTING names {path.relative_to(ROOT)}"
        text = "".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
        for word in set(words) - {"message"}:
            made = rf"^ *(def {word}\(|class {word}\b|{word}\b.* = )"
            assert "/" in word or re.search(made, text, re.MULTILINE), f"CONTRIBUTING names {word}"
