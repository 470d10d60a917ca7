"""What the command line costs as whole processes: each command in turn with what it is compared to.

    python benchmarks/cold_start.py [--runs 5] [--save]

`lint` is `dropout-lint torchvision.models:resnet50 --no-cache`, against a script that only imports torch
and torchvision, builds the model and runs `torch.fx.symbolic_trace`. The others are against
`python -c "import torch"`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "cold-start.md"
ROOT = Path(__file__).parent.parent
LINT = [sys.executable, "-m", "dropout_lint"]
RESNET = "torchvision.models:resnet50"
IMPORT = [sys.executable, "-c", "import torch"]
SCRIPT = [
    sys.executable,
    "-c",
    """
import torch
for op in ("nms", "qnms"):
    try:
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{op}", signature)
    except RuntimeError:
        pass
import torchvision
torch.fx.symbolic_trace(torchvision.models.resnet50())
""",
]
PAIRS = [
    ("lint resnet50, cold", [*LINT, RESNET, "--no-cache"], SCRIPT, "build and symbolic_trace"),
    ("lint resnet50, warm cache", [*LINT, RESNET], IMPORT, "import torch"),
    ("--help", [*LINT, "--help"], IMPORT, "import torch"),
    ("rule DL101", [*LINT, "rule", "DL101"], IMPORT, "import torch"),
]


def seconds(command: list[str], folder: str) -> float:
    """Wall seconds of one run of a command."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, capture_output=True, check=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    """Run the pairs in turn and print medians and the median of the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    lines = ["| command | seconds | against | seconds | ratio |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name, command, other, what in PAIRS:
            seconds(command, folder)
            seconds(other, folder)
            pairs = [(seconds(command, folder), seconds(other, folder)) for _ in range(options.runs)]
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            lines.append(f"| {name} | {ours:.3f} | {what} | {theirs:.3f} | {ratio:.2f} |")
    text = "\n".join(lines)
    print(text)
    if options.save:
        command = f"python benchmarks/cold_start.py --runs {options.runs} --save"
        head = f"`{command}`, Python {platform.python_version()}"
        RESULTS.write_text(f"# Cost of the command line\n\n{head}; medians, wall time.\n\n{text}\n")


if __name__ == "__main__":
    main()
