"""Trace every torchvision model and one timm model of every family with no input given; print what happened.

    python benchmarks/zoo.py                       # all of it
    python benchmarks/zoo.py --only torchvision --match resnet
    python benchmarks/zoo.py --save                # also writes benchmarks/results/zoo.md
    python benchmarks/zoo.py --rerun   # real weights: does the recorded graph compute the same?

Each model is built on the meta device where it can be. Times are of one warm trace, beside one warm
`torch.fx.symbolic_trace` of the same model where that succeeds, in the same process.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dropout_lint.errors import DropoutLintError
from dropout_lint.loading.resolving import resolve
from dropout_lint.trace import Trace, trace

SLOW = 5.0  # seconds from which on the first, cold trace is the one that is reported
RESULTS = Path(__file__).parent / "results" / "zoo.md"


@dataclass
class Row:
    """One model."""

    target: str
    trace: Trace | None = None
    seconds: float = math.nan
    symbolic: float = math.nan
    error: str = ""
    crashed: bool = False


def torchvision_targets() -> Iterator[str]:
    """Every registered torchvision model, without weights."""
    from dropout_lint.loading.compat import declare_missing_schemas

    declare_missing_schemas()
    import inspect

    from torchvision import models

    for name in sorted(models.list_models()):
        builder = models.get_model_builder(name)
        options = ["weights=None"]
        if "weights_backbone" in inspect.signature(builder).parameters:
            options.append("weights_backbone=None")
        yield f"{builder.__module__}:{builder.__name__}({', '.join(options)})"


def timm_targets() -> Iterator[str]:
    """The smallest-named model of every timm module (family)."""
    from dropout_lint.loading.compat import declare_missing_schemas

    declare_missing_schemas()
    import timm
    from timm.models import _registry

    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(_registry._model_to_module[name], []).append(name)
    for names in families.values():
        yield f'timm:create_model("{min(names, key=_size)}")'


def _size(name: str) -> tuple[int, str]:
    """Small models first, by the words that timm uses for sizes."""
    words = (
        "test",
        "pico",
        "femto",
        "atto",
        "nano",
        "tiny",
        "xxs",
        "xs",
        "small",
        "_s",
        "mini",
        "18",
        "b0",
        "base",
        "_b",
    )
    order = next((index for index, word in enumerate(words) if word in name), len(words))
    return order, name


def run(target: str) -> Row:
    """Build, trace and time one model."""
    row = Row(target)
    try:
        built = resolve(target)[0]
        for _ in range(2):
            start = time.perf_counter()
            row.trace = trace(built.model, built.inputs, constructed=built.constructed)
            row.seconds = time.perf_counter() - start
            if row.seconds > SLOW:
                break
        row.symbolic = time_symbolic(built.model)
    except DropoutLintError as error:
        row.error = error.message
    except Exception as error:
        row.error, row.crashed = f"{type(error).__name__}: {error}", True
        traceback.print_exc()
    return row


def time_symbolic(model: torch.nn.Module) -> float:
    """Seconds of one warm plain symbolic trace, NaN where it fails."""
    try:
        torch.fx.symbolic_trace(model)
        start = time.perf_counter()
        torch.fx.symbolic_trace(model)
        return time.perf_counter() - start
    except Exception:
        return math.nan


def rerun(target: str) -> str:
    """Whether the recorded graph gives the model's eval outputs bit for bit, also at another batch."""
    from dropout_lint.fixes.graph.fix import from_graph
    from dropout_lint.inputs.shapes import materialise

    built = resolve(target, prefer_meta=False)[0]
    found = trace(built.model, built.inputs)
    if not found.runnable:
        return f"not runnable ({found.method})"
    model, copied = built.model.eval(), from_graph(found, [], norms=True).eval()
    inputs = materialise(found.inputs)
    same = []
    for size in (None, 3):
        args = [
            torch.randn(size, *arg.shape[1:]) if size and arg.is_floating_point() else arg
            for arg in inputs.args
        ]
        with torch.no_grad():
            ours, theirs = (list(_tensors(part(*args, **inputs.kwargs))) for part in (copied, model))
        same.append(len(ours) == len(theirs) and all(map(_equal, ours, theirs)))
    return {(True, True): "same", (True, False): "same, but not at another batch"}.get(
        (same[0], same[1]), "differs"
    )


