"""Cost of `measure` against bare forwards and against the plain recipe, on any device.

    python benchmarks/measure.py                             the whole table, on a GPU if there is one
    python benchmarks/measure.py --device cuda --batch 128   larger batches
    python benchmarks/measure.py --models wrn --batches 4    a small part

Three ways over the same batches, each warmed up once, then the fastest of `--repeats` interleaved rounds:

    bare      one forward in train mode and one in eval mode for every batch, nothing else
    measure   `dropout_lint.measurement` (all batches; random state, buffers and modes kept and put back)
    recipe    the same forwards with a hook on every norm that takes `input.var(dims).mean().item()`, as one
              finds it in notebooks: no exact merging, no means, and one synchronisation for every norm

Seconds are those of the wall clock on a GPU and of the processor on a CPU, where other work on the machine
must not count. Aims on a GPU: measure at most 1.15 × bare in time and 1.1 × bare in peak memory.

Writes benchmarks/results/measure-<device>.json and .md; what was not measured is marked so.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))

from dropout_lint.layers import STANDARD  # noqa: E402
from dropout_lint.measurement import measure  # noqa: E402

TIME_AIM, MEMORY_AIM = 1.15, 1.1
NOT_MEASURED = "not measured yet"


def torchvision_model(name: str, **options: Any) -> nn.Module:
    """A torchvision model with random weights."""
    from dropout_lint.loading.compat import declare_missing_schemas

    declare_missing_schemas()
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def resnet(name: str, p: float = 0.3) -> nn.Module:
    """A torchvision ResNet with dropout before the last weight layer of every block."""
    model = torchvision_model(name)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            last = "conv3" if hasattr(block, "conv3") else "conv2"
            setattr(block, last, nn.Sequential(nn.Dropout(p), getattr(block, last)))
    return model


def wide_resnet() -> nn.Module:
    """WRN-16-4 with dropout 0.3, from the fixtures."""
    from dropout_lint.loading.resolving import resolve

    return resolve("fixtures.wide_resnet:build(depth=16, widen_factor=4)", prefer_meta=False)[0].model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: resnet("resnet18"), (3, 224, 224)),
    "resnet50": (lambda: resnet("resnet50"), (3, 224, 224)),
    "densenet121": (lambda: torchvision_model("densenet121", drop_rate=0.2), (3, 224, 224)),
    "wrn": (wide_resnet, (3, 32, 32)),
}


@dataclass(frozen=True)
class Row:
    """One model: seconds of each way, and peak memory in MiB (None on the CPU)."""

    model: str
    statistics: str
    batch: int
    batches: int
    bare: float
    measured: float
    recipe: float
    bare_memory: float | None
    measured_memory: float | None

    @property
    def time_ratio(self) -> float:
        """measure / bare."""
        return self.measured / self.bare

    @property
    def recipe_ratio(self) -> float:
        """recipe / bare."""
        return self.recipe / self.bare

    @property
    def memory_ratio(self) -> float | None:
        """measure / bare, peak."""
        if self.bare_memory is None or self.measured_memory is None:
            return None
        return self.measured_memory / self.bare_memory


def bare(model: nn.Module, batches: list[Tensor]) -> None:
    """The forwards that any measurement has to make."""
    with torch.no_grad():
        for train in (True, False):
            model.train(train)
            for batch in batches:
                model(batch)


def recipe(model: nn.Module, batches: list[Tensor]) -> dict[str, float]:
    """A hook with `.var().item()` on every norm."""
    found: dict[str, dict[bool, list[float]]] = {}
    handles = []
    for name, module in model.named_modules():
        spec = STANDARD.norm(module)
        if spec is None or not spec.shifts:
            continue

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            x = inputs[0]
            variance = x.var(dim=[0, *range(2, x.dim())]).mean().item()
            found.setdefault(name, {True: [], False: []})[module.training].append(variance)

        handles.append(module.register_forward_pre_hook(hook))
    bare(model, batches)
    for handle in handles:
        handle.remove()
    return {name: sum(modes[False]) / sum(modes[True]) for name, modes in found.items()}


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float | None]:
    """Seconds of one run, and the peak of its memory in MiB on a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    synchronise(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    synchronise(device)
    seconds = clock() - start
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return seconds, peak


def row_of(name: str, statistics: str, args: argparse.Namespace, device: torch.device) -> Row:
    """Time the three ways for one model."""
    torch.manual_seed(0)
    build, shape = MODELS[name]
    model = build().to(device)
    amp = torch.bfloat16 if args.amp else None
    batches = [torch.randn(args.batch, *shape, device=device) for _ in range(args.batches)]
    model.train()
    with torch.no_grad():  # statistics that mean something, for `stored`
        for batch in batches[:2]:
            model(batch)

    def with_precision(work: Callable[[nn.Module, list[Tensor]], object]) -> None:
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            work(model, batches)

    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: with_precision(bare),
        "measured": lambda: measure(
            model, batches, device=device, tolerance=None, statistics=statistics, autocast=amp
        ),
        "recipe": lambda: with_precision(recipe),
    }
    best: dict[str, tuple[float, float | None]] = {}
    for way in ways.values():
        way()
    for _ in range(args.repeats):
        for key, way in ways.items():
            result = timed(way, device)
            if key not in best or result[0] < best[key][0]:
                best[key] = result
    return Row(
        name,
        statistics,
        args.batch,
        args.batches,
        best["bare"][0],
        best["measured"][0],
        best["recipe"][0],
        best["bare"][1],
        best["measured"][1],
    )


