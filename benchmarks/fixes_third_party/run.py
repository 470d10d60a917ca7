"""One model: its package copied into a scratch project, checked, fixed by the command line, and measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from .child import NAME, TARGET
from .records import Finding, Measured, Record

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns("__pycache__", "results", "packages", "cache", "*.so", "tests")

Linted = tuple[dict[str, float | None], tuple[tuple[str, str], ...]]
"""What `child.linted` gives."""


class Trouble(Exception):
    """A step of the benchmark gave no answer."""


def source_of(package: str, packages: Path) -> str:
    """The folder that a distribution's modules lie in."""
    known = {
        "deepctr-torch": "deepctr_torch",
        "neuraloperator": "neuralop",
        "segmentation-models-pytorch": "segmentation_models_pytorch",
        "vit-pytorch": "vit_pytorch",
    }
    name = known.get(package, package.replace("-", "_"))
    if not (packages / name).is_dir():
        raise Trouble(f"{package} has no folder {name} in {packages.name}")
    return name


def project(key: str, packages: Path, scratch: Path) -> Path:
    """A project that holds the package as its own source, and the target."""
    folder = scratch / key.replace("/", "--")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    name = source_of(key.partition("/")[0], packages)
    shutil.copytree(packages / name, folder / name, ignore=LEFT_OUT)
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=LEFT_OUT)
    (folder / "lint_target.py").write_text(TARGET.format(key=key, packages=str(packages)), encoding="utf-8")
    return folder


def asked(arguments: Sequence[str], folder: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """What a process in the project prints."""
    paths = os.pathsep.join([str(folder), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "400"}
    try:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Trouble(f"`{' '.join(arguments[2:4])}` was not done after {limit} s") from error


def child(question: str, key: str, packages: Path, folder: Path, *, limit: int, kind: Any) -> Any:
    """The answer of `child.py`."""
    output = folder / f"{question}.json"
    module = "benchmarks.fixes_third_party.child"
    done = asked(["-m", module, question, key, str(packages), str(output)], folder, limit)
    if done.returncode:
        raise Trouble(f"{question}: {done.stderr.strip().splitlines()[-1]}")
    return msgspec.json.decode(output.read_bytes(), type=kind)


def found(text: str) -> tuple[Finding, ...]:
    """The findings of a JSON report."""
    (target,) = msgspec.json.decode(text)["targets"]
    if target["status"] == "error":
        raise Trouble(f"check: {target['error']}")
    return tuple(
        Finding(
            code=item["code"],
            severity=item["severity"],
            dropout=(item.get("dropout") or {}).get("name") or "the model",
            norm=(item.get("norm") or {}).get("name"),
            applicability=item["fix"]["applicability"],
            strategy=item["fix"].get("strategy"),
            title=item["fix"].get("title", "").partition(", together with ")[0],
            delta_after=item["fix"].get("delta_after"),
            by=item["fix"].get("by"),
        )
        for item in target["findings"]
    )


def error_of(text: str) -> str:
    """The tool's own words on stderr, among those of the model's packages."""
    lines = text.strip().splitlines()
    return next((line for line in lines if line.startswith("error")), lines[-1] if lines else "no word")


def record(key: str, packages: Path, scratch: Path, limit: int) -> Record:
    """All about one model; what went wrong is told in `trouble`."""
    kept = Record(key)
    try:
        folder = project(key, packages, scratch)
        done = asked(
            ["-m", "dropout_lint", "check", NAME, "--fixes", "--output-format", "json"], folder, limit
        )
        if done.returncode not in (0, 1):
            raise Trouble(f"check: {error_of(done.stderr)}")
        kept = msgspec.structs.replace(kept, findings=found(done.stdout))
        if not kept.asked:
            return kept
        done = asked(["-m", "dropout_lint", "fix", NAME, "--write"], folder, limit)
        said = tuple(done.stderr.strip().splitlines())
        kept = msgspec.structs.replace(kept, said=said, diff=done.stdout, status=done.returncode)
        if done.returncode not in (0, 1):
            raise Trouble(f"fix: {error_of(done.stderr)}")
        if not done.stdout:
            return kept
        predicted, left = child("lint", key, packages, folder, limit=limit, kind=Linted)
        kept = msgspec.structs.replace(kept, predicted=predicted, left=left)
        after = child("measure", key, packages, folder, limit=limit, kind=tuple[Measured, ...])
        folder = project(key, packages, scratch)
        before = child("measure", key, packages, folder, limit=limit, kind=tuple[Measured, ...])
        kept = msgspec.structs.replace(kept, before=before, after=after)
    except Trouble as trouble:
        kept = msgspec.structs.replace(kept, trouble=str(trouble))
    return kept
