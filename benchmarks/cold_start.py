"""What the command line costs as whole processes: each command beside what it is compared to, by turns.

    python -m benchmarks.cold_start run [--runs 7] [--only WORDS]
    python -m benchmarks.cold_start page

Counted are the CPU seconds, user and system, of a process and of those that it has started, so that other
work on the machine matters little; memory is the most that one of them has held. `build and trace` is a
script that only imports torch, builds the model and runs `torch.fx.symbolic_trace`. `run` measures until each
comparison, or those whose name holds WORDS, has so many pairs, and keeps them in
`benchmarks/results/cold-start.json`; `page` writes `cold-start.md` and its plot from them.
"""

from __future__ import annotations

import argparse
import compileall
import fcntl
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cold-start.md"
KEPT, PLOT = RESULTS.with_suffix(".json"), RESULTS.with_suffix(".png")
LINT = (sys.executable, "-m", "dropout_lint")
RESNET = "torchvision.models:resnet50"
COLD = ("--no-cache", "--exit-zero")
SCHEMAS = """
import torch
for op in ("nms", "qnms"):
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    try:
        torch.library.define(f"torchvision::{op}", signature)
    except RuntimeError:
        pass
"""
PREDICTION = """
import time, torch
from dropout_lint.inputs.example import Inputs
from dropout_lint.loading.resolving import resolve
from dropout_lint.prediction import predict
from dropout_lint.trace import trace
torch.set_num_threads(1)
(built,) = resolve("torchvision.models:densenet121(drop_rate=0.2)", prefer_meta=False)
image = torch.randn(1, 3, 224, 224)
traced = trace(built.model, Inputs((image,)))
model = built.model.eval()
with torch.no_grad():
    model(image)
    times = [time.process_time()]
    predict(traced, %s)
    times.append(time.process_time())
    model(image)
    times.append(time.process_time())
print(times[1] - times[0], times[2] - times[1])
"""
SIZES = {"blocks, a dropout in each": (9, 27, 54, 108, 333), "dropouts in 198 blocks": (1, 9, 27, 99, 198)}
PREDICTIONS = {
    "prediction of densenet121, its weights": "basis='weights'",
    "the same from a checkpoint, without a run": "basis='checkpoint', probe_at_most=0",
}


class Used(NamedTuple):
    """CPU seconds of a command, and the most memory that a process of it held, in MiB."""

    seconds: float
    memory: float


Pair = tuple[Used, Used]


class Size(NamedTuple):
    """What `check` and what building and tracing have used, of a network of one size."""

    size: int
    ours: Used
    theirs: Used

    def line(self) -> str:
        """The row of the table."""
        (ours, held), (theirs, other) = self.ours, self.theirs
        return f"| {self.size} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} | {held:.0f} | {other:.0f} |"

    @classmethod
    def of(cls, size: int, pairs: Sequence[Pair]) -> Size:
        """The medians of pairs."""
        ours, theirs = (
            Used(*map(statistics.median, zip(*column, strict=True))) for column in zip(*pairs, strict=True)
        )
        return cls(size, ours, theirs)


class Row(NamedTuple):
    """A command with what it is compared to, and the ratio that issue 20 asks for."""

    name: str
    command: Sequence[str]
    against: str
    other: Sequence[str]
    most: float | None = None


def network(blocks: int, dropouts: int) -> Any:
    """A pre-activation ResNet of so many blocks, the first of which drop before their second norm."""
    from torch import nn

    from fixtures import preresnet

    model = preresnet.build(position="P4", p=0.3, depth=2 * blocks + 2)
    for block in [*model.layer1, *model.layer2, *model.layer3][dropouts:]:
        block.drop = nn.Identity()
    return model


def script(module: str, call: str) -> tuple[str, ...]:
    """The script that builds a model and runs `torch.fx.symbolic_trace`."""
    build = f"from {module} import {call.partition('(')[0]}\ntorch.fx.symbolic_trace({call})"
    return sys.executable, "-c", (SCHEMAS if module.startswith("torchvision") else "import torch\n") + build


