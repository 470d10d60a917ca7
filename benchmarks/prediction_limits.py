"""What a prediction without data can reach: trained networks, run on other images than those they know.

    python benchmarks/prediction_limits.py --cache DIR            all trained settings of some networks
    python benchmarks/prediction_limits.py --models preresnet20

Each trained network of `prediction.py` is itself run in train and in test mode, on Gaussian images
whose pixels correlate as the digits' do on average, and Δ is measured as on the digits. Nothing is
assumed about the network then: what this misses by, the data alone decide. Beside it stand the errors
of the ledger, which knows the running variances but runs nothing.

Writes benchmarks/results/prediction-limits.md.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from prediction import command_line, in_order, listed
from prediction_evaluated import compared
from prediction_measured import Case, cases, measure, prepared
from prediction_networks import KINDS, RATIOS, ROOT, data_of, models
from prediction_tables import quantile
from torch import Tensor

NETWORKS = ("preresnet20", "resnetv1_20", "bottleneck", "resnext11", "vgg_bn")
SAMPLES = 512


def alike(x: Tensor) -> Tensor:
    """(SAMPLES, C, H, W) Gaussian images with the mean correlation between pixels that images `x` have, by
    distance; all colours the same.
    """
    grey = x[:, 0].flatten(1).double()
    grey = (grey - grey.mean()) / grey.std()
    size = x.shape[-1]
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()], 1).double()
    step = torch.cdist(place, place).mul(2).round().long()
    found = grey.T @ grey / len(grey)
    counts = torch.bincount(step.flatten())
    by_distance = torch.bincount(step.flatten(), weights=found.flatten()) / counts.clamp(min=1)
    values, vectors = torch.linalg.eigh(by_distance[step])
    root = vectors * values.clamp(min=0).sqrt()
    images = torch.randn(SAMPLES, len(root), dtype=torch.double) @ root.T
    images = (images / images.std()).float().view(SAMPLES, 1, size, size)
    return images.expand(-1, x.shape[1], -1, -1)


def errors_of(case: Case, cache: Path | None) -> tuple[Case, list[float], list[float]]:
    """Errors at the norms of a setting: of the run on other images, and of the ledger."""
    net, measured = prepared(case, "trained", cache, 4)
    torch.manual_seed(0)
    run = measure(net, alike(data_of(case.model)[0]), False, 4)
    (result,) = compared(case, "trained", net, measured)
    return case, [abs(run[name] - value) for name, value in measured.items()], result.errors()


def row(label: str, found: Sequence[tuple[Case, list[float], list[float]]]) -> str:
    """A row of the table."""
    run, ledger = ([e for entry in found for e in entry[side]] for side in (1, 2))
    return (
        f"| {label} | {len(run)} | {statistics.fmean(run):.4f} | {quantile(run, 0.95):.3f} "
        f"| {statistics.fmean(ledger):.4f} | {quantile(ledger, 0.95):.3f} |"
    )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", help="comma-separated; default: " + ", ".join(NETWORKS))
    parser.add_argument("--jobs", type=int, default=1, help="settings at a time")
    parser.add_argument("--cache", type=Path, help="folder that keeps weights and measurements")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results" / "prediction-limits.md"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = listed(options.models or ",".join(NETWORKS), models(), "model", parser)
    work = functools.partial(errors_of, cache=options.cache)
    found = []
    for entry in in_order(work, list(cases(models(), names, RATIOS, KINDS)), options.jobs):
        found.append(entry)
        print(row(entry[0].key, [entry]), flush=True)
    lines = ["# What a prediction without data can reach", "", f"`{command_line(sys.argv)}`", ""]
    assert __doc__ is not None
    lines += [__doc__.split("\n\n")[2], ""]
    lines += [
        "| trained networks | norms | run on other images: mean | 95 % | the ledger: mean | 95 % |",
        "|" + "---|" * 6,
        row("all", found),
    ]
    lines += [row(f"p = {p}", [e for e in found if e[0].p == p]) for p in RATIOS]
    lines += [row(kind, group) for kind in KINDS if (group := [e for e in found if e[0].kind == kind])]
    lines += [row(name, [e for e in found if e[0].model == name]) for name in names]
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