def cpu_name() -> str:
    """What the kernel calls the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def header(device: torch.device) -> dict[str, object]:
    """What the figures were measured on and with."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": gpu or f"CPU: {cpu_name()}, {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": shlex.join(["python", "benchmarks/measure.py", *sys.argv[1:]]),
    }


def table(head: dict[str, object], rows: list[Row], gpu: str) -> str:
    """The results as Markdown."""
    lines = [
        "# Cost of `measure`",
        "",
        *(f"- {key}: `{value}`" for key, value in head.items()),
        f"- on a data-centre GPU (aims: time ≤ {TIME_AIM} ×, peak memory ≤ {MEMORY_AIM} ×): {gpu}",
        "",
        "| model | statistics | batches | bare train + eval | measure | plain recipe | measure / bare |"
        " recipe / bare | peak memory / bare |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        memory = f"{row.memory_ratio:.3f}" if row.memory_ratio is not None else NOT_MEASURED
        lines.append(
            f"| {row.model} | {row.statistics} | {row.batches} × {row.batch}"
            f" | {row.bare:.3f} s | {row.measured:.3f} s | {row.recipe:.3f} s"
            f" | **{row.time_ratio:.3f}** | {row.recipe_ratio:.3f} | {memory} |"
        )
    return "\n".join(lines) + "\n"


def gpu_note(device: torch.device) -> str:
    """Where the GPU figures are, or that there are none."""
    if device.type == "cuda":
        return "measured here"
    kept = sorted(path.name for path in RESULTS.glob("measure-cuda*.md"))
    return ", ".join(kept) or NOT_MEASURED


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--statistics", default="stored,measured")
    parser.add_argument("--batch", type=int, default=None, help="samples of a batch [CPU: 8, GPU: 128]")
    parser.add_argument("--batches", type=int, default=None, help="[CPU: 2, GPU: 16]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    args = parser.parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    args.batch = args.batch or (128 if on_gpu else 8)
    args.batches = args.batches or (16 if on_gpu else 2)
    head, rows = header(device), []
    for name in args.models.split(","):
        for statistics in args.statistics.split(","):
            row = row_of(name, statistics, args, device)
            rows.append(row)
            print(
                f"{row.model:12} {row.statistics:9} bare {row.bare:.3f} s  measure {row.measured:.3f} s"
                f" ({row.time_ratio:.3f} ×)  recipe {row.recipe:.3f} s ({row.recipe_ratio:.3f} ×)"
                + (f"  peak memory {row.memory_ratio:.3f} ×" if row.memory_ratio is not None else ""),
                flush=True,
            )
    RESULTS.mkdir(exist_ok=True)
    stem = f"measure-{device.type}{'-amp' if args.amp else ''}"
    ratios = [
        asdict(row)
        | {"time_ratio": row.time_ratio, "recipe_ratio": row.recipe_ratio, "memory_ratio": row.memory_ratio}
        for row in rows
    ]
    data = {**head, "gpu": gpu_note(device), "rows": ratios}
    (RESULTS / f"{stem}.json").write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    (RESULTS / f"{stem}.md").write_text(table(head, rows, gpu_note(device)))
    print(f"written to {(RESULTS / stem).relative_to(ROOT)}.md and .json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