def resnet(blocks: int, dropouts: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words that name `network` and its input on the command line, and its script."""
    call = f"network({blocks}, {dropouts})"
    target = (f"benchmarks.cold_start:{call}", "--input", "4x3x16x16")
    return target, script("benchmarks.cold_start", call)


def sized(what: str, size: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is compared in one row of the tables of sizes."""
    target, other = resnet(*((size, size) if what.startswith("blocks") else (198, size)))
    return (*LINT, *COLD, *target), other


def predicting(options: str) -> Pair:
    """CPU seconds of a prediction and of a forward pass, in a process of their own; memory is not told."""
    command = (sys.executable, "-c", SCHEMAS + PREDICTION % options)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ours, theirs = map(float, done.stdout.split())
    return Used(ours, 0.0), Used(theirs, 0.0)


def rows() -> list[Row]:
    """What is compared."""
    torch = (sys.executable, "-c", "import torch")
    zoo = "torchvision.models"
    dense = "densenet121(drop_rate=0.2)"
    traced, imported = "build and trace", "import torch"
    check = (*LINT, *COLD)
    found = [
        Row("check resnet50, cold", (*check, RESNET), traced, script(zoo, "resnet50()"), 1.05),
        Row("check resnet50, warm cache", (*LINT, RESNET), imported, torch),
        Row("--help", (*LINT, "--help"), imported, torch),
        Row("rule DL101", (*LINT, "rule", "DL101"), imported, torch),
        Row("check densenet121, 58 dropouts", (*check, f"{zoo}:{dense}"), traced, script(zoo, dense), 1.4),
    ]
    for blocks, most in ((108, 1.5), (333, 2.0)):
        target, other = resnet(blocks, blocks)
        name = f"check a ResNet of {blocks} blocks, a dropout in each"
        found.append(Row(name, (*check, *target), traced, other, most))
    for blocks, most in ((108, 2.0), (9, 1.4)):
        target, _ = resnet(blocks, blocks)
        name = f"fix the one of {blocks} blocks"
        found.append(Row(name, (*LINT, "fix", *target), "its check", (*check, *target), most))
    return found


def used(command: Sequence[str], folder: str) -> Used:
    """One run of a command, whose exit status may be 1: there are findings, or something to write."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=told, text=True
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            told.seek(0)
            raise SystemExit(told.read())
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def kept() -> dict[str, list[Pair]]:
    """The pairs that were measured, by comparison."""
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}


def keep(name: str, pair: Pair) -> None:
    """Add a pair to those kept; several runs may do so at once."""
    with Path(tempfile.gettempdir(), "cold-start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        KEPT.write_text(json.dumps(kept() | {name: [*kept().get(name, []), pair]}, indent=0) + "\n")


def measure(runs: int, only: str) -> None:
    """Measure by turns what has fewer pairs than `runs`."""
    compileall.compile_dir(ROOT / "dropout_lint", quiet=2)  # as what is installed is
    found: dict[str, Callable[[str], Pair]] = {
        **{row.name: lambda folder, row=row: paired(row.command, row.other, folder) for row in rows()},
        **{name: lambda _, options=options: predicting(options) for name, options in PREDICTIONS.items()},
        **{
            f"{size} {what}": lambda folder, size=size, what=what: paired(*sized(what, size), folder)
            for what, sizes in SIZES.items()
            for size in sizes
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        used((*LINT, RESNET), folder)  # fills the cache that one row finds warm, and those of the disk
        for turn in range(runs):
            for name in (name for name in found if only in name and len(kept().get(name, [])) <= turn):
                keep(name, found[name](folder))
                print(name, *kept()[name][-1], flush=True)


def paired(command: Sequence[str], other: Sequence[str], folder: str) -> Pair:
    """One run of each."""
    return used(command, folder), used(other, folder)


def line(name: str, against: str, most: float | None, pairs: Sequence[Pair]) -> str:
    """A row of the table of ratios: both medians, the median ratio, and the least and greatest."""
    ours, theirs = ([item[0] for item in column] for column in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    cells = [name, f"{statistics.median(ours):.2f}", against, f"{statistics.median(theirs):.2f}"]
    cells += [f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f}–{ratios[-1]:.2f}", str(len(pairs))]
    return f"| {' | '.join(cells)} | {'' if most is None else f'≤ {most}'} |"


def page() -> None:
    """Write the page and the plot from the pairs that are kept."""
    pairs = kept()
    lines = ["# Cost of the command line", ""]
    lines += [
        "`python -m benchmarks.cold_start run` and `… page`, Python "
        + platform.python_version()
        + "; medians of"
    ]
    lines += [
        "CPU seconds (user and system) of whole processes, of the ratios of pairs, and peak memory.",
        "",
    ]
    lines += [
        "| command | s | against | s | ratio | of the pairs | pairs | aim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [line(row.name, row.against, row.most, pairs[row.name]) for row in rows() if row.name in pairs]
    forward = "a forward of batch 1"
    lines += [line(name, forward, 1.5, pairs[name]) for name in PREDICTIONS if name in pairs]
    figures = {
        what: [Size.of(size, pairs[f"{size} {what}"]) for size in sizes if f"{size} {what}" in pairs]
        for what, sizes in SIZES.items()
    }
    for what, sizes in figures.items():
        lines += [
            "",
            f"| {what} | check, s | build and trace, s | ratio | check, MiB | build and trace, MiB |",
        ]
        lines += ["|---|---|---|---|---|---|", *(size.line() for size in sizes)]
    lines += ["", f"![time and peak memory by size]({PLOT.name})", ""]
    RESULTS.write_text("\n".join(lines), encoding="utf-8")
    draw(figures)


def draw(figures: Mapping[str, Sequence[Size]]) -> None:
    """Time and peak memory against size, one column of panels for each table."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, len(figures), figsize=(9, 6), sharey="row", layout="constrained")
    for column, (what, sizes) in enumerate(figures.items()):
        at = [item.size for item in sizes]
        for row, unit in enumerate(("CPU seconds", "peak memory, MiB")):
            axes = panels[row][column]
            axes.plot(at, [item.ours[row] for item in sizes], "o-", label="dropout-lint check")
            axes.plot(at, [item.theirs[row] for item in sizes], "s--", label="build and symbolic_trace")
            axes.set(xlabel=what, ylabel="" if column else unit, ylim=(0, None))
    panels[0][0].legend()
    figure.savefig(PLOT, dpi=100)


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if options.what == "run":
        measure(options.runs, options.only)
    else:
        page()


if __name__ == "__main__":
    main()