def _equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool(torch.allclose(left, right, rtol=0, atol=0, equal_nan=True))


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def rerun_all(targets: list[str]) -> int:
    """Print the outcome for each target and their counts."""
    counts: dict[str, int] = {}
    for target in targets:
        try:
            outcome = rerun(target)
        except Exception as error:
            outcome = f"raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        print(f"{target:95s} {outcome}", flush=True)
        counts[outcome.split(" (")[0]] = counts.get(outcome.split(" (")[0], 0) + 1
    print(
        ", ".join(
            f"{count} {outcome}" for outcome, count in sorted(counts.items(), key=lambda item: -item[1])
        )
    )
    return 0


def table(rows: list[Row]) -> str:
    """The summary as Markdown, then a line for each model."""
    lines = []
    for name, chosen in (
        ("torchvision", [row for row in rows if row.target.startswith("torchvision")]),
        ("timm, one of every family", [row for row in rows if row.target.startswith("timm")]),
        ("all", rows),
    ):
        if chosen:
            lines.append(f"| {name} | " + " | ".join(summary(chosen)) + " |")
    head = (
        "| models | traced | partial | failed | crashed | methods | median s | p90 s "
        "| × symbolic_trace, median | plain symbolic_trace works |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    detail = [
        "| target | method | nodes | dropouts | norms | opaque | seconds | × symbolic |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.trace is None:
            detail.append(f"| `{row.target}` | failed: {row.error} | | | | | | |")
            continue
        found = row.trace
        ratio = "" if math.isnan(row.symbolic) else f"{row.seconds / row.symbolic:.2f}"
        opaque = ", ".join(part.name for part in found.opaque)
        detail.append(
            f"| `{row.target}` | {found.method} | {len(found.graph.nodes)} | {len(found.dropouts)} "
            f"| {len(found.norms)} | {opaque} | {row.seconds:.3f} | {ratio} |"
        )
    return "\n".join([head, *lines, "", *detail])


def summary(rows: list[Row]) -> list[str]:
    """The cells of one row of the summary."""
    traced = [row for row in rows if row.trace is not None]
    seconds = sorted(row.seconds for row in traced) or [math.nan]
    ratios = [row.seconds / row.symbolic for row in traced if not math.isnan(row.symbolic)]
    methods: dict[str, int] = {}
    for row in traced:
        assert row.trace is not None
        methods[row.trace.method] = methods.get(row.trace.method, 0) + 1
    return [
        f"{len(traced)}/{len(rows)}",
        str(sum(row.trace is not None and row.trace.partial for row in traced)),
        str(sum(row.trace is None for row in rows)),
        str(sum(row.crashed for row in rows)),
        ", ".join(f"{name} {count}" for name, count in sorted(methods.items(), key=lambda item: -item[1])),
        f"{statistics.median(seconds):.3f}",
        f"{seconds[min(len(seconds) - 1, int(0.9 * len(seconds)))]:.3f}",
        f"{statistics.median(ratios):.2f}" if ratios else "–",
        f"{len(ratios)}/{len(rows)}",
    ]


def main() -> int:
    """Run the sweep; exit status 1 if fewer than 99 % traced or anything crashed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["torchvision", "timm"])
    parser.add_argument("--match", default="")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--rerun", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    targets: list[str] = []
    if options.only != "timm":
        targets += torchvision_targets()
    if options.only != "torchvision":
        targets += timm_targets()
    targets = [target for target in targets if options.match in target]
    if options.rerun:
        return rerun_all(targets)
    rows = []
    for target in targets:
        rows.append(run(target))
        row = rows[-1]
        shown = row.trace.method if row.trace else f"FAILED {row.error}"
        print(f"{target:95s} {shown:10s} {row.seconds:6.3f} s", file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if options.save:
        threads = torch.get_num_threads()
        versions = f"Python {platform.python_version()}, torch {torch.__version__}, {threads} threads"
        RESULTS.write_text(f"# Model zoo\n\n`python benchmarks/zoo.py --save` on {versions}.\n\n{text}\n")
    traced = sum(row.trace is not None for row in rows)
    return int(traced < 0.99 * len(rows) or any(row.crashed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
