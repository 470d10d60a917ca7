"""What the witness of random draws costs in a cold lint: pairs of whole processes, with it and without.

    python -m benchmarks.witness [--pairs 9] [--save]

Each pair is the same command line twice, in either order by turns: once with a witness that sees nothing,
and once with that of `dropout_lint/trace/witness.py` and the watch over Python's and numpy's draws. Counted
are user seconds, imports of torch included, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "witness.md"
TARGETS = {
    "fixtures, PointNet": ["fixtures.pointnet:build"],
    "torchvision, ResNet-50": ["torchvision.models:resnet50"],
    "torchvision, DenseNet-121, p = 0.2": ["torchvision.models:densenet121(drop_rate=0.2)"],
    "torchvision, EfficientNet-B0": ["torchvision.models:efficientnet_b0"],
}
SCRIPT = "import sys; from benchmarks.witness import lint; lint({blind}, sys.argv[1:])"
MOST = 1.10
"""What issue 16 allows."""


def lint(blind: bool, arguments: list[str]) -> None:
    """Lint in this process, without a witness if `blind`."""
    from dropout_lint.cli import run
    from dropout_lint.trace import recorder, witness

    if blind:

        class Blind(witness.Witness):
            """It is not entered, and notes nothing."""

            def __enter__(self) -> Blind:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def draw(self, *_: Any, **__: Any) -> int:
                return 0

            def reach(self, *_: Any) -> None:
                pass

        vars(recorder).update(Witness=Blind, watched=lambda *_: contextlib.nullcontext())
    run([*arguments, "--no-cache", "--exit-zero", "-q"])


def user_seconds(blind: bool, target: list[str]) -> float:
    """User seconds of one process."""
    command = [sys.executable, "-c", SCRIPT.format(blind=blind), *target]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode())
    return used.ru_utime


def main() -> None:
    """Run the pairs, print medians, and save them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.witness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    lines = ["| cold lint | without, s | with, s | ratio | of the pairs |", "|---|---|---|---|---|"]
    for name, target in TARGETS.items():
        pairs = []
        for turn in range(options.pairs + 1):
            order = (True, False) if turn % 2 else (False, True)
            used = {blind: user_seconds(blind, target) for blind in order}
            pairs.append((used[True], used[False]))
        pairs = pairs[1:]  # the first one fills the caches of the disk
        without, with_it = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(b / a for a, b in pairs)
        lines.append(
            f"| {name} | {without:.2f} | {with_it:.2f} | {statistics.median(ratios):.3f} "
            f"| {ratios[0]:.2f}–{ratios[-1]:.2f} |"
        )
        print(lines[-1], flush=True)
    if options.save:
        command = f"python -m benchmarks.witness --pairs {options.pairs} --save"
        head = f"`{command}`, Python {platform.python_version()}; medians of user time, the aim is {MOST}."
        RESULTS.write_text("\n".join(["# Cost of the witness", "", head, "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
